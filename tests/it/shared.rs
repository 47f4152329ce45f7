//! Public data that is too large, or not free enough, to lie in the tree: see EXPERIMENTS.md for where it comes from.

use std::path::PathBuf;

/// A file or folder below `ECKART_DATA`, or below `../shared/data`; none, said on stderr, where it is not there.
pub fn file(relative: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let root = std::env::var_os("ECKART_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = root.join(relative);
    if path.exists() {
        return Some(path);
    }
    crate::skipped(&format!("{} is not there: set ECKART_DATA to the folder that has {relative}", path.display()));
    None
}
