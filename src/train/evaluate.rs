//! What a model makes of text that it did not learn from.

use super::micro_batch::given;
use super::scores::{Confusion, Scores};
use crate::data::Batch;
use crate::error::Result;
use crate::lowrank::select;
use crate::module::Module;
use crate::nn::{Model, Pass};
use serde::Serialize;
use std::collections::BTreeMap;

/// A mean over targets that count, and what else it says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean negative log-likelihood in nats per token, or per text to classify.
    pub loss: f64,
    /// More figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures beside the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of a language model.
    Tokens {
        /// e to the power of the loss.
        perplexity: f64,
        /// Tokens that counted.
        tokens: usize,
    },
    /// Of a classifier.
    Classes(Scores),
}

impl Evaluation {
    /// Of a language model, from the sum over so many tokens.
    fn of_tokens(sum: f64, tokens: usize) -> Evaluation {
        let loss = sum / tokens as f64;
        Evaluation { loss, figures: Figures::Tokens { perplexity: loss.exp(), tokens } }
    }

    /// Of a language model, of the tokens of all of these.
    pub fn of_all<'a>(parts: impl IntoIterator<Item = &'a Evaluation>) -> Evaluation {
        let add = |(sum, all), part: &Evaluation| match part.figures {
            Figures::Tokens { tokens, .. } => (sum + part.loss * tokens as f64, all + tokens),
            Figures::Classes(_) => (sum, all),
        };
        let (sum, tokens) = parts.into_iter().fold((0.0, 0), add);
        Evaluation::of_tokens(sum, tokens)
    }

    /// The part of texts that were told right, by a classifier.
    pub fn accuracy(&self) -> Option<f64> {
        match &self.figures {
            Figures::Classes(scores) => Some(scores.accuracy),
            Figures::Tokens { .. } => None,
        }
    }
}

/// Mean loss over all targets that count; none on the null device, which has no numbers, after one batch.
pub fn evaluate(model: &Model, batches: impl Iterator<Item = Batch>) -> Result<Option<Evaluation>> {
    let (model, device) = (model.frozen(), model.device());
    let (mut sum, mut counted) = (0.0, 0);
    let mut confusion = model.config().labels.as_ref().map(|labels| Confusion::new(labels.len()));
    for batch in batches {
        let (inputs, targets) = given(&batch, &device);
        let logits = model.logits(inputs, &Pass::default());
        let loss = logits.cross_entropy(&targets);
        let told = confusion.is_some().then(|| logits.argmax(-1));
        if !device.computes() {
            return Ok(None);
        }
        sum += loss.item()? * batch.counted() as f64;
        counted += batch.counted();
        if let (Some(confusion), Some(told)) = (&mut confusion, told) {
            confusion.add(&batch.targets, &told.to_vec()?);
        }
    }
    Ok(Some(match confusion {
        Some(confusion) => Evaluation { loss: sum / counted as f64, figures: Figures::Classes(confusion.scores()) },
        None => Evaluation::of_tokens(sum, counted),
    }))
}

/// The same for a language model with banks of adapters, by adapter: each batch comes with the number of the adapter that
/// each of its rows is read by, see [`select`]. The null device has no numbers: an error, as is a model that does not write.
pub fn evaluate_each(
    model: &Model,
    batches: impl Iterator<Item = (Batch, Vec<u32>)>,
) -> Result<BTreeMap<u32, Evaluation>> {
    model.config().check_writes()?;
    let (mut model, device) = (model.frozen(), model.device());
    let mut sums: BTreeMap<u32, (f64, usize)> = BTreeMap::new();
    for (batch, adapters) in batches {
        select(&mut model, &adapters)?;
        let (inputs, targets) = given(&batch, &device);
        let logits = model.logits(inputs, &Pass::default());
        for (row, adapter) in adapters.into_iter().enumerate() {
            let (logits, targets) = (logits.slice(0, row, 1), targets.slice(0, row, 1));
            let (sum, tokens) = sums.entry(adapter).or_default();
            *sum += logits.cross_entropy(&targets).item()? * batch.counted_in(row) as f64;
            *tokens += batch.counted_in(row);
        }
    }
    Ok(sums.into_iter().map(|(adapter, (sum, tokens))| (adapter, Evaluation::of_tokens(sum, tokens))).collect())
}
