//! Where a run's batches come from.

use super::Config;
use crate::data::{Batch, masked};
use crate::nn::ModelConfig;

/// Steps that no run comes to.
const BESIDE: u64 = 1 << 40;

/// Batches to learn from and batches held back: functions of the configuration, the step and the micro-batch alone, so
/// that a resumed run sees what it would have seen.
pub trait Source: Send + Sync {
    /// Micro-batch `micro_step` of step `step`, both from 0.
    fn batch(&self, config: &Config, step: u64, micro_step: u64) -> Batch;

    /// The part that this micro-batch has in its step's targets that count: what its mean loss is multiplied by.
    fn share(&self, config: &Config, _step: u64, _micro_step: u64) -> f64 {
        1.0 / config.accumulate as f64
    }

    /// A micro-batch to look at a model with, which no step learns from in its turn: number `number` of them.
    fn beside(&self, config: &Config, number: u64) -> Batch {
        self.batch(config, BESIDE + number, 0)
    }

    /// All that is held back.
    fn validation<'a>(&'a self, config: &Config) -> Box<dyn Iterator<Item = Batch> + 'a>;

    /// A micro-batch that takes as much memory as any: what a plan is made with.
    fn largest(&self, config: &Config) -> Batch {
        self.batch(config, 0, 0)
    }

    /// The same of what is held back.
    fn largest_held_back(&self, config: &Config) -> Option<Batch> {
        self.validation(config).max_by_key(|batch| batch.ids.len())
    }

    /// Tokens to learn from, and held back.
    fn tokens(&self) -> [usize; 2];
}

/// The largest batches of another, again and again: for plans.
pub(super) struct Largest<'a>(pub &'a dyn Source);

impl Source for Largest<'_> {
    fn batch(&self, config: &Config, _: u64, _: u64) -> Batch {
        self.0.largest(config)
    }

    fn validation<'a>(&'a self, config: &Config) -> Box<dyn Iterator<Item = Batch> + 'a> {
        Box::new(self.0.largest_held_back(config).into_iter())
    }

    fn tokens(&self) -> [usize; 2] {
        self.0.tokens()
    }
}

/// One batch, again and again, full and of nothing: to plan a model without a text.
pub(super) struct Blank(Batch);

impl Blank {
    /// As this model is given them.
    pub fn of(config: &Config, model: &ModelConfig) -> Blank {
        let (rows, context) = (config.batch, config.context);
        let all = || vec![0; rows * context];
        let encoder = model.arch.is_encoder();
        let hidden = rows * masked(config.mlm_probability, context);
        let (targets, places) = match (&model.labels, encoder) {
            (Some(_), true) => (rows, None),
            (Some(_), false) => (rows, Some(rows)),
            (None, true) => (hidden, Some(hidden)),
            (None, false) => (rows * context, None),
        };
        Blank(Batch {
            ids: all(),
            targets: vec![0; targets],
            context,
            segments: (model.labels.is_some() && model.segments > 1).then(all),
            mask: (encoder && (model.labels.is_some() || config.model.is_some())).then(all),
            places: places.map(|places| vec![0; places]),
        })
    }
}

impl Source for Blank {
    fn batch(&self, _: &Config, _: u64, _: u64) -> Batch {
        self.0.clone()
    }

    fn validation<'a>(&'a self, _: &Config) -> Box<dyn Iterator<Item = Batch> + 'a> {
        Box::new(std::iter::once(self.0.clone()))
    }

    fn tokens(&self) -> [usize; 2] {
        [0, 0]
    }
}
