//! What a checkpoint says of a run besides its arrays: where it stood, and what it was a run of. No wall-clock.

use super::{Config, MemoryUse, Names};
use crate::data::Vocabulary;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the checkpoint's layout.
pub const FORMAT: u32 = 1;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done or left out.
    pub step: u64,
    /// Micro-batches of the next step whose gradients are held.
    pub micro_step: u64,
    /// Sum of the losses of those, each divided by the number of micro-batches.
    pub partial_loss: f64,
    /// Steps that changed the weights.
    pub taken: u64,
    /// Steps left out since the last one taken.
    pub skipped_in_row: u64,
    /// What the next line of `metrics.jsonl` will be about.
    pub interval: Interval,
    /// Best validation so far.
    pub best: Option<Best>,
    /// Validations since then.
    #[serde(default)]
    pub since_best: u64,
}

/// Steps since the last reported one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Sum of the losses of the steps taken.
    pub loss: f64,
    /// Steps taken.
    pub taken: u64,
    /// Steps left out.
    pub skipped: u64,
    /// Norm of the last step's gradients.
    pub norm: Option<f64>,
    /// Bytes at the moment of their highest total.
    pub peak: MemoryUse,
}

/// A validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Step after which it was made.
    pub step: u64,
    /// Its loss, in nats per target.
    pub loss: f64,
}

/// The file `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// Where the run stands.
    pub progress: Progress,
    /// Ranks that adapters have grown to, by layer; those of the configuration if none.
    #[serde(default)]
    pub ranks: BTreeMap<String, usize>,
    /// What it was asked to do, with all defaults filled in.
    pub config: Config,
    /// What tokens stand for, unless the folder that the model came from says it.
    pub vocabulary: Option<Vocabulary>,
    /// Names of the classes of a classifier.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    /// Fingerprint of what is learnt, in hexadecimal.
    pub data: String,
    /// Fingerprint of the files of the model that the run began with, in hexadecimal.
    #[serde(default)]
    pub base: Option<String>,
    /// Name of the device that computed.
    pub device: String,
}

impl State {
    /// What tokens and classes are called.
    pub fn names(&self) -> Names {
        Names { vocabulary: self.vocabulary.clone(), labels: self.labels.clone() }
    }
}
