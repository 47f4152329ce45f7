//! Folders that appear whole or not at all, and notice damage.
//!
//! A folder is written beside its place under another name, each file and the folder itself forced to the disk, then
//! renamed, and the parent forced to the disk: whenever the machine stops, the old state or the new one is there. A
//! manifest holds length and checksum of every file.

use super::{checksum, read};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files of a folder, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

const MANIFEST: &str = "manifest.json";
const SCRATCH: &str = ".unfinished-";

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    /// In hexadecimal, because numbers in JSON are exact to 53 bits only.
    checksum: String,
}

impl Entry {
    fn of(contents: &[u8]) -> Entry {
        Entry { bytes: contents.len() as u64, checksum: format!("{:016x}", checksum(contents)) }
    }
}

/// Writes a folder that does not exist yet; its parent must.
pub fn write_folder(path: &Path, files: &Files) -> Result<()> {
    write_whole(path, |scratch| fill(scratch, files))
}

/// The same without a manifest, for readers that know none.
pub fn write_plain(path: &Path, files: &Files) -> Result<()> {
    write_whole(path, |scratch| fill_with(scratch, files.iter().map(|(name, bytes)| (name.as_str(), bytes))))
}

/// The same with whatever `fill` makes of the new, empty folder that it is given, without a manifest. What an earlier
/// write of the same folder left when it was cut short is removed.
pub(super) fn write_whole(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let scratch = scratch_for(path);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(Error::file(&scratch))?;
    }
    fs::create_dir(&scratch).map_err(Error::file(&scratch))?;
    let written = fill(&scratch).and_then(|()| {
        sync_folder(&scratch)?;
        fs::rename(&scratch, path).map_err(Error::file(path))?;
        sync_folder(parent(path))
    });
    if written.is_err() {
        // Best effort: the error that counts is the one above.
        let _ = fs::remove_dir_all(&scratch);
    }
    written
}

fn fill(scratch: &Path, files: &Files) -> Result<()> {
    let entries: BTreeMap<&str, Entry> = files.iter().map(|(name, bytes)| (name.as_str(), Entry::of(bytes))).collect();
    let manifest = serde_json::to_vec_pretty(&entries).expect("names and numbers");
    fill_with(scratch, files.iter().map(|(name, bytes)| (name.as_str(), bytes)).chain([(MANIFEST, &manifest)]))
}

fn fill_with<'a>(scratch: &Path, files: impl Iterator<Item = (&'a str, &'a Vec<u8>)>) -> Result<()> {
    for (name, contents) in files {
        write_file(&scratch.join(name), contents)?;
    }
    Ok(())
}

/// Writes a file that does not exist yet, and forces it to the disk.
pub(super) fn write_file(path: &Path, contents: &[u8]) -> Result<()> {
    write_pieces(path, |write| write(contents))
}

/// The same piece by piece: `pieces` calls what it is given with each in turn.
pub(super) fn write_pieces(
    path: &Path,
    pieces: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::file(path))?;
    pieces(&mut |piece| file.write_all(piece).map_err(Error::file(path)))?;
    file.sync_all().map_err(Error::file(path))
}

/// Forces names in a folder to the disk; only Unix can.
fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) {
        return File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::file(path));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn scratch_for(path: &Path) -> PathBuf {
    let mut name = OsString::from(SCRATCH);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Reads a folder's files and checks them against its manifest.
pub fn read_folder(path: &Path) -> Result<Files> {
    let broken = |problem: String| Error::Checkpoint { path: path.into(), problem };
    let manifest = read(&path.join(MANIFEST)).map_err(|e| broken(format!("no manifest ({e})")))?;
    let entries: BTreeMap<String, Entry> =
        serde_json::from_slice(&manifest).map_err(|e| broken(format!("{MANIFEST} is damaged: {e}")))?;
    let mut files = Files::new();
    for (name, entry) in entries {
        if Path::new(&name).file_name() != Some(name.as_ref()) {
            return Err(broken(format!("{MANIFEST} is damaged: {name:?} is not a file of this folder")));
        }
        let contents = read(&path.join(&name)).map_err(|_| broken(format!("{name} is missing")))?;
        if contents.len() as u64 != entry.bytes {
            return Err(broken(format!("{name} has {} bytes instead of {}", contents.len(), entry.bytes)));
        }
        if Entry::of(&contents) != entry {
            return Err(broken(format!("{name} is damaged: its checksum is wrong")));
        }
        files.insert(name, contents);
    }
    Ok(files)
}

/// Removes a folder; cut short, it leaves nothing that looks whole.
pub fn remove_folder(path: &Path) -> Result<()> {
    let scratch = scratch_for(path);
    fs::rename(path, &scratch).map_err(Error::file(path))?;
    fs::remove_dir_all(&scratch).map_err(Error::file(scratch))
}

/// Removes what writes and removals cut short left behind in `parent`.
pub fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).map_err(Error::file(parent))? {
        let entry = entry.map_err(Error::file(parent))?;
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            fs::remove_dir_all(entry.path()).map_err(Error::file(entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files::from([("a".to_string(), vec![1, 2, 3]), ("b".to_string(), (0..=255).collect())])
    }

    #[test]
    fn a_folder_comes_back_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("one");
        write_folder(&path, &files()).unwrap();
        assert!(read_folder(&path).unwrap() == files());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no scratch is left");
    }

    #[test]
    fn damage_and_cuts_are_noticed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("one");
        write_folder(&path, &files()).unwrap();
        let file = path.join("b");
        let good = fs::read(&file).unwrap();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1 << (byte % 8);
            fs::write(&file, bad).unwrap();
            assert!(read_folder(&path).is_err(), "byte {byte}");
        }
        for length in [0, 1, 255] {
            fs::write(&file, &good[..length]).unwrap();
            assert!(read_folder(&path).is_err(), "cut to {length}");
        }
        fs::remove_file(&file).unwrap();
        assert!(read_folder(&path).unwrap_err().to_string().contains("b is missing"));
    }

    #[test]
    fn what_a_cut_write_left_is_swept_away() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("one");
        let scratch = scratch_for(&path);
        fs::create_dir(&scratch).unwrap();
        fill(&scratch, &files()).unwrap();
        assert!(read_folder(&path).is_err());
        write_folder(&path, &files()).unwrap();
        remove_folder(&path).unwrap();
        fs::create_dir(&scratch).unwrap();
        sweep(home.path()).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
