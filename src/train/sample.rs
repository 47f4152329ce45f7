//! Batches that sensitivities are taken from.

use super::micro_batch::given;
use super::{Config, Source};
use crate::data::{Batch, IGNORED};
use crate::error::Result;
use crate::nn::{Model, Pass};
use crate::rank::{Losses, draw_targets};
use crate::rng::Seed;
use crate::tensor::Tensor;

/// Batches to look at a model with, again and again.
#[derive(Clone, Debug)]
pub struct Sample(Vec<Batch>);

impl Sample {
    /// These.
    pub fn new(batches: Vec<Batch>) -> Sample {
        Sample(batches)
    }

    /// `count` micro-batches of what a run learns from, beside those that it learns from.
    pub fn of(source: &dyn Source, config: &Config, count: u64) -> Sample {
        Sample((0..count).map(|number| source.beside(config, number)).collect())
    }
}

impl Losses<Model> for Sample {
    fn batches(&self) -> u64 {
        self.0.len() as u64
    }

    fn counted(&self, batch: u64) -> usize {
        self.0[batch as usize].counted()
    }

    fn loss(&self, model: &Model, batch: u64) -> Result<Tensor> {
        let (inputs, targets) = given(&self.0[batch as usize], &model.device());
        Ok(model.loss(inputs, &targets, &Pass::default()))
    }

    fn drawn(&self, model: &Model, batch: u64, seed: Seed) -> Result<Tensor> {
        let batch = &self.0[batch as usize];
        let (inputs, targets) = given(batch, &model.device());
        let logits = model.logits(inputs, &Pass::default());
        let kept = |(drawn, &target): (u32, &u32)| if target == IGNORED { IGNORED } else { drawn };
        let drawn: Vec<u32> = draw_targets(&logits, seed)?.into_iter().zip(&batch.targets).map(kept).collect();
        Ok(logits.cross_entropy(&Tensor::new(&drawn, *targets.shape(), &model.device())))
    }
}
