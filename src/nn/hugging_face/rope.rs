//! Rotary positions in a `config.json`, of older and newer versions.

use super::super::rope::RopeScaling;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `rope_scaling`, and `rope_parameters` of newer versions.
#[derive(Clone, Default, PartialEq, Deserialize)]
pub struct Rope {
    rope_type: Option<String>,
    /// What `rope_type` was called first; some files have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
    pub rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Rope {
    /// Takes what stands outside of it: the part that is rotated if it does not say, the first positions in any case.
    pub fn fill(&mut self, part: Option<f64>, positions: Option<f64>) {
        self.partial_rotary_factor = self.partial_rotary_factor.or(part);
        self.original_max_position_embeddings = positions.or(self.original_max_position_embeddings);
    }

    /// `positions`: what the model was first trained on where it does not say.
    pub fn scaling(&self, positions: f64) -> Result<RopeScaling> {
        if self.others.values().any(Value::is_object) {
            return refused("rope_parameters by layer type: one for all layers is supported");
        }
        if self.partial_rotary_factor.is_some_and(|part| part != 1.0) {
            return refused("partial_rotary_factor: rotating a part of a head is not supported");
        }
        let named = |name: &str, x: Option<f64>| {
            x.ok_or_else(|| Error::Config(format!("rope_scaling has no {name}, which its type needs")))
        };
        let factor = || named("factor", self.factor);
        Ok(match self.rope_type.as_deref().or(self.old_type.as_deref()).unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "llama3" => RopeScaling::Llama3 {
                factor: factor()?,
                low: named("low_freq_factor", self.low_freq_factor)?,
                high: named("high_freq_factor", self.high_freq_factor)?,
                context: self.original_max_position_embeddings.unwrap_or(positions),
            },
            other => return refused(&format!("rope_type {other}: default, linear and llama3 are supported")),
        })
    }
}

pub fn refused<T>(what: &str) -> Result<T> {
    Err(Error::Config(what.into()))
}

/// As older versions have it, which newer ones read too.
pub fn written(scaling: &RopeScaling) -> Value {
    match *scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"type": "linear", "rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low, high, context } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": context as u64,
        }),
    }
}
