//! Sizes of models as Hugging Face's `config.json` gives them.

use super::{Arch, ModelConfig};
use crate::error::{Error, Result};
use serde::Deserialize;

/// What is read of a `config.json`, under the names of both families; other keys are ignored.
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
    num_key_value_heads: Option<usize>,
    #[serde(alias = "n_inner")]
    intermediate_size: Option<usize>,
    #[serde(alias = "layer_norm_epsilon")]
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    tie_word_embeddings: Option<bool>,
}

/// What the language models' files put before the paths of all but the head.
const PREFIX: &str = "transformer.";

impl ModelConfig {
    /// The name that Hugging Face's files and PEFT have for what this model has at `path`: `h.0.attn.c_attn.weight` is
    /// `transformer.h.0.attn.c_attn.weight`. Paths of other families are the names themselves.
    pub fn hub_name(&self, path: &str) -> String {
        if self.arch == Arch::Gpt2 { format!("{PREFIX}{path}") } else { path.into() }
    }

    /// Reads the text of a `config.json` of a GPT-2 or a Llama.
    pub fn from_hugging_face(text: &str) -> Result<ModelConfig> {
        let file: File = serde_json::from_str(text).map_err(|error| Error::Config(error.to_string()))?;
        let arch = match &*file.model_type {
            "gpt2" => Arch::Gpt2,
            "llama" => Arch::Llama,
            other => return Err(Error::Config(format!("model_type {other}: only gpt2 and llama are known"))),
        };
        let (heads, width) = (file.num_attention_heads, file.hidden_size);
        let usual =
            ModelConfig::new(arch, file.vocab_size, file.max_position_embeddings, file.num_hidden_layers, heads, width);
        let config = ModelConfig {
            kv_heads: file.num_key_value_heads.unwrap_or(heads),
            hidden: file.intermediate_size.unwrap_or(usual.hidden),
            norm_epsilon: file.rms_norm_eps.unwrap_or(usual.norm_epsilon),
            rope_theta: file.rope_theta.unwrap_or(usual.rope_theta),
            // What the two families' own classes take where the file says nothing.
            tied: file.tie_word_embeddings.unwrap_or(arch == Arch::Gpt2),
            ..usual
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_published_files() {
        let config = |arch| ModelConfig::new(arch, 10, 8, 1, 2, 8);
        assert_eq!(config(Arch::Gpt2).hub_name("h.0.ln_1.bias"), "transformer.h.0.ln_1.bias");
        assert_eq!(config(Arch::Llama).hub_name("model.norm.weight"), "model.norm.weight");
    }

    #[test]
    fn both_families_are_read() {
        let llama = r#"{"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096,
            "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 11008,
            "rms_norm_eps": 1e-6, "architectures": ["LlamaForCausalLM"]}"#;
        let config = ModelConfig::from_hugging_face(llama).unwrap();
        assert_eq!((config.hidden, config.kv_heads, config.tied, config.norm_epsilon), (11008, 32, false, 1e-6));
        let gpt2 = r#"{"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_layer": 12, "n_head": 12,
            "n_embd": 768, "n_inner": null, "layer_norm_epsilon": 1e-5}"#;
        let config = ModelConfig::from_hugging_face(gpt2).unwrap();
        assert_eq!((config.arch, config.hidden, config.tied, config.context), (Arch::Gpt2, 3072, true, 1024));
        let other = llama.replace("\"llama\"", "\"mamba\"");
        assert!(ModelConfig::from_hugging_face(&other).unwrap_err().to_string().contains("mamba"));
    }
}
