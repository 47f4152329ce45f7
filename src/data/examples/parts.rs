//! The files of a data set.

use crate::data::corpus::HELD_BACK;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Kinds of files, by their names' ends.
const KINDS: [&str; 4] = ["jsonl", "txt", "tsv", "csv"];

/// A file, or those of a folder.
pub struct Parts {
    pub train: PathBuf,
    pub validation: Option<PathBuf>,
    pub test: Option<PathBuf>,
}

impl Parts {
    /// Of a folder `train`, perhaps `valid` (or `validation`, or `dev`) and `test`, each of one of the kinds.
    pub fn of(path: &Path) -> Result<Parts> {
        if !path.is_dir() {
            known(path)?;
            return Ok(Parts { train: path.into(), validation: None, test: None });
        }
        let Some(train) = part(path, &["train"])? else {
            let problem = "has no train.jsonl, train.txt, train.tsv or train.csv".into();
            return Err(Error::Data { path: path.into(), problem });
        };
        Ok(Parts { train, validation: part(path, &["valid", "validation", "dev"])?, test: part(path, &["test"])? })
    }

    /// What is kept for the end, or else for validation, or else the one file.
    pub fn held_out(self) -> PathBuf {
        self.test.or(self.validation).unwrap_or(self.train)
    }
}

/// Fails for a file of another kind.
pub fn known(path: &Path) -> Result<()> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(kind) if KINDS.contains(&kind) => Ok(()),
        _ => Err(Error::Data { path: path.into(), problem: "is none of .jsonl, .txt, .tsv and .csv".into() }),
    }
}

/// The one file of a folder with one of these names.
fn part(folder: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    let paths = names.iter().flat_map(|name| KINDS.map(|kind| folder.join(format!("{name}.{kind}"))));
    let found: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    match &found[..] {
        [one, other, ..] => {
            let problem = format!("has both {} and {}: which one is meant?", name(one), name(other));
            Err(Error::Data { path: folder.into(), problem })
        }
        _ => Ok(found.into_iter().next()),
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Takes the last tenth away, at least one: what is held back where there is no file for it.
pub fn held_back<T>(examples: &mut Vec<T>, path: &Path) -> Result<Vec<T>> {
    if examples.len() < 2 {
        let problem = "has one example, and one is needed for validation: give it more, or a folder with valid.jsonl";
        return Err(Error::Data { path: path.into(), problem: problem.into() });
    }
    Ok(examples.split_off(examples.len() - (examples.len() / HELD_BACK).max(1)))
}
