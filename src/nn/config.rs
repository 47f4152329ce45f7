//! What a model is made of, in numbers.

use super::rope::RopeScaling;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Family of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// Layer norm, learnt positions, packed q k v with biases, GELU in its tanh form (Radford et al. 2019).
    Gpt2,
    /// RMS norm, rotary positions, grouped heads, SwiGLU, no biases (Touvron et al. 2023). Mistral, Qwen2 and Qwen3 are of
    /// this family, with the biases and norms that [`ModelConfig`] gives them.
    Llama,
    /// An encoder: attention in both directions, norms behind each sum, learnt positions, token types, biases everywhere
    /// (Devlin et al. 2019).
    Bert,
    /// The same with positions that begin behind the padding token's number and another head (Liu et al. 2019).
    Roberta,
}

impl Arch {
    /// Whether a token sees those behind it too, so that the model learns by masking.
    pub fn is_encoder(self) -> bool {
        matches!(self, Arch::Bert | Arch::Roberta)
    }
}

/// What lies between the two maps of an encoder's MLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x Φ(x).
    #[default]
    Gelu,
    /// Its form with tanh.
    #[serde(rename = "gelu-tanh")]
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// Which projections of a Llama's attention have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionBias {
    /// None.
    #[default]
    None,
    /// Those of queries, keys and values, as in Qwen2.
    Qkv,
    /// Those and the output's.
    All,
}

/// Sizes of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Family.
    pub arch: Arch,
    /// Tokens there are.
    pub vocabulary: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Positions that the weights are for, where they are more than `context`.
    #[serde(default)]
    pub positions: Option<usize>,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`; GPT-2 has as many as query heads.
    pub kv_heads: usize,
    /// Size of the residual stream.
    pub width: usize,
    /// Hidden size of the MLP.
    pub hidden: usize,
    /// Probability that dropout zeroes an element, in training.
    pub dropout: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the variance in norms.
    pub norm_epsilon: f64,
    /// Whether the output head is the embedding's transpose; GPT-2's always is.
    #[serde(default = "yes")]
    pub tied: bool,
    /// Elements of a head, in a Llama where they are not `width / heads`.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Biases of a Llama's attention.
    #[serde(default)]
    pub attention_bias: AttentionBias,
    /// Whether the three maps of a Llama's MLP have biases.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Whether queries and keys of a Llama go through an RMS norm, head by head, as in Qwen3.
    #[serde(default)]
    pub qk_norm: bool,
    /// How the rotary frequencies are changed for longer contexts.
    #[serde(default)]
    pub rope_scaling: RopeScaling,
    /// What an encoder's MLP has between its maps.
    #[serde(default)]
    pub activation: Activation,
    /// Kinds of tokens that an encoder tells apart: the segments of a pair.
    #[serde(default = "one")]
    pub segments: usize,
    /// The token that fills rows up, if there is one. A RoBERTa's positions begin behind its number.
    #[serde(default)]
    pub padding: Option<u32>,
    /// Names of the classes of a model that classifies, at least two; none for a language model.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    /// Linear maps that are products of two thin ones, see [`Factored`](crate::lowrank::Factored): path and rank.
    #[serde(default)]
    pub ranks: BTreeMap<String, usize>,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

impl ModelConfig {
    /// The usual proportions: hidden 4 × width for all but Llama, 8/3 × width in multiples of 16 for Llama, with half as
    /// many key heads as query heads where that divides.
    pub fn new(arch: Arch, vocabulary: usize, context: usize, layers: usize, heads: usize, width: usize) -> Self {
        let (kv_heads, hidden) = match arch {
            Arch::Llama => {
                (if heads.is_multiple_of(2) { heads / 2 } else { heads }, (8 * width).div_ceil(3).next_multiple_of(16))
            }
            _ => (heads, 4 * width),
        };
        let (norm_epsilon, segments, padding) = match arch {
            Arch::Bert => (1e-12, 2, Some(0)),
            Arch::Roberta => (1e-5, 1, Some(1)),
            _ => (1e-5, 1, None),
        };
        ModelConfig {
            arch,
            vocabulary,
            context,
            positions: None,
            layers,
            heads,
            kv_heads,
            width,
            hidden,
            dropout: 0.0,
            rope_theta: 10_000.0,
            norm_epsilon,
            tied: true,
            head_dim: None,
            attention_bias: AttentionBias::None,
            mlp_bias: false,
            qk_norm: false,
            rope_scaling: RopeScaling::None,
            activation: Activation::Gelu,
            segments,
            padding,
            labels: None,
            ranks: BTreeMap::new(),
        }
    }

    /// Elements of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.width / self.heads)
    }

    /// Positions that the weights are for: at least `context`.
    pub fn positions(&self) -> usize {
        self.positions.unwrap_or(self.context)
    }

    /// Row of the table of positions that a sequence begins with.
    pub fn first_position(&self) -> usize {
        if self.arch == Arch::Roberta { self.padding.unwrap_or(1) as usize + 1 } else { 0 }
    }

    /// Fails for a model that cannot write text: one that sees what comes after a token, or that classifies.
    pub fn check_writes(&self) -> Result<()> {
        let kind = match (&self.labels, self.arch.is_encoder()) {
            (Some(_), _) => "a classifier",
            (None, true) => "an encoder, which sees a text from both sides",
            (None, false) => return Ok(()),
        };
        Err(Error::Config(format!("this model is {kind}: it writes no text, take a causal language model")))
    }

    /// Rotary frequencies of the pairs of a head, in radians per position.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        self.rope_scaling.frequencies(self.head_size(), self.rope_theta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As checkpoints had it before heads, biases and frequencies were settings.
    #[test]
    fn older_configurations_are_read() {
        let text = r#"{"arch": "llama", "vocabulary": 9, "context": 8, "layers": 2, "heads": 2, "kv_heads": 1,
            "width": 8, "hidden": 32, "dropout": 0.0, "rope_theta": 10000.0, "norm_epsilon": 1e-5}"#;
        let config: ModelConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config, ModelConfig { kv_heads: 1, ..ModelConfig::new(Arch::Llama, 9, 8, 2, 2, 8) });
        let new = ModelConfig { qk_norm: true, rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..config };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), new);
    }
}
