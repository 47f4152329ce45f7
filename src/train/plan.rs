//! How much memory a run needs, before any is allocated: its model made, one real step and one validation batch on the null
//! device.

use super::source::{Blank, Largest};
use super::trainer::{Outcome, Trainer};
use super::{AdapterStart, Config, MemoryUse, Size, Subject};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::lowrank::Initial;
use crate::module::Module;
use crate::nn::{Model, ModelConfig};
use crate::rng::Seed;
use serde::Serialize;

/// What a run will need.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Elements of all parameters.
    pub parameters: usize,
    /// Bytes of live storages, at the moment of their highest total.
    pub peak_bytes: MemoryUse,
    /// Most bytes that the pool will hold from the system, free ones included: what a limit counts.
    pub reserved_bytes: u64,
}

impl Plan {
    /// Plans the run of a resolved configuration.
    pub fn new(config: &Config, subject: &Subject) -> Result<Plan> {
        Plan::on(Device::null_for(&config.device), config, subject)
    }

    pub(super) fn on(device: Device, config: &Config, subject: &Subject) -> Result<Plan> {
        let source = Largest(&*subject.source);
        let mut model = config.fresh(&source, &subject.names, &device)?;
        config.grown(&mut model);
        Plan::of_trainer(Trainer::of_model(config, model, &source)?, &device)
    }

    /// Plans training of a model of these sizes, whatever the configuration says of them, on full batches, which are no
    /// longer than the model reads.
    pub fn of_model(config: &Config, model: &ModelConfig) -> Result<Plan> {
        let config = &config.cut_for(model);
        let device = Device::null_for(&config.device);
        let mut fresh = Model::new(model, Seed(config.seed).named("model"), &device)?;
        // Maps that are factors were matrices a moment ago.
        device.ledger().reset_peak();
        let blank = Blank::of(config, model);
        let initial = match config.start {
            AdapterStart::LoraGa => config.steepest(&mut fresh, &blank, &[])?,
            _ => Initial::new(),
        };
        config.adapt(&mut fresh, config.start_from(initial), &[])?;
        config.grown(&mut fresh);
        Plan::of_trainer(Trainer::of_model(config, fresh, &blank)?, &device)
    }

    /// With the making of the model, which may take more than a step where adapters begin with a part of it.
    fn of_trainer(mut trainer: Trainer<'_>, device: &Device) -> Result<Plan> {
        while let Outcome::Held = trainer.advance()? {}
        trainer.evaluate()?;
        if let Some(growth) = &trainer.config.growth {
            trainer.candidates(growth)?;
        }
        let peak = device.ledger().peak();
        let parameters = trainer.model.parameter_count();
        Ok(Plan { parameters, peak_bytes: peak.into(), reserved_bytes: Device::most_reserved(peak.total()) })
    }

    /// An error that says what would fit, if this does not fit the configuration's limit.
    pub fn check(&self, config: &Config, subject: &Subject) -> Result<()> {
        match config.memory {
            Some(Size(limit)) if self.reserved_bytes > limit => {
                let advice = what_fits(config, subject, limit)?;
                Err(Error::Memory { needed: self.reserved_bytes, limit, advice })
            }
            _ => Ok(()),
        }
    }
}

/// Changes to the configuration after which it would fit, in words.
pub fn what_fits(config: &Config, subject: &Subject, limit: u64) -> Result<String> {
    let needs = |batch, recompute| {
        let changed = Config { batch, recompute, ..config.clone() };
        Plan::new(&changed, subject).map(|plan| plan.reserved_bytes)
    };
    let mut ways = Vec::new();
    if !config.recompute && needs(config.batch, true)? <= limit {
        ways.push("recompute".to_string());
    }
    if let Some(batch) = largest(config.batch, |batch| Ok(needs(batch, config.recompute)? <= limit))? {
        ways.push(format!("batch {batch}"));
    }
    if ways.is_empty()
        && let Some(batch) = largest(config.batch, |batch| Ok(needs(batch, true)? <= limit))?
    {
        ways.push(format!("recompute with batch {batch}"));
    }
    if !ways.is_empty() {
        return Ok(format!("{} would fit", ways.join(" or ")));
    }
    let least = needs(1, true)?.min(needs(1, false)?);
    Ok(format!("even batch 1 needs {}: take a smaller model or context", Size(least)))
}

/// The largest batch below `batch` that fits, by bisection.
fn largest(batch: usize, fits: impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut fitting, mut beyond) = (0, batch);
    while beyond - fitting > 1 {
        let middle = fitting.midpoint(beyond);
        match fits(middle)? {
            true => fitting = middle,
            false => beyond = middle,
        }
    }
    Ok((fitting > 0).then_some(fitting))
}
