//! Which models can exist.

use super::config::{Arch, AttentionBias, ModelConfig};
use super::rope::RopeScaling;
use crate::error::{Error, Result};

/// Largest of a model's sizes, most blocks, and most parameters. Far beyond what exists, and small enough that no product
/// of sizes that a file claims overflows.
const MOST: (usize, usize, u128) = (1 << 24, 1 << 12, 1 << 50);

impl ModelConfig {
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
            Arch::Bert | Arch::Roberta => self.check_encoder()?,
        }
        if let Some(labels) = self.labels.as_ref().filter(|labels| labels.len() < 2) {
            return wrong(format!("{} labels: a classifier needs at least 2", labels.len()));
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
            ("segments", self.segments),
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
        let rows = 2 * vocabulary + positions + self.first_position() as u128 + self.segments as u128;
        let head = (width + 4 + self.labels.as_ref().map_or(0, Vec::len) as u128) * (width + 1);
        rows * width + head + positions * attention + layers * (maps + 4 * width)
    }

    fn check_heads(&self) -> Result<()> {
        if self.head_dim.is_none() && !self.width.is_multiple_of(self.heads) {
            return wrong(format!(
                "width {} is not divisible by heads {}: choose a width that is a multiple of heads",
                self.width, self.heads
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || (self.arch != Arch::Llama && self.heads != self.kv_heads) {
            return wrong(format!("kv_heads {} do not share out heads {}", self.kv_heads, self.heads));
        }
        Ok(())
    }

    fn check_gpt2(&self) -> Result<()> {
        self.check_plain("GPT-2", self.tied)
    }

    fn check_encoder(&self) -> Result<()> {
        self.check_plain("an encoder", self.tied || self.labels.is_some())
    }

    /// What only a Llama has.
    fn check_plain(&self, name: &str, tied: bool) -> Result<()> {
        let others = [
            (tied, "tied is false", "'s output head is its embedding"),
            (self.head_dim.is_none(), "head_dim", "'s is width / heads"),
            (self.attention_bias == AttentionBias::None, "attention_bias", "'s attention always has biases"),
            (!self.mlp_bias, "mlp_bias", "'s MLP always has biases"),
            (!self.qk_norm, "qk_norm", " has none"),
            (self.rope_scaling == RopeScaling::None, "rope_scaling", " has no rotary positions"),
        ];
        let other = others.iter().find(|(fits, ..)| !fits);
        other.map_or(Ok(()), |(_, what, why)| wrong(format!("{what}: {name}{why}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let llama = ModelConfig::new(Arch::Llama, 9, 8, 2, 2, 8);
        let gpt2 = ModelConfig::new(Arch::Gpt2, 9, 8, 2, 2, 8);
        let refused = |config: ModelConfig, word: &str| {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(ModelConfig { positions: Some(7), ..llama.clone() }, "more than the model's 7 positions");
        refused(ModelConfig { head_dim: Some(3), ..llama.clone() }, "even head size");
        refused(ModelConfig { qk_norm: true, mlp_bias: true, ..llama.clone() }, "qk_norm");
        let qkv = AttentionBias::Qkv;
        refused(ModelConfig { attention_bias: qkv, mlp_bias: true, ..llama }, "mlp_bias");
        refused(ModelConfig { head_dim: Some(4), ..gpt2.clone() }, "head_dim");
        refused(ModelConfig { attention_bias: qkv, ..gpt2.clone() }, "attention_bias");
        refused(ModelConfig { mlp_bias: true, ..gpt2.clone() }, "mlp_bias");
        refused(ModelConfig { qk_norm: true, ..gpt2.clone() }, "qk_norm");
        refused(ModelConfig { rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..gpt2.clone() }, "rope_scaling");
        refused(ModelConfig { labels: Some(vec!["one".into()]), ..gpt2 }, "1 labels");
        let bert = ModelConfig::new(Arch::Bert, 9, 8, 2, 2, 8);
        refused(ModelConfig { tied: false, ..bert.clone() }, "tied is false: an encoder's output head");
        refused(ModelConfig { segments: 0, ..bert.clone() }, "segments is 0");
        refused(ModelConfig { kv_heads: 1, ..bert }, "kv_heads");
    }
}
