//! What a run came to: `report.json`.

use super::{Config, MemoryUse, Metrics, Plan, Task};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::nn::Model;
use serde::Serialize;
use std::path::Path;

/// How much the training loss of the report looks back on: this part of all lines.
const LAST: usize = 10;

/// The file `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the device.
    pub device: String,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Elements of those that train.
    pub trainable_parameters: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Mean loss over the last tenth of the run, in nats per token or per text to classify.
    pub train_loss: Option<f64>,
    /// Mean loss over all of the validation part, after the last step.
    pub val_loss: Option<f64>,
    /// e to the power of it, of a language model.
    pub val_perplexity: Option<f64>,
    /// The part of the validation part that a classifier told right, after the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
    /// Speed of training alone, in this process.
    pub tokens_per_second: f64,
    /// Time from start to end, in this process.
    pub wall_seconds: f64,
    /// Bytes measured at the moment of their highest total.
    pub peak_bytes: MemoryUse,
    /// The same as planned.
    pub planned_peak_bytes: MemoryUse,
    /// What all randomness was a function of.
    pub seed: u64,
    /// Every setting.
    pub config: Config,
}

impl Report {
    /// Sums up a run from its lines.
    pub fn new(config: &Config, model: &Model, device: &Device, plan: &Plan, history: &[Metrics]) -> Report {
        let last = &history[history.len() - history.len().div_ceil(LAST)..];
        let losses: Vec<f64> = last.iter().filter_map(|line| line.loss).collect();
        let val_loss = history.iter().rev().find_map(|line| line.val_loss);
        Report {
            device: device.name().into(),
            parameters: model.parameter_count(),
            trainable_parameters: model.trainable_parameters(),
            steps: history.last().map_or(0, |line| line.step),
            train_loss: (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64),
            val_loss,
            val_perplexity: val_loss.filter(|_| config.task == Task::Lm).map(f64::exp),
            val_accuracy: history.iter().rev().find_map(|line| line.val_accuracy),
            tokens_per_second: 0.0,
            wall_seconds: 0.0,
            peak_bytes: history.iter().fold(MemoryUse::default(), |peak, line| peak.larger(line.peak_bytes)),
            planned_peak_bytes: plan.peak_bytes,
            seed: config.seed,
            config: config.clone(),
        }
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a report is plain data");
        std::fs::write(path, text + "\n").map_err(Error::file(path))
    }
}
