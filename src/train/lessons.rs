//! Examples for a model that has a tokenizer, as batches of a run.

use super::fold::folded;
use super::text_lessons::{seed, share};
use super::{Config, Source};
use crate::data::{Batch, Batches, Dataset, Layout, Reading, Tokenizer};
use crate::error::Result;
use crate::io;
use std::path::Path;

/// A data set, and how it is laid out in batches.
pub struct Lessons {
    train: Batches,
    validation: Batches,
    /// What there is to say of the files, in lines for people.
    pub notes: Vec<String>,
}

impl Lessons {
    /// Reads the data set of a resolved configuration.
    pub fn open(config: &Config, path: &Path, tokenizer: &Tokenizer) -> Result<Lessons> {
        let reading = Reading { max_length: config.context, mask_prompt: config.mask_prompt };
        let set = Dataset::open(path, tokenizer, reading)?;
        let notes = notes(&set, reading.max_length);
        let layout = if config.pack { Layout::Packed } else { Layout::Padded };
        let batches = |examples, layout| Batches::new(examples, config.batch, reading.max_length, layout);
        let (train, validation) = (set.train.examples, set.validation.examples);
        let [train, validation] = folded(train, validation, config.fold, path)?;
        Ok(Lessons { train: batches(train, layout), validation: batches(validation, Layout::Padded), notes })
    }

    /// Changes with every token that is learnt, held back, or masked; in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut words: Vec<u32> = Vec::new();
        for batches in [&self.train, &self.validation] {
            for example in batches.examples() {
                words.extend([example.ids.len() as u32, example.learnt_from as u32]);
                words.extend(&example.ids);
            }
            words.push(u32::MAX);
        }
        format!("{:016x}", io::checksum(bytemuck::cast_slice(&words)))
    }
}

pub(super) fn notes(set: &Dataset, max_length: usize) -> Vec<String> {
    let (train, validation) = (set.train.examples.len(), set.validation.examples.len());
    let mut notes = vec![match set.held_back {
        Some(_) => format!("{train} examples ({}), the last {validation} held back", set.train.form),
        None => format!("{train} examples ({}), {validation} for validation", set.train.form),
    }];
    for (examples, part) in [(&set.train, "training"), (&set.validation, "validation")] {
        if examples.truncated > 0 {
            notes.push(format!("{} {part} examples were cut to {max_length} tokens", examples.truncated));
        }
        if examples.left_out > 0 {
            notes.push(format!("{} {part} examples had nothing to learn and were left out", examples.left_out));
        }
    }
    notes
}

impl Source for Lessons {
    fn batch(&self, config: &Config, step: u64, micro_step: u64) -> Batch {
        self.train.batch(seed(config), step * config.accumulate + micro_step)
    }

    fn share(&self, config: &Config, step: u64, micro_step: u64) -> f64 {
        share(config, step, micro_step, |index| self.train.counted_in(seed(config), index))
    }

    fn validation<'a>(&'a self, config: &Config) -> Box<dyn Iterator<Item = Batch> + 'a> {
        Box::new(self.validation.validation(config.batch))
    }

    fn largest(&self, config: &Config) -> Batch {
        let [rows, context] = self.train.largest(config.batch);
        let tokens = vec![0; rows * context];
        Batch { targets: tokens.clone(), ids: tokens, context, ..Batch::default() }
    }

    fn tokens(&self) -> [usize; 2] {
        [self.train.counted(), self.validation.counted()]
    }
}
