//! The files that hold a model's weights.

use super::{ordinary, text};
use crate::error::{Error, Result};
use memmap2::{Mmap, MmapOptions};
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
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

/// Open files.
pub struct Shards(Vec<(PathBuf, File)>);

/// A tensor in one of them.
#[derive(Clone)]
pub struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: usize,
    file: usize,
    start: u64,
}

impl Shards {
    /// Opens the folder's one file, or all that its index names.
    pub fn open(folder: &Path) -> Result<Shards> {
        let (whole, index) = (folder.join(WHOLE), folder.join(INDEX));
        let paths = match (whole.exists(), index.exists()) {
            (true, _) => vec![whole],
            (false, true) => listed(folder, &index)?,
            (false, false) => {
                let problem = format!("has neither {WHOLE} nor {INDEX}: save the model in the safetensors format");
                return Err(Error::Data { path: folder.into(), problem });
            }
        };
        let files = paths.into_iter().map(|path| ordinary(&path).map(|file| (path, file)));
        Ok(Shards(files.collect::<Result<_>>()?))
    }

    /// The files themselves.
    pub fn into_files(self) -> Vec<(PathBuf, File)> {
        self.0
    }

    /// Bytes of all of them.
    pub fn length(&self) -> Result<u64> {
        self.0.iter().map(|(path, file)| length(path, file).map(|bytes| bytes as u64)).sum()
    }

    /// Their tables of contents, by name; reads no weights.
    pub fn contents(&self) -> Result<Vec<(String, Entry)>> {
        let of_each = self.0.iter().enumerate().map(|(number, (path, file))| contents(number, path, file));
        let mut all = of_each.collect::<Result<Vec<_>>>()?.concat();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    /// A tensor's bytes, in memory as far as they are read and no longer than they are held.
    pub fn bytes(&self, entry: &Entry) -> Result<Mmap> {
        let (path, file) = &self.0[entry.file];
        map(file, MmapOptions::new().offset(entry.start).len(entry.bytes)).map_err(Error::file(path))
    }
}

fn contents(number: usize, path: &Path, file: &File) -> Result<Vec<(String, Entry)>> {
    let problem = |error| Error::Data { path: path.into(), problem: format!("not a safetensors file: {error}") };
    let bytes = map(file, MmapOptions::new().len(length(path, file)?)).map_err(Error::file(path))?;
    // It compares the table with the file's length.
    let (table, metadata) = SafeTensors::read_metadata(&bytes).map_err(problem)?;
    let entry = |info: &TensorInfo| {
        let (from, to) = info.data_offsets;
        let start = (size_of::<u64>() + table + from) as u64;
        Entry { dtype: info.dtype, shape: info.shape.clone(), bytes: to - from, file: number, start }
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect())
}

fn length(path: &Path, file: &File) -> Result<usize> {
    let length = file.metadata().map_err(Error::file(path))?.len();
    usize::try_from(length).map_err(|_| Error::Data { path: path.into(), problem: "is too large to be mapped".into() })
}

fn map(file: &File, part: &MmapOptions) -> std::io::Result<Mmap> {
    // SAFETY: nothing here writes to the file, and `open` asks that nobody else does while it reads. The bytes are taken
    // as text that is checked, and as numbers, of which every pattern of bits is one.
    unsafe { part.map(file) }
}

/// The files that an index names, each once.
fn listed(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let problem = |problem: String| Error::Data { path: index.into(), problem };
    let text = text(index, u64::MAX)?;
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
