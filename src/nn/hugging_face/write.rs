//! Writing a `config.json`.

use super::super::config::{Activation, Arch, AttentionBias, ModelConfig};
use super::labels;
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
            Arch::Bert | Arch::Roberta => self.encoder(),
        };
        let (kind, class, head) = self.names();
        let task = if self.labels.is_some() { "ForSequenceClassification" } else { head };
        let usual = json!({
            "model_type": kind,
            "architectures": [format!("{class}{task}")],
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "initializer_range": 0.02,
            "use_cache": true,
            "bos_token_id": null,
            "eos_token_id": null,
            "pad_token_id": self.padding,
        });
        let entries = file.as_object_mut().expect("an object");
        let labels = self.labels.as_deref().map(labels::written);
        for more in [Some(usual), labels].into_iter().flatten() {
            entries.extend(more.as_object().expect("an object").clone());
        }
        if !self.ranks.is_empty() {
            let ranks = self.ranks.iter().map(|(path, rank)| (self.hub_name(path), json!(rank)));
            entries.insert("eckart".into(), json!({"ranks": ranks.collect::<Map<String, Value>>()}));
        }
        file
    }

    /// `model_type`, and how the class of its language model begins and ends.
    fn names(&self) -> (&'static str, &'static str, &'static str) {
        let plain = self.attention_bias == AttentionBias::None && !self.mlp_bias;
        match self.arch {
            Arch::Gpt2 => ("gpt2", "GPT2", "LMHeadModel"),
            Arch::Llama if self.qk_norm => ("qwen3", "Qwen3", "ForCausalLM"),
            Arch::Llama if self.attention_bias == AttentionBias::Qkv => ("qwen2", "Qwen2", "ForCausalLM"),
            // A Llama's own class insists on this although the size of its heads is given.
            Arch::Llama if plain && !self.width.is_multiple_of(self.heads) => ("mistral", "Mistral", "ForCausalLM"),
            Arch::Llama => ("llama", "Llama", "ForCausalLM"),
            Arch::Bert => ("bert", "Bert", "ForMaskedLM"),
            Arch::Roberta => ("roberta", "Roberta", "ForMaskedLM"),
        }
    }

    fn encoder(&self) -> Value {
        json!({
            "max_position_embeddings": self.positions() + self.first_position(),
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": match self.activation {
                Activation::Gelu => "gelu",
                Activation::GeluTanh => "gelu_new",
                Activation::Relu => "relu",
            },
            "layer_norm_eps": self.norm_epsilon,
            "type_vocab_size": self.segments,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": 0.0,
        })
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
