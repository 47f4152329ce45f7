//! Reading a `config.json`. Where it says nothing, what the family's own class takes is taken; what would change numbers
//! and is not supported is refused by name.

use super::super::config::{Arch, AttentionBias, ModelConfig};
use super::rope::{Rope, refused};
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is read, under the names of both families; other keys change no numbers.
#[derive(Deserialize)]
struct File {
    model_type: String,
    vocab_size: usize,
    #[serde(alias = "n_positions")]
    max_position_embeddings: usize,
    #[serde(alias = "n_layer")]
    num_hidden_layers: usize,
    #[serde(alias = "n_head")]
    num_attention_heads: usize,
    #[serde(alias = "n_embd")]
    hidden_size: usize,
    /// None where it is not there, which is not the same as null.
    #[serde(default, deserialize_with = "present")]
    num_key_value_heads: Option<Option<usize>>,
    head_dim: Option<usize>,
    #[serde(alias = "n_inner")]
    intermediate_size: Option<usize>,
    #[serde(alias = "layer_norm_epsilon")]
    rms_norm_eps: Option<f64>,
    #[serde(alias = "activation_function")]
    hidden_act: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    add_cross_attention: Option<bool>,
    quantization_config: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Classes with what they have of their own.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Gpt2,
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Kind {
    const ALL: [(&str, Kind); 5] = [
        ("gpt2", Kind::Gpt2),
        ("llama", Kind::Llama),
        ("mistral", Kind::Mistral),
        ("qwen2", Kind::Qwen2),
        ("qwen3", Kind::Qwen3),
    ];

    fn named(name: &str) -> Result<Kind> {
        let known = Kind::ALL.map(|(name, _)| name).join(", ");
        let found = Kind::ALL.iter().find(|(one, _)| *one == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| Error::Config(format!("model_type {name} is not supported: {known} are")))
    }
}

impl ModelConfig {
    /// Reads the text of a `config.json` of a GPT-2, Llama, Mistral, Qwen2 or Qwen3. The context is the longest that the
    /// model has positions for.
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
            _ => file.llama(kind)?,
        };
        let config = file.within(kind, context, config)?;
        config.validate()?;
        Ok(config)
    }
}

impl File {
    /// Settings that change numbers and are not supported.
    fn refuse(&self, kind: Kind) -> Result<()> {
        if self.quantization_config.is_some() {
            return refused("quantization_config: quantized weights are not supported");
        }
        // Both names stand for one function.
        let (usual, known): (_, &[&str]) = match kind {
            Kind::Gpt2 => ("gelu_new", &["gelu_new", "gelu_pytorch_tanh"]),
            _ => ("silu", &["silu"]),
        };
        let activation = self.hidden_act.as_deref().unwrap_or(usual);
        if !known.contains(&activation) {
            return refused(&format!("activation {activation}: only {usual} is supported for {}", self.model_type));
        }
        if kind != Kind::Gpt2 {
            return Ok(());
        }
        // `reorder_and_upcast_attn` is not among them: in single precision it changes nothing.
        let unusual = [
            ("scale_attn_weights", self.scale_attn_weights == Some(false)),
            ("scale_attn_by_inverse_layer_idx", self.scale_attn_by_inverse_layer_idx == Some(true)),
            ("add_cross_attention", self.add_cross_attention == Some(true)),
        ];
        match unusual.iter().find(|(_, set)| *set) {
            Some((name, _)) => refused(&format!("{name}: only the usual value is supported")),
            None => Ok(()),
        }
    }

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
            ..ModelConfig::new(arch, 1, 1, 1, 1, 1)
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

    fn within(&self, kind: Kind, context: Option<usize>, config: ModelConfig) -> Result<ModelConfig> {
        let all = self.max_position_embeddings;
        let context = context.unwrap_or(all);
        if context > all {
            return refused(&format!("context {context} is more than the model's {all} positions"));
        }
        let window = self.window(kind)?.unwrap_or(all);
        if context > window {
            return refused(&format!(
                "sliding_window {window} is smaller than the context {context}: ask for a context of at most {window}"
            ));
        }
        let positions = all.min(window);
        Ok(ModelConfig { context, positions: (positions > context).then_some(positions), ..config })
    }

    /// The sliding window of any layer.
    fn window(&self, kind: Kind) -> Result<Option<usize>> {
        let window = self.sliding_window.unwrap_or(Some(4096));
        let used = match kind {
            Kind::Gpt2 | Kind::Llama => false,
            Kind::Mistral => true,
            Kind::Qwen2 | Kind::Qwen3 => match &self.layer_types {
                Some(types) => slides(types)?,
                None => self.use_sliding_window == Some(true) && self.layers_slide(),
            },
        };
        Ok(window.filter(|_| used))
    }

    /// Layers from a given one on have a window.
    fn layers_slide(&self) -> bool {
        self.num_hidden_layers > self.max_window_layers.unwrap_or(28)
    }
}

fn slides(types: &[String]) -> Result<bool> {
    let known = ["full_attention", "sliding_attention"];
    match types.iter().find(|one| !known.contains(&one.as_str())) {
        Some(other) => refused(&format!("layer_types {other}: {} are supported", known.join(" and "))),
        None => Ok(types.iter().any(|one| one == known[1])),
    }
}

#[cfg(test)]
mod tests;
