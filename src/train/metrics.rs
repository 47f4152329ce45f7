//! What a run says of itself while it goes: `metrics.jsonl`, one object a line.

use super::MemoryUse;
use crate::error::{Error, Result};
use crate::io::JsonLines;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// One line: about the steps since the line before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Steps done.
    pub step: u64,
    /// Mean loss of these steps, in nats per token or per text to classify; none if all were left out.
    pub loss: Option<f64>,
    /// Mean loss over all of the validation part, where it was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The part of it that a classifier told right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
    /// Learning rate of the last of these steps.
    pub lr: f64,
    /// Norm of its gradients before clipping; none if it was not finite.
    pub grad_norm: Option<f64>,
    /// Steps left out because a number was not finite.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_steps: u64,
    /// Speed of training alone, without validation and saving.
    pub tokens_per_second: f64,
    /// Bytes between two steps.
    pub live_bytes: MemoryUse,
    /// Bytes at the moment of their highest total in these steps.
    pub peak_bytes: MemoryUse,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The open file.
pub struct Log(JsonLines);

impl Log {
    /// Opens the file, keeps its lines up to `step` and drops the rest; none are kept for step 0. What cannot be read lies
    /// after the checkpoint.
    pub fn open(path: &Path, step: u64) -> Result<(Log, Vec<Metrics>)> {
        if step > 0 {
            fs::metadata(path).map_err(Error::file(path))?;
        }
        let (log, kept) = JsonLines::open(path, |line: &Metrics| line.step <= step && step > 0)?;
        Ok((Log(log), kept))
    }

    /// Adds a line.
    pub fn write(&mut self, metrics: &Metrics) -> Result<()> {
        self.0.add(metrics)
    }

    /// Forces all lines to the disk; before a checkpoint, so that no checkpoint is ahead of them.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64) -> Metrics {
        Metrics {
            step,
            loss: Some(0.1 + step as f64 / 3.0),
            val_loss: (step == 2).then_some(1.0 / 7.0),
            val_accuracy: (step == 2).then_some(0.3),
            lr: 1e-3,
            grad_norm: None,
            skipped_steps: 0,
            tokens_per_second: 1.0,
            live_bytes: MemoryUse::default(),
            peak_bytes: MemoryUse::default(),
        }
    }

    #[test]
    fn lines_after_the_checkpoint_and_a_cut_one_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let (mut log, _) = Log::open(&path, 0).unwrap();
        (1..=4).for_each(|step| log.write(&at(step)).unwrap());
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        let (mut log, kept) = Log::open(&path, 2).unwrap();
        assert_eq!(kept, [at(1), at(2)]);
        (3..=4).for_each(|step| log.write(&at(step)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }
}
