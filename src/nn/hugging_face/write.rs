//! Writing a `config.json`.

use super::super::config::{Arch, AttentionBias, ModelConfig};
use super::rope::written;
use serde_json::{Map, Value, json};

impl ModelConfig {
    /// A `config.json` that `transformers` loads, for weights in single precision; ranks are under a key of our own, and
    /// the factors that they are of are nothing that it knows. Families that share Llama's shape are written as the
    /// plainest one that has what this model has: a Mistral as the Llama that it is. The first and last
    /// tokens of a text are the tokenizer's business and null here, which is no claim, unlike their absence.
    pub fn to_hugging_face(&self) -> Value {
        let mut file = match self.arch {
            Arch::Gpt2 => self.gpt2(),
            Arch::Llama => self.llama(),
        };
        let (_, class) = self.names();
        let usual = json!({
            "model_type": self.names().0,
            "architectures": [class],
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "initializer_range": 0.02,
            "use_cache": true,
            "bos_token_id": null,
            "eos_token_id": null,
        });
        let entries = file.as_object_mut().expect("an object");
        entries.extend(usual.as_object().expect("an object").clone());
        if !self.ranks.is_empty() {
            let ranks = self.ranks.iter().map(|(path, rank)| (self.hub_name(path), json!(rank)));
            entries.insert("eckart".into(), json!({"ranks": ranks.collect::<Map<String, Value>>()}));
        }
        file
    }

    /// `model_type` and the class of its language model.
    fn names(&self) -> (&'static str, &'static str) {
        let plain = self.attention_bias == AttentionBias::None && !self.mlp_bias;
        match self.arch {
            Arch::Gpt2 => ("gpt2", "GPT2LMHeadModel"),
            Arch::Llama if self.qk_norm => ("qwen3", "Qwen3ForCausalLM"),
            Arch::Llama if self.attention_bias == AttentionBias::Qkv => ("qwen2", "Qwen2ForCausalLM"),
            // A Llama's own class insists on this although the size of its heads is given.
            Arch::Llama if plain && !self.width.is_multiple_of(self.heads) => ("mistral", "MistralForCausalLM"),
            Arch::Llama => ("llama", "LlamaForCausalLM"),
        }
    }

    fn gpt2(&self) -> Value {
        json!({
            "n_positions": self.positions(),
            "n_ctx": self.positions(),
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_inner": self.hidden,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": self.norm_epsilon,
            "resid_pdrop": self.dropout,
            "embd_pdrop": self.dropout,
            "attn_pdrop": 0.0,
        })
    }

    fn llama(&self) -> Value {
        json!({
            "max_position_embeddings": self.positions(),
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size(),
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta,
            "rope_scaling": written(&self.rope_scaling),
            "attention_bias": self.attention_bias == AttentionBias::All,
            "mlp_bias": self.mlp_bias,
            "attention_dropout": 0.0,
            "sliding_window": null,
            "use_sliding_window": false,
        })
    }
}
