//! What a model is made of, in numbers.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Family of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// Layer norm, learnt positions, packed q k v with biases, GELU in its tanh form (Radford et al. 2019).
    Gpt2,
    /// RMS norm, rotary positions, grouped heads, SwiGLU, no biases (Touvron et al. 2023).
    Llama,
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
}

fn yes() -> bool {
    true
}

impl ModelConfig {
    /// The usual proportions: hidden 4 × width for GPT-2, 8/3 × width in multiples of 16 for Llama, with half as
    /// many key heads as query heads where that divides.
    pub fn new(arch: Arch, vocabulary: usize, context: usize, layers: usize, heads: usize, width: usize) -> Self {
        let (kv_heads, hidden) = match arch {
            Arch::Gpt2 => (heads, 4 * width),
            Arch::Llama => {
                (if heads.is_multiple_of(2) { heads / 2 } else { heads }, (8 * width).div_ceil(3).next_multiple_of(16))
            }
        };
        ModelConfig {
            arch,
            vocabulary,
            context,
            layers,
            heads,
            kv_heads,
            width,
            hidden,
            dropout: 0.0,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
            tied: true,
        }
    }

    /// Elements of a head.
    pub fn head_size(&self) -> usize {
        self.width / self.heads
    }

    /// Whether such a model can exist.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("context", self.context),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("width", self.width),
            ("hidden", self.hidden),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::Config(format!("{name} is 0: a model needs at least 1")));
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::Config(format!(
                "width {} is not divisible by heads {}: choose a width that is a multiple of heads",
                self.width, self.heads
            )));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || (self.arch == Arch::Gpt2 && self.heads != self.kv_heads) {
            return Err(Error::Config(format!("kv_heads {} do not share out heads {}", self.kv_heads, self.heads)));
        }
        if self.arch == Arch::Gpt2 && !self.tied {
            return Err(Error::Config("tied is false: GPT-2's output head is its embedding".into()));
        }
        if self.arch == Arch::Llama && !self.head_size().is_multiple_of(2) {
            return Err(Error::Config(format!(
                "rotary positions need an even head size, width {} over heads {} is {}",
                self.width,
                self.heads,
                self.head_size()
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Config(format!("dropout {} is not in [0, 1)", self.dropout)));
        }
        Ok(())
    }
}
