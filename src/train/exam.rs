//! What a finished model is asked about: a file as its kind of model reads it.

use super::text_lessons::{known, labelled, unlabelled};
use super::windows::held_back;
use crate::data::{
    Batch, Batches, Columns, Dataset, Examples, Goal, LabelledData, LabelledSet, Layout, MASKED, Reading, Texts,
    Tokenizer,
};
use crate::error::{Error, Result};
use crate::nn::ModelConfig;
use std::path::Path;

/// Batches of texts that a model did not learn from.
pub struct Exam {
    /// Batches.
    pub batches: Vec<Batch>,
    /// Texts that were longer than the model reads, and are cut.
    pub truncated: usize,
    /// Of each text, in the order of the batches, the adapter that its line names; none where lines name none.
    pub adapters: Option<Vec<Option<String>>>,
}

/// How a file is read.
#[derive(Clone, Debug)]
pub struct Questions {
    /// Count completions and last answers alone.
    pub mask_prompt: bool,
    /// Columns of a table of labelled texts, see [`Columns::of`].
    pub columns: Option<Vec<String>>,
    /// Texts in a batch.
    pub batch: usize,
    /// Share of tokens hidden from an encoder, above 0 and at most 1; unless given, [`MASKED`].
    pub mlm_probability: Option<f64>,
    /// What hiding tokens from an encoder is a function of.
    pub seed: u64,
}

impl Questions {
    /// Reads a file, or of a folder the part for tests, else the one for validation, for a model of these sizes: labelled
    /// texts for a classifier, texts of which tokens are hidden for an encoder, and else whatever
    /// [`Dataset::open`] reads. No text is longer than the model's context.
    pub fn read(&self, path: &Path, tokenizer: &Tokenizer, sizes: &ModelConfig) -> Result<Exam> {
        let refused = |setting: &str, problem: &str| Err(Error::Config(format!("{setting}: {problem}")));
        let causal = sizes.labels.is_none() && !sizes.arch.is_encoder();
        if self.mask_prompt && !causal {
            return refused("mask_prompt", "this model does not write after a prompt");
        }
        if self.columns.is_some() && sizes.labels.is_none() {
            return refused("columns", "this model is no classifier");
        }
        match self.mlm_probability {
            Some(_) if causal || sizes.labels.is_some() => {
                return refused("mlm_probability", "no tokens are hidden from this model");
            }
            Some(share) if !(share > 0.0 && share <= 1.0) => {
                return refused("mlm_probability", &format!("{share} is not above 0 and at most 1"));
            }
            _ => {}
        }
        match &sizes.labels {
            Some(labels) => self.labelled(path, tokenizer, sizes, labels),
            None if causal => self.causal(path, tokenizer, sizes.context),
            None => self.hidden(path, tokenizer, sizes.context),
        }
    }

    fn labelled(&self, path: &Path, tokenizer: &Tokenizer, sizes: &ModelConfig, labels: &[String]) -> Result<Exam> {
        let columns = self.columns.as_deref().map(Columns::of).transpose()?;
        let (path, context) = (LabelledData::held_out(path)?, sizes.context);
        let set = LabelledSet::read(&path, tokenizer, columns.as_ref(), context, Some(&known(labels)))?;
        Ok(self.texts(labelled(set.examples, sizes, self.batch, context), set.truncated))
    }

    fn hidden(&self, path: &Path, tokenizer: &Tokenizer, context: usize) -> Result<Exam> {
        let framing = tokenizer.framing()?.hiding(self.mlm_probability.unwrap_or(MASKED));
        let examples = match path.is_file() {
            true => Examples::framed(path, tokenizer, &framing, context)?,
            false => held_out(Dataset::framed(path, tokenizer, context)?),
        };
        let texts = unlabelled(examples.examples);
        Ok(self.texts(Texts::new(texts, Goal::Hidden(framing.masking), self.batch, context), examples.truncated))
    }

    fn texts(&self, texts: Texts, truncated: usize) -> Exam {
        Exam { batches: texts.validation(self.batch, held_back(self.seed)).collect(), truncated, adapters: None }
    }

    fn causal(&self, path: &Path, tokenizer: &Tokenizer, context: usize) -> Result<Exam> {
        let reading = Reading { max_length: context, mask_prompt: self.mask_prompt };
        let examples = match path.is_file() {
            true => Examples::read(path, tokenizer, reading)?,
            false => held_out(Dataset::open(path, tokenizer, reading)?),
        };
        let (truncated, adapters) = (examples.truncated, Some(examples.adapters));
        let batches = Batches::new(examples.examples, self.batch, context, Layout::Padded);
        Ok(Exam { batches: batches.validation(self.batch).collect(), truncated, adapters })
    }
}

fn held_out(set: Dataset) -> Examples {
    set.test.unwrap_or(set.validation)
}
