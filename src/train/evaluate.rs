//! What a model makes of text that it did not learn from.

use crate::data::Batch;
use crate::error::Result;
use crate::lowrank::select;
use crate::module::Module;
use crate::nn::{Model, Pass};
use serde::Serialize;
use std::collections::BTreeMap;

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

impl Evaluation {
    /// From the sum over so many tokens.
    fn of(sum: f64, tokens: usize) -> Evaluation {
        let loss = sum / tokens as f64;
        Evaluation { loss, perplexity: loss.exp(), tokens }
    }

    /// Of the tokens of all of these.
    pub fn of_all<'a>(parts: impl IntoIterator<Item = &'a Evaluation>) -> Evaluation {
        let add = |(sum, tokens), part: &Evaluation| (sum + part.loss * part.tokens as f64, tokens + part.tokens);
        let (sum, tokens) = parts.into_iter().fold((0.0, 0), add);
        Evaluation::of(sum, tokens)
    }
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
    Ok(Some(Evaluation::of(sum, tokens)))
}

/// The same for a model with banks of adapters, by adapter: each batch comes with the number of the adapter that each of
/// its rows is read by, see [`select`]. The null device has no numbers: an error.
pub fn evaluate_each(
    model: &Model,
    batches: impl Iterator<Item = (Batch, Vec<u32>)>,
) -> Result<BTreeMap<u32, Evaluation>> {
    let (mut model, device) = (model.frozen(), model.device());
    let mut sums: BTreeMap<u32, (f64, usize)> = BTreeMap::new();
    for (batch, adapters) in batches {
        select(&mut model, &adapters)?;
        let (ids, targets) = batch.upload(&device);
        let logits = model.logits(&ids, &Pass::default());
        for (row, adapter) in adapters.into_iter().enumerate() {
            let (logits, targets) = (logits.slice(0, row, 1), targets.slice(0, row, 1));
            let (sum, tokens) = sums.entry(adapter).or_default();
            *sum += logits.cross_entropy(&targets).item()? * batch.counted_in(row) as f64;
            *tokens += batch.counted_in(row);
        }
    }
    Ok(sums.into_iter().map(|(adapter, (sum, tokens))| (adapter, Evaluation::of(sum, tokens))).collect())
}
