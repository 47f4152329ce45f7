//! The files that hold a model's weights.

use super::{ordinary, text};
use crate::error::{Error, Result};
use memmap2::Mmap;
use safetensors::SafeTensors;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The one file.
pub const WHOLE: &str = "model.safetensors";
/// The list of several.
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    /// File by tensor.
    weight_map: BTreeMap<String, String>,
}

/// Files in memory as far as they are read.
pub struct Shards(Vec<(PathBuf, Mmap)>);

impl Shards {
    /// Maps the folder's one file, or all that its index names.
    pub fn map(folder: &Path) -> Result<Shards> {
        let (whole, index) = (folder.join(WHOLE), folder.join(INDEX));
        let paths = match (whole.exists(), index.exists()) {
            (true, _) => vec![whole],
            (false, true) => listed(folder, &index)?,
            (false, false) => {
                let problem = format!("has neither {WHOLE} nor {INDEX}: save the model in the safetensors format");
                return Err(Error::Data { path: folder.into(), problem });
            }
        };
        let files = paths.into_iter().map(|path| Ok((path.clone(), map(&path)?)));
        Ok(Shards(files.collect::<Result<_>>()?))
    }

    /// Of all files together.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, map)| map.len() as u64).sum()
    }

    /// Their tables of contents; reads no weights.
    pub fn contents(&self) -> Result<Vec<SafeTensors<'_>>> {
        self.0.iter().map(|(path, map)| contents(path, map)).collect()
    }
}

fn contents<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>> {
    let problem = |error| Error::Data { path: path.into(), problem: format!("not a safetensors file: {error}") };
    SafeTensors::deserialize(map).map_err(problem)
}

fn map(path: &Path) -> Result<Mmap> {
    let file = ordinary(path)?;
    // SAFETY: nothing here writes to the file, and `open` asks that nobody else does while it reads. The bytes are taken
    // as numbers, of which every pattern of bits is one, after the table of contents was checked against their length.
    unsafe { Mmap::map(&file) }.map_err(Error::file(path))
}

/// The files that an index names, each once.
fn listed(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let problem = |problem: String| Error::Data { path: index.into(), problem };
    let text = text(index)?;
    let index: Index = serde_json::from_str(&text).map_err(|error| problem(format!("not an index: {error}")))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(problem("names no file".into()));
    }
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(problem(format!("names {name:?}, which is not a file of this folder")));
    }
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !folder.join(name).exists()).collect();
    if !missing.is_empty() {
        return Err(problem(format!("names what is not there: {}", missing.join(", "))));
    }
    Ok(names.iter().map(|name| folder.join(name)).collect())
}
