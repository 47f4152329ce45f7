//! Labelled texts to learn from, and some held back.

use super::parts::{Parts, held_back};
use super::{Columns, LabelledSet};
use crate::data::Tokenizer;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// What a classifier is fine-tuned on.
#[derive(Clone, Debug)]
pub struct LabelledData {
    /// Texts to learn from, with the names of all labels.
    pub train: LabelledSet,
    /// Texts held back, never learnt from. What was cut of a single file is counted in `train`.
    pub validation: LabelledSet,
    /// How many of the training file's texts were held back for validation; none if there was a file for it.
    pub held_back: Option<usize>,
}

impl LabelledData {
    /// Reads a file, or a folder with `train` and perhaps `valid` (or `validation`, or `dev`), each `.tsv`, `.csv` or
    /// `.jsonl`. Columns and labels are those of [`LabelledSet::read`]; validation has no other labels than training.
    pub fn open(
        path: &Path,
        tokenizer: &Tokenizer,
        columns: Option<&Columns>,
        max_length: usize,
        names: Option<&[String]>,
    ) -> Result<LabelledData> {
        let read =
            |path: &Path, names: Option<&[String]>| LabelledSet::read(path, tokenizer, columns, max_length, names);
        let parts = Parts::of(path)?;
        let mut train = read(&parts.train, names)?;
        if let Some(validation) = &parts.validation {
            let validation = read(validation, Some(&train.names))?;
            return Ok(LabelledData { train, validation, held_back: None });
        }
        let rest = held_back(&mut train.examples, &parts.train)?;
        let held_back = Some(rest.len());
        let validation = LabelledSet { examples: rest, names: train.names.clone(), truncated: 0 };
        Ok(LabelledData { train, validation, held_back })
    }

    /// The file to be asked about at the end: of a folder the one for tests, else the one for validation.
    pub fn held_out(path: &Path) -> Result<PathBuf> {
        Parts::of(path).map(Parts::held_out)
    }
}
