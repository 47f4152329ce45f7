//! A whole optimizer step on a GPU: recorded the first time, replayed after. The micro-batches and what the step goes by
//! lie in storages that the host writes anew; nothing else does it touch.

use super::micro_batch::{MicroBatch, Uploaded};
use super::trainer::{Outcome, Trainer};
use crate::device::observe::watching;
use crate::device::{Device, Recording};
use crate::error::Result;
use crate::module::{Module, Path};
use crate::optim::Numbers;
use crate::tensor::Tensor;

/// What outlives a step.
pub struct Replay {
    batches: Vec<Uploaded>,
    numbers: Numbers,
    recording: Option<Recording>,
    /// Which steps the recording serves.
    era: u64,
}

impl Replay {
    fn new(drawn: &[MicroBatch], taken: u64, device: &Device) -> Replay {
        let batches = drawn.iter().map(|batch| batch.upload(device)).collect();
        Replay { batches, numbers: Numbers::new(taken, device), recording: None, era: 0 }
    }
}

impl Trainer<'_> {
    /// Whether whole steps can be replayed: on a GPU, from a step's first micro-batch on.
    pub(super) fn replays(&self) -> bool {
        self.device.is_gpu() && self.progress.micro_step == 0
    }

    /// All micro-batches of the step, and the step.
    pub(super) fn whole_step(&mut self) -> Result<Outcome> {
        let drawn: Vec<MicroBatch> = (0..self.config.accumulate).map(|m| self.drawn(m)).collect();
        self.tokens = drawn.iter().map(|batch| batch.tokens.ids.len() as u64).sum();
        let taken = self.progress.taken;
        let fits = |replay: &Replay| drawn.iter().zip(&replay.batches).all(|(drawn, batch)| drawn.fits(batch));
        let replay = self.replay.take().filter(fits);
        let mut replay = replay.unwrap_or_else(|| Replay::new(&drawn, taken, &self.device));
        drawn.iter().zip(&mut replay.batches).for_each(|(drawn, batch)| drawn.feed(batch));
        replay.numbers.give(self.rate(), self.clip());
        // Whoever watches kernels wants to see each.
        let era = self.optimizer.era(taken);
        let recording = replay.recording.as_ref().filter(|_| !watching() && replay.era == era);
        if !recording.is_some_and(|recording| self.device.replay(recording)) {
            let device = self.device.clone();
            replay.recording = None;
            // Weights that share a storage move to one of their own before: those that are recorded live on.
            self.model.visit_mut(&Path::root(), &mut |_, parameter| {
                if parameter.trains() {
                    parameter.value_mut();
                }
            });
            replay.recording = device.capture(|| self.record(&mut replay)).1;
            replay.era = era;
        }
        let found = replay.numbers.read();
        self.replay = Some(replay);
        let found = found?;
        let loss = self.device.computes().then_some(found.loss);
        Ok(match loss.is_none_or(f64::is_finite) {
            true => self.settle(found.stepped, loss),
            false => self.skip("the loss", 0..self.config.accumulate),
        })
    }

    fn record(&mut self, replay: &mut Replay) {
        let mut gradients = self.optimizer.gradients(&self.model, self.progress.taken);
        let mut sum: Option<Tensor> = None;
        for batch in &replay.batches {
            let loss = self.loss_of(batch);
            let value = loss.detach();
            gradients.add(loss);
            sum = Some(sum.map_or_else(|| value.clone(), |sum| &sum + &value));
        }
        let loss = sum.expect("a step has a micro-batch");
        self.optimizer.record(&mut self.model, gradients, Some(loss.array()), &mut replay.numbers, self.progress.taken);
    }
}
