//! Framed texts to learn from: with labels for a classifier, or for an encoder that learns by hidden tokens.

use super::fold::folded;
use super::windows::held_back;
use super::{Config, Source};
use crate::data::{Batch, Columns, Dataset, Example, Goal, Labelled, LabelledData, Texts, Tokenizer};
use crate::error::Result;
use crate::io;
use crate::nn::ModelConfig;
use crate::rng::Seed;
use std::path::Path;

/// Texts, those held back, and what there is to say of them, in lines for people.
pub struct TextLessons {
    train: Texts,
    validation: Texts,
    /// What there is to say of the files, in lines for people.
    pub notes: Vec<String>,
    /// Names of the labels, if there are labels.
    pub labels: Option<Vec<String>>,
}

/// Labelled texts for a model of these sizes, `rows` in a batch.
pub(super) fn labelled(mut texts: Vec<Labelled>, sizes: &ModelConfig, rows: usize, max_length: usize) -> Texts {
    if sizes.segments < 2 {
        texts.iter_mut().for_each(|text| text.second = None);
    }
    let goal = if sizes.arch.is_encoder() { Goal::Labels } else { Goal::LabelsAtEnd };
    Texts::new(texts, goal, rows, max_length)
}

/// Names by which data may call the labels of a model: their numbers, where it has no names of its own for them.
pub(super) fn known(labels: &[String]) -> Vec<String> {
    labels.iter().map(|name| name.strip_prefix("LABEL_").unwrap_or(name).to_string()).collect()
}

/// Examples as texts without labels.
pub(super) fn unlabelled(examples: Vec<Example>) -> Vec<Labelled> {
    examples.into_iter().map(|example| Labelled { ids: example.ids, second: None, label: 0 }).collect()
}

impl TextLessons {
    /// Reads the labelled texts of a resolved configuration for a model of these sizes, whose labels they must have if it has
    /// some.
    pub fn labelled(config: &Config, path: &Path, tokenizer: &Tokenizer, sizes: &ModelConfig) -> Result<TextLessons> {
        let columns = config.columns.as_deref().map(Columns::of).transpose()?;
        let names = sizes.labels.as_deref().map(known);
        let set = LabelledData::open(path, tokenizer, columns.as_ref(), config.context, names.as_deref())?;
        let (train, validation) = (set.train.examples.len(), set.validation.examples.len());
        let labels = sizes.labels.clone().unwrap_or(set.train.names);
        let held = match set.held_back {
            Some(_) => format!("the last {validation} held back"),
            None => format!("{validation} for validation"),
        };
        let mut notes = vec![format!("{train} texts of {} classes ({}), {held}", labels.len(), labels.join(", "))];
        for (cut, part) in [(set.train.truncated, "training"), (set.validation.truncated, "validation")] {
            if cut > 0 {
                notes.push(format!("{cut} {part} texts were cut to {} tokens", config.context));
            }
        }
        let texts = |texts| labelled(texts, sizes, config.batch, config.context);
        let [train, validation] = folded(set.train.examples, set.validation.examples, config.fold, path)?.map(texts);
        Ok(TextLessons { train, validation, notes, labels: Some(labels) })
    }

    /// Reads the texts of a resolved configuration for an encoder.
    pub fn hidden(config: &Config, path: &Path, tokenizer: &Tokenizer) -> Result<TextLessons> {
        let set = Dataset::framed(path, tokenizer, config.context)?;
        let masking = tokenizer.framing()?.masking.of(config.mlm_probability);
        let notes = super::lessons::notes(&set, config.context);
        let texts =
            |examples| Texts::new(unlabelled(examples), Goal::Hidden(masking.clone()), config.batch, config.context);
        let [train, validation] = folded(set.train.examples, set.validation.examples, config.fold, path)?.map(texts);
        Ok(TextLessons { train, validation, notes, labels: None })
    }

    /// Changes with every token, segment or label that is learnt or held back; in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut words: Vec<u32> = Vec::new();
        for texts in [&self.train, &self.validation] {
            for text in texts.texts() {
                let second = text.second.map_or(u32::MAX, |second| second as u32);
                words.extend([text.ids.len() as u32, second, text.label as u32]);
                words.extend(&text.ids);
            }
            words.push(u32::MAX);
        }
        format!("{:016x}", io::checksum(bytemuck::cast_slice(&words)))
    }
}

/// What order and hiding are functions of.
pub(super) fn seed(config: &Config) -> Seed {
    Seed(config.seed).named("batch")
}

impl Source for TextLessons {
    fn batch(&self, config: &Config, step: u64, micro_step: u64) -> Batch {
        self.train.batch(seed(config), step * config.accumulate + micro_step)
    }

    fn share(&self, config: &Config, step: u64, micro_step: u64) -> f64 {
        share(config, step, micro_step, |index| self.train.counted_in(seed(config), index))
    }

    fn validation<'a>(&'a self, config: &Config) -> Box<dyn Iterator<Item = Batch> + 'a> {
        Box::new(self.validation.validation(config.batch, held_back(config.seed)))
    }

    fn largest(&self, config: &Config) -> Batch {
        self.train.largest(config.batch)
    }

    fn tokens(&self) -> [usize; 2] {
        [self.train.tokens(), self.validation.tokens()]
    }
}

/// The part that a micro-batch has in its step's targets, by how many of them count in micro-batch `index`.
pub(super) fn share(config: &Config, step: u64, micro_step: u64, counted: impl Fn(u64) -> usize) -> f64 {
    let counted = |micro_step: u64| counted(step * config.accumulate + micro_step) as f64;
    match config.accumulate {
        1 => 1.0,
        all => counted(micro_step) / (0..all).map(counted).sum::<f64>(),
    }
}
