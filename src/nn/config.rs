//! What a model is made of, in numbers.

use super::rope::RopeScaling;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Family of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// Layer norm, learnt positions, packed q k v with biases, GELU in its tanh form (Radford et al. 2019).
    Gpt2,
    /// RMS norm, rotary positions, grouped heads, SwiGLU, no biases (Touvron et al. 2023). Mistral, Qwen2 and Qwen3 are of
    /// this family, with the biases and norms that [`ModelConfig`] gives them.
    Llama,
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
}

/// Largest of a model's sizes, most blocks, and most parameters. Far beyond what exists, and small enough that no product
/// of sizes that a file claims overflows.
const MOST: (usize, usize, u128) = (1 << 24, 1 << 12, 1 << 50);

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
            positions: None,
            layers,
            heads,
            kv_heads,
            width,
            hidden,
            dropout: 0.0,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
            tied: true,
            head_dim: None,
            attention_bias: AttentionBias::None,
            mlp_bias: false,
            qk_norm: false,
            rope_scaling: RopeScaling::None,
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

    /// Rotary frequencies of the pairs of a head, in radians per position.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        self.rope_scaling.frequencies(self.head_size(), self.rope_theta)
    }

    /// Whether such a model can exist.
    pub fn validate(&self) -> Result<()> {
        self.check_sizes()?;
        self.check_heads()?;
        if self.positions() < self.context {
            return wrong(format!("context {} is more than the model's {} positions", self.context, self.positions()));
        }
        match self.arch {
            Arch::Gpt2 => self.check_gpt2()?,
            Arch::Llama => self.check_llama()?,
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong(format!("dropout {} is not in [0, 1)", self.dropout));
        }
        if !(0.0..f64::INFINITY).contains(&self.norm_epsilon) {
            return wrong(format!("norm_epsilon {} is not a number that is at least 0", self.norm_epsilon));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("context", self.context),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("width", self.width),
            ("hidden", self.hidden),
            ("head_dim", self.head_dim.unwrap_or(1)),
            ("positions", self.positions()),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return wrong(format!("{name} is 0: a model needs at least 1"));
        }
        let (most, most_layers, _) = MOST;
        if let Some((name, size)) = sizes.iter().find(|(_, size)| *size > most) {
            return wrong(format!("{name} is {size}: at most {most} are supported"));
        }
        if self.layers > most_layers {
            return wrong(format!("layers is {}: at most {most_layers} are supported", self.layers));
        }
        let parameters = self.most_parameters();
        if parameters > MOST.2 {
            return wrong(format!("a model of up to {parameters} parameters: at most {} are supported", MOST.2));
        }
        Ok(())
    }

    /// No fewer elements than all weights and the table of positions have.
    fn most_parameters(&self) -> u128 {
        let [vocabulary, positions, layers, heads, width, hidden] =
            [self.vocabulary, self.positions(), self.layers, self.heads, self.width, self.hidden].map(|n| n as u128);
        let attention = heads * self.head_dim.map_or(width, |size| size as u128);
        let maps = 4 * (attention + 1) * (width + 1) + 3 * (hidden + 1) * (width + 1);
        (2 * vocabulary + positions) * width + positions * attention + layers * (maps + 4 * width)
    }

    fn check_heads(&self) -> Result<()> {
        if self.head_dim.is_none() && !self.width.is_multiple_of(self.heads) {
            return wrong(format!(
                "width {} is not divisible by heads {}: choose a width that is a multiple of heads",
                self.width, self.heads
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || (self.arch == Arch::Gpt2 && self.heads != self.kv_heads) {
            return wrong(format!("kv_heads {} do not share out heads {}", self.kv_heads, self.heads));
        }
        Ok(())
    }

    fn check_gpt2(&self) -> Result<()> {
        let others = [
            ("tied is false: GPT-2's output head is its embedding", self.tied),
            ("head_dim: GPT-2's is width / heads", self.head_dim.is_none()),
            ("attention_bias: GPT-2's attention always has biases", self.attention_bias == AttentionBias::None),
            ("mlp_bias: GPT-2's MLP always has biases", !self.mlp_bias),
            ("qk_norm: GPT-2 has none", !self.qk_norm),
            ("rope_scaling: GPT-2 has no rotary positions", self.rope_scaling == RopeScaling::None),
        ];
        others.iter().find(|(_, fits)| !fits).map_or(Ok(()), |(problem, _)| wrong((*problem).into()))
    }

    fn check_llama(&self) -> Result<()> {
        if !self.head_size().is_multiple_of(2) {
            return wrong(format!(
                "rotary positions need an even head size, width {} over heads {} is {}",
                self.width,
                self.heads,
                self.head_size()
            ));
        }
        if !(self.rope_theta > 0.0 && self.rope_theta < f64::INFINITY) {
            return wrong(format!("rope_theta {} is not a positive number", self.rope_theta));
        }
        // What no published family has could not be written in a form that others read.
        if self.qk_norm && (self.mlp_bias || self.attention_bias == AttentionBias::Qkv) {
            return wrong("qk_norm goes with attention_bias none or all and without mlp_bias, as in Qwen3".into());
        }
        if self.mlp_bias && self.attention_bias == AttentionBias::Qkv {
            return wrong("mlp_bias goes with attention_bias none or all, as in Llama".into());
        }
        self.rope_scaling.validate()
    }
}

fn wrong(problem: String) -> Result<()> {
    Err(Error::Config(problem))
}
