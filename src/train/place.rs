//! Where runs lie.

use super::{Config, Store};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs that were given no folder, by number.
const HOME: &str = "runs";

/// A folder for a new run: the next number below `runs`.
pub fn next_free() -> PathBuf {
    Path::new(HOME).join((numbers().max().unwrap_or(0) + 1).to_string())
}

/// The folder of the latest run below `runs`.
pub fn latest() -> Result<PathBuf> {
    match numbers().max() {
        Some(number) => Ok(Path::new(HOME).join(number.to_string())),
        None => Err(Error::Config(format!("nothing to resume: there is no run below {HOME}; say which with out"))),
    }
}

fn numbers() -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(HOME).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
}

/// The configuration that the run in `out` was started with: what to resume it with.
pub fn previous(out: &Path) -> Result<Config> {
    let found = Store::new(out.join("checkpoint"), 1).newest(u64::MAX)?;
    Ok(Config { out: Some(out.into()), ..found.checkpoint.state.config })
}
