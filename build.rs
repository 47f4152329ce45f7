//! Writes the built-in corpus, this crate's own documents and source joined in the order of their paths, and the table
//! of shaders.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PARTS: [&str; 5] = ["ARCHITECTURE.md", "README.md", "examples", "shaders", "src"];
const KINDS: [&str; 3] = ["md", "rs", "wgsl"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut files = Vec::new();
    // Cargo takes a watched path that does not exist for a change, and would build anew each time.
    for part in PARTS.map(|part| root.join(part)).into_iter().filter(|part| part.exists()) {
        println!("cargo:rerun-if-changed={}", part.display());
        collect(&part, &mut files)?;
    }
    files.sort();
    let texts: Vec<String> = files.iter().map(fs::read_to_string).collect::<io::Result<_>>()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    fs::write(out.join("corpus.txt"), texts.join("\n"))?;
    fs::write(out.join("shaders.rs"), shaders(&files))
}

/// Name and text of every shader.
fn shaders(files: &[PathBuf]) -> String {
    let shaders = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "wgsl"));
    let rows = shaders.map(|path| {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("shaders have plain names");
        format!("    ({name:?}, include_str!({:?})),\n", path.display().to_string())
    });
    format!("static SHADERS: &[(&str, &str)] = &[\n{}];\n", rows.collect::<String>())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known)) {
        files.push(path.to_path_buf());
    }
    Ok(())
}
