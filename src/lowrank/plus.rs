//! LoRA+ (Hayou, Ghosh & Yu 2024): B learns faster than A.

use crate::error::{Error, Result};
use crate::optim::Group;

/// Learning rates of the parts of adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraPlus {
    /// Learning rate of A, and of all else that trains.
    pub rate: f64,
    /// How many times as fast B and vectors learn: λ. Published values are 4 (Llama) to 80 (RoBERTa); where width n and
    /// feature learning alone count, it grows with n (section 4).
    pub ratio: f64,
    /// Learning rate of an embedding's adapter; the authors' code has 1e-6.
    pub embedding_rate: f64,
    /// Decoupled weight decay of all but biases and the scales of norms.
    pub decay: f64,
}

impl LoraPlus {
    /// Groups for an optimizer whose schedule goes by `rate`: first the adapters of embeddings, then B and vectors, then
    /// the rest. At a ratio of 1 they differ from one group by the embeddings' rate alone.
    pub fn groups(&self) -> Result<Vec<Group>> {
        let LoraPlus { rate, ratio, embedding_rate, decay } = *self;
        for (name, number) in [("rate", rate), ("ratio", ratio), ("embedding_rate", embedding_rate)] {
            if !(number.is_finite() && number > 0.0) {
                return Err(Error::Config(format!("LoRA+ {name} {number}: give a positive number")));
            }
        }
        if !(decay.is_finite() && decay >= 0.0) {
            return Err(Error::Config(format!("LoRA+ decay {decay}: give 0 or a positive number")));
        }
        let is_b = |path: &str| path.ends_with("lora_B") || path.ends_with("lora_magnitude_vector");
        Ok(vec![
            Group { takes: Box::new(|path, _| path.contains("lora_embedding_")), rate: embedding_rate / rate, decay },
            Group { takes: Box::new(move |path, _| is_b(path)), rate: ratio, decay },
            Group { takes: Box::new(|_, shape| shape.len() == 1), rate: ratio, decay: 0.0 },
            Group { takes: Box::new(|_, _| true), rate: 1.0, decay },
        ])
    }
}
