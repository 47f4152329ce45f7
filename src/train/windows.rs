//! One long text, window by window.

use super::{Config, Source};
use crate::data::{Batch, Framing, training_batch, validation_batches};
use crate::rng::Seed;

/// Windows at random places to learn from, windows one after the other held back: of the next token, or for an encoder of
/// tokens that are hidden.
pub struct Windows {
    /// Tokens to learn from, and held back.
    pub parts: [Vec<u32>; 2],
    /// What an encoder expects around a window, and how tokens are hidden.
    pub framing: Option<Framing>,
}

impl Source for Windows {
    fn batch(&self, config: &Config, step: u64, micro_step: u64) -> Batch {
        let seed = Seed(config.seed).named("batch").fold(step).fold(micro_step);
        let [text, _] = &self.parts;
        match &self.framing {
            None => training_batch(text, config.context, config.batch, seed),
            Some(framing) => framing.training_batch(text, config.context, config.batch, seed),
        }
    }

    fn validation<'a>(&'a self, config: &Config) -> Box<dyn Iterator<Item = Batch> + 'a> {
        let [_, text] = &self.parts;
        let seed = held_back(config.seed);
        match &self.framing {
            None => Box::new(validation_batches(text, config.context, config.batch)),
            Some(framing) => Box::new(framing.validation_batches(text, config.context, config.batch, seed)),
        }
    }

    fn tokens(&self) -> [usize; 2] {
        [self.parts[0].len(), self.parts[1].len()]
    }
}

/// What is hidden of what is held back is a function of.
pub(super) fn held_back(seed: u64) -> Seed {
    Seed(seed).named("held back")
}
