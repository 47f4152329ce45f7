//! The shape of the house: which module may use which, and how long a file may be.

use std::path::{Path, PathBuf};

/// Modules from the top down; those in one row never use each other, except in the core, which is one layer.
const ORDER: [&[&str]; 15] = [
    &["main"],
    &["train"],
    &["io"],
    &["dist"],
    &["data", "nn"],
    &["rank"],
    &["lowrank"],
    &["optim"],
    CORE,
    &["device"],
    &["rng"],
    &["shape"],
    &["scalar"],
    &["dtype"],
    &["error"],
];
const CORE: &[&str] = &["tensor", "autograd", "ops", "module"];

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

/// Every Rust file below a folder.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// First component of a path below `src`, without its extension.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below.components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned()
}

/// Crate modules that a text names, in `use` lines and in paths alike; names at the crate's root are re-exports.
fn used(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>());
    let grouped = |path: String| match path.strip_prefix('{') {
        Some(group) => group.split(',').map(|part| part.trim().to_owned()).collect(),
        None => vec![path],
    };
    let name = |path: String| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    paths.flat_map(grouped).map(name).filter(|name| name.starts_with(|c: char| c.is_lowercase())).collect()
}

#[test]
fn modules_use_only_what_lies_below() {
    let mut uses = 0;
    for path in sources(&root().join("src")) {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let from = rank(&module).unwrap_or_else(|| panic!("{module} has no place in the order of modules"));
        for name in used(&std::fs::read_to_string(&path).unwrap()) {
            // Macros at the crate's root have no place in the order.
            let Some(to) = rank(&name) else { continue };
            uses += 1;
            let allowed = to > from || name == module || (CORE.contains(&&*name) && CORE.contains(&&*module));
            assert!(allowed, "{} uses {name}, which lies above or beside {module}", path.display());
        }
    }
    assert!(uses > 50, "only {uses} uses found: does the scan still fit the sources?");
}

#[test]
fn files_are_short() {
    let folders = ["src", "tests", "benches", "examples"].map(|folder| root().join(folder));
    for path in folders.iter().filter(|folder| folder.exists()).flat_map(|folder| sources(folder)) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines", path.display());
    }
}

/// Kernels for the graphics card are files of their own.
#[test]
fn no_shader_text_in_rust() {
    for path in sources(&root().join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("@compute"), "{} holds shader text", path.display());
    }
}
