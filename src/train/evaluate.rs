//! What a model makes of text that it did not learn from.

use crate::data::Batch;
use crate::error::Result;
use crate::module::Module;
use crate::nn::{Model, Pass};
use serde::Serialize;

/// A mean over tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean negative log-likelihood in nats per token.
    pub loss: f64,
    /// e to the power of it.
    pub perplexity: f64,
    /// Tokens that counted.
    pub tokens: usize,
}

/// Mean loss over all targets that count; none on the null device, which has no numbers, after one batch.
pub fn evaluate(model: &Model, batches: impl Iterator<Item = Batch>) -> Result<Option<Evaluation>> {
    let (model, device) = (model.frozen(), model.device());
    let (mut sum, mut tokens) = (0.0, 0);
    for batch in batches {
        let (ids, targets) = batch.upload(&device);
        let loss = model.loss(&ids, &targets, &Pass::default());
        if !device.computes() {
            return Ok(None);
        }
        sum += loss.item()? * batch.counted() as f64;
        tokens += batch.counted();
    }
    let loss = sum / tokens as f64;
    Ok(Some(Evaluation { loss, perplexity: loss.exp(), tokens }))
}
