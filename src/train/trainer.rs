//! One training step. `train` runs it on a device, `plan` runs the same code on the null device.

use super::micro_batch::{MicroBatch, Uploaded};
use super::replay::Replay;
use super::state::{Interval, Progress};
use super::{Adapter, Checkpoint, Config, Evaluation, Source, Subject, evaluate};
use crate::device::Device;
use crate::device::observe::{FirstNonFinite, observed};
use crate::error::Result;
use crate::lowrank::with_dropout;
use crate::nn::{Model, Pass};
use crate::optim::{Gradients, Optimizer, Stepped};
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::rc::Rc;

/// A run in memory: model, optimizer, held gradients, and where it stands.
pub struct Trainer<'a> {
    pub(super) config: &'a Config,
    pub(super) source: &'a dyn Source,
    pub(super) device: Device,
    pub model: Model,
    pub optimizer: Optimizer,
    pub held: Gradients,
    pub progress: Progress,
    /// Tokens that the last [`Trainer::advance`] was given, those that fill rows up among them.
    pub tokens: u64,
    /// The recorded step, once there is one.
    pub(super) replay: Option<Replay>,
    /// Layers whose adapters grew after the last step.
    pub grown: Vec<String>,
}

/// What came of one micro-batch.
pub enum Outcome {
    /// Its gradients are held; more micro-batches belong to the step.
    Held,
    /// The last one: weights were changed. Mean loss of the step; none on the null device.
    Stepped(Option<f64>),
    /// A loss or a gradient was not finite: weights and optimizer are as before the step.
    Skipped(String),
}

impl<'a> Trainer<'a> {
    /// A run at its start; the configuration must be resolved.
    pub fn new(config: &'a Config, subject: &'a Subject, device: &Device) -> Result<Trainer<'a>> {
        let model = config.fresh(&*subject.source, &subject.names, device)?;
        Trainer::of_model(config, model, &*subject.source)
    }

    /// The same with a model that is there already.
    pub(super) fn of_model(config: &'a Config, mut model: Model, source: &'a dyn Source) -> Result<Trainer<'a>> {
        let device = model.device();
        let mut optimizer = config.optimizer(&mut model)?;
        optimizer.check(&model)?;
        optimizer.prepare(&model);
        let (held, progress) = (optimizer.gradients(&model, 0), Progress::default());
        let (replay, grown) = (None, Vec::new());
        Ok(Trainer { config, source, device, model, optimizer, held, progress, tokens: 0, replay, grown })
    }

    /// A run as a checkpoint has it.
    pub fn resume(
        config: &'a Config,
        source: &'a dyn Source,
        device: &Device,
        checkpoint: &Checkpoint,
    ) -> Result<Trainer<'a>> {
        let mut model = checkpoint.model(device)?;
        let (optimizer, held) = checkpoint.optimizer(&mut model)?;
        let progress = checkpoint.state.progress.clone();
        let (device, replay, grown) = (device.clone(), None, Vec::new());
        Ok(Trainer { config, source, device, model, optimizer, held, progress, tokens: 0, replay, grown })
    }

    /// Learns from one micro-batch, and the last of a step also takes the step; on a GPU from all of a step at once. After a
    /// step adapters may grow.
    pub fn advance(&mut self) -> Result<Outcome> {
        let outcome = self.learn()?;
        self.grown = if matches!(outcome, Outcome::Held) { Vec::new() } else { self.grow()? };
        Ok(outcome)
    }

    fn learn(&mut self) -> Result<Outcome> {
        if self.replays() {
            return self.whole_step();
        }
        self.replay = None;
        let micro_step = self.progress.micro_step;
        let drawn = self.drawn(micro_step);
        self.tokens = drawn.tokens.ids.len() as u64;
        let loss = self.loss_of(&drawn.upload(&self.device));
        let value = loss.detach();
        self.held.add(loss);
        let value = self.read(&value)?;
        if value.is_some_and(|value| !value.is_finite()) {
            return Ok(self.skip("the loss", micro_step..micro_step + 1));
        }
        self.progress.partial_loss += value.unwrap_or_default();
        self.progress.micro_step += 1;
        if self.progress.micro_step < self.config.accumulate {
            return Ok(Outcome::Held);
        }
        Ok(self.step(value.is_some()))
    }

    /// A micro-batch's share of the step's mean loss.
    pub(super) fn loss_of(&self, batch: &Uploaded) -> Tensor {
        let pass = Pass { dropout: batch.mask.clone(), recompute: self.config.recompute };
        let loss = |model: &Model| model.loss(&batch.inputs, &batch.targets, &pass);
        let loss = match &batch.adapter_mask {
            Some(mask) => with_dropout(&mut self.model.clone(), mask, loss),
            None => loss(&self.model),
        };
        loss * &batch.share
    }

    /// A micro-batch of the present step.
    pub(super) fn drawn(&self, micro_step: u64) -> MicroBatch {
        let (config, step) = (self.config, self.progress.step);
        let seed = |name| move || Seed(config.seed).named(name).fold(step).fold(micro_step);
        let adapter_dropout = if config.adapter == Adapter::None { 0.0 } else { config.adapter_dropout };
        MicroBatch {
            tokens: self.source.batch(config, step, micro_step),
            share: self.source.share(config, step, micro_step),
            dropout: (config.dropout > 0.0).then(seed("dropout")),
            adapter_dropout: (adapter_dropout > 0.0).then(seed("adapter dropout")),
        }
    }

    fn step(&mut self, computes: bool) -> Outcome {
        let gradients = std::mem::take(&mut self.held);
        let (rate, clip) = (self.rate(), self.clip());
        let stepped = self.optimizer.step(&mut self.model, gradients, self.progress.taken, rate, clip);
        let loss = computes.then_some(self.progress.partial_loss);
        self.settle(stepped, loss)
    }

    /// Norm beyond which gradients are scaled down, if there is one.
    pub(super) fn clip(&self) -> Option<f64> {
        (self.config.clip > 0.0).then_some(self.config.clip)
    }

    /// Counts what a step came to; `loss` is its mean.
    pub(super) fn settle(&mut self, stepped: Stepped, loss: Option<f64>) -> Outcome {
        let step = self.progress.step;
        self.progress.interval.norm = stepped.norm.is_finite().then_some(stepped.norm);
        if !stepped.taken {
            return self.skip("a gradient", 0..self.config.accumulate);
        }
        self.progress.interval.loss += loss.unwrap_or_default();
        self.progress.interval.taken += 1;
        self.progress.taken += 1;
        self.progress.skipped_in_row = 0;
        self.finish(step);
        Outcome::Stepped(loss)
    }

    /// Leaves the step out, and says which kernel made the first number that was none.
    pub(super) fn skip(&mut self, what: &str, micro_steps: std::ops::Range<u64>) -> Outcome {
        let step = self.progress.step;
        let origin = match self.origin(micro_steps) {
            Some((op, stage)) => format!("first in {op} ({stage})"),
            None => "first in the sum of gradients".into(),
        };
        self.progress.interval.skipped += 1;
        self.progress.skipped_in_row += 1;
        self.finish(step);
        Outcome::Skipped(format!("step {}: {what} is not finite, {origin}", step + 1))
    }

    fn finish(&mut self, step: u64) {
        self.progress.step = step + 1;
        self.progress.micro_step = 0;
        self.progress.partial_loss = 0.0;
        self.held = self.optimizer.gradients(&self.model, self.progress.taken);
    }

    /// Runs micro-batches of the present step once more, watching every kernel.
    fn origin(&self, micro_steps: std::ops::Range<u64>) -> Option<(&'static str, &'static str)> {
        let watcher = Rc::new(FirstNonFinite::default());
        let again = |m: u64| Gradients::new().add(self.loss_of(&self.drawn(m).upload(&self.device)));
        observed(watcher.clone(), || micro_steps.for_each(again));
        watcher.found().map(|(op, stage)| (op, stage.name()))
    }

    /// Learning rate of the present step.
    pub fn rate(&self) -> f64 {
        self.config.schedule().rate(self.progress.step)
    }

    /// What the model makes of the validation part, or its first `eval_batches`; on the null device, one batch and no number.
    pub fn evaluate(&self) -> Result<Option<Evaluation>> {
        let limit = self.config.eval_batches.unwrap_or(usize::MAX);
        evaluate(&self.model, self.source.validation(self.config).take(limit))
    }

    /// Ends the interval, and gives it.
    pub fn take_interval(&mut self) -> Interval {
        std::mem::take(&mut self.progress.interval)
    }

    fn read(&self, scalar: &Tensor) -> Result<Option<f64>> {
        self.device.computes().then(|| scalar.item()).transpose()
    }
}
