//! Files of JSON, an object a line, which are added to as a run goes.

use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Such a file, open for more lines.
pub(crate) struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens the file, which need not be there, keeps its lines up to the first that is not wanted or cannot be read, as the
    /// last may have been cut in writing, and drops the rest.
    pub fn open<T: Serialize + DeserializeOwned>(
        path: &Path,
        wanted: impl FnMut(&T) -> bool,
    ) -> Result<(JsonLines, Vec<T>)> {
        let text = if path.exists() { fs::read_to_string(path).map_err(Error::file(path))? } else { String::new() };
        let lines = text.lines().map_while(|line| serde_json::from_str(line).ok());
        let kept: Vec<T> = lines.take_while(wanted).collect();
        let scratch = path.with_extension("unfinished");
        let whole: String = kept.iter().map(line).collect();
        fs::write(&scratch, whole).and_then(|()| fs::rename(&scratch, path)).map_err(Error::file(path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::file(path))?;
        Ok((JsonLines { path: path.into(), file }, kept))
    }

    /// Adds a line.
    pub fn add(&mut self, value: &impl Serialize) -> Result<()> {
        self.file.write_all(line(value).as_bytes()).map_err(Error::file(&self.path))
    }

    /// Forces all lines to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::file(&self.path))
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data") + "\n"
}
