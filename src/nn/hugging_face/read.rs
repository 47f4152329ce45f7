//! Reading a `config.json`. Where it says nothing, what the family's own class takes is taken; what would change numbers
//! and is not supported is refused by name.

use super::super::config::{Activation, Arch, AttentionBias, ModelConfig};
use super::kind::Kind;
use super::rope::{Rope, refused};
use crate::error::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is read, under the names of both families; other keys change no numbers.
#[derive(Deserialize)]
pub struct File {
    pub model_type: String,
    pub vocab_size: usize,
    #[serde(alias = "n_positions")]
    pub max_position_embeddings: usize,
    #[serde(alias = "n_layer")]
    pub num_hidden_layers: usize,
    #[serde(alias = "n_head")]
    pub num_attention_heads: usize,
    #[serde(alias = "n_embd")]
    pub hidden_size: usize,
    /// None where it is not there, which is not the same as null.
    #[serde(default, deserialize_with = "present")]
    pub num_key_value_heads: Option<Option<usize>>,
    pub head_dim: Option<usize>,
    #[serde(alias = "n_inner")]
    pub intermediate_size: Option<usize>,
    #[serde(alias = "layer_norm_epsilon", alias = "layer_norm_eps")]
    pub rms_norm_eps: Option<f64>,
    #[serde(alias = "activation_function")]
    pub hidden_act: Option<String>,
    pub rope_theta: Option<f64>,
    pub rope_scaling: Option<Rope>,
    pub rope_parameters: Option<Rope>,
    pub partial_rotary_factor: Option<f64>,
    pub original_max_position_embeddings: Option<f64>,
    pub tie_word_embeddings: Option<bool>,
    pub attention_bias: Option<bool>,
    pub mlp_bias: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    pub sliding_window: Option<Option<usize>>,
    pub use_sliding_window: Option<bool>,
    pub max_window_layers: Option<usize>,
    pub layer_types: Option<Vec<String>>,
    pub scale_attn_weights: Option<bool>,
    pub scale_attn_by_inverse_layer_idx: Option<bool>,
    pub add_cross_attention: Option<bool>,
    pub quantization_config: Option<IgnoredAny>,
    pub type_vocab_size: Option<usize>,
    pub position_embedding_type: Option<String>,
    pub is_decoder: Option<bool>,
    /// Negative where there is none.
    pub pad_token_id: Option<i64>,
    pub architectures: Option<Vec<String>>,
    pub num_labels: Option<usize>,
    pub id2label: Option<Map<String, Value>>,
    pub problem_type: Option<String>,
    pub eckart: Option<Own>,
}

/// What no other program knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// Ranks of maps that are stored as factors, by module.
    pub ranks: BTreeMap<String, usize>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl ModelConfig {
    /// Reads the text of a `config.json` of a GPT-2, Llama, Mistral, Qwen2, Qwen3, BERT or RoBERTa. The context is the
    /// longest that the model has positions for.
    pub fn from_hugging_face(text: &str) -> Result<ModelConfig> {
        ModelConfig::from_hugging_face_within(text, None)
    }

    /// The same for sequences of at most `context` tokens: positions beyond cost nothing, and a model that attends to a
    /// window is one that attends to everything as long as no sequence is longer than the window.
    pub fn from_hugging_face_within(text: &str, context: Option<usize>) -> Result<ModelConfig> {
        let file: File = serde_json::from_str(text).map_err(|error| Error::Config(error.to_string()))?;
        let kind = Kind::named(&file.model_type)?;
        file.refuse(kind)?;
        let config = match kind {
            Kind::Gpt2 => file.gpt2(),
            Kind::Bert => file.encoder(Arch::Bert),
            Kind::Roberta => file.encoder(Arch::Roberta),
            _ => file.llama(kind)?,
        };
        let config = ModelConfig { labels: file.labels()?, ..config };
        let mut config = file.within(kind, context, config)?;
        config.validate()?;
        let ranks = file.eckart.map_or_else(BTreeMap::new, |own| own.ranks);
        config.ranks = ranks.into_iter().map(|(name, rank)| (config.hub_path(&name).unwrap_or(name), rank)).collect();
        Ok(config)
    }
}

impl File {
    fn sizes(&self, arch: Arch) -> ModelConfig {
        let (positions, heads) = (self.max_position_embeddings, self.num_attention_heads);
        ModelConfig {
            arch,
            vocabulary: self.vocab_size,
            context: positions,
            layers: self.num_hidden_layers,
            heads,
            kv_heads: heads,
            width: self.hidden_size,
            hidden: self.intermediate_size.unwrap_or(self.hidden_size.saturating_mul(4)),
            padding: self.pad_token_id.and_then(|id| u32::try_from(id).ok()),
            ..ModelConfig::new(arch, 1, 1, 1, 1, 1)
        }
    }

    /// Defaults are those of both classes.
    fn encoder(&self, arch: Arch) -> ModelConfig {
        let sizes = self.sizes(arch);
        ModelConfig {
            hidden: self.intermediate_size.unwrap_or(3072),
            norm_epsilon: self.rms_norm_eps.unwrap_or(1e-12),
            tied: self.tie_word_embeddings.unwrap_or(true),
            segments: self.type_vocab_size.unwrap_or(2),
            activation: match self.hidden_act.as_deref() {
                Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
                Some("relu") => Activation::Relu,
                _ => Activation::Gelu,
            },
            padding: sizes.padding.or(Some(if arch == Arch::Roberta { 1 } else { 0 })),
            ..sizes
        }
    }

    fn gpt2(&self) -> ModelConfig {
        ModelConfig {
            norm_epsilon: self.rms_norm_eps.unwrap_or(1e-5),
            tied: self.tie_word_embeddings.unwrap_or(true),
            ..self.sizes(Arch::Gpt2)
        }
    }

    fn llama(&self, kind: Kind) -> Result<ModelConfig> {
        if self.intermediate_size.is_none() {
            return refused("intermediate_size is missing");
        }
        let usual_kv_heads = match kind {
            Kind::Mistral => 8,
            Kind::Qwen2 | Kind::Qwen3 => 32,
            _ => self.num_attention_heads,
        };
        let rope = self.rope();
        Ok(ModelConfig {
            kv_heads: self.num_key_value_heads.unwrap_or(Some(usual_kv_heads)).unwrap_or(self.num_attention_heads),
            head_dim: self.own_head_dim(kind),
            norm_epsilon: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope.rope_theta.or(self.rope_theta).unwrap_or(10_000.0),
            rope_scaling: rope.scaling(self.max_position_embeddings as f64)?,
            tied: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: match kind {
                Kind::Qwen2 => AttentionBias::Qkv,
                Kind::Llama | Kind::Qwen3 if self.attention_bias == Some(true) => AttentionBias::All,
                _ => AttentionBias::None,
            },
            mlp_bias: kind == Kind::Llama && self.mlp_bias == Some(true),
            qk_norm: kind == Kind::Qwen3,
            ..self.sizes(Arch::Llama)
        })
    }

    /// The size of a head where it is not the usual one.
    fn own_head_dim(&self, kind: Kind) -> Option<usize> {
        let size = self.head_dim.or((kind == Kind::Qwen3).then_some(128))?;
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        let usual = heads > 0 && width.is_multiple_of(heads) && size == width / heads;
        (!usual).then_some(size)
    }

    /// An empty `rope_scaling` says nothing.
    fn rope(&self) -> Rope {
        let given = self.rope_scaling.clone().filter(|rope| *rope != Rope::default());
        let mut rope = given.or(self.rope_parameters.clone()).unwrap_or_default();
        rope.fill(self.partial_rotary_factor, self.original_max_position_embeddings);
        rope
    }
}

#[cfg(test)]
mod tests;
