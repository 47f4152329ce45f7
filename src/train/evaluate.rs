//! What a model makes of text that it did not learn from.

use super::micro_batch::given;
use super::scores::{Confusion, Scores};
use crate::data::Batch;
use crate::error::Result;
use crate::module::Module;
use crate::nn::{Model, Pass};
use serde::Serialize;

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
    let loss = sum / counted as f64;
    let tokens = || Figures::Tokens { perplexity: loss.exp(), tokens: counted };
    let figures = confusion.map_or_else(tokens, |confusion| Figures::Classes(confusion.scores()));
    Ok(Some(Evaluation { loss, figures }))
}
