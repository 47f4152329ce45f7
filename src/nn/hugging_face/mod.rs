//! Models as Hugging Face's files have them: names of weights, and `config.json`.

mod kind;
mod read;
mod refuse;
mod rope;
mod write;

use super::{Arch, ModelConfig};

/// What the language models' files put before the paths of all but the head.
const PREFIX: &str = "transformer.";

impl ModelConfig {
    /// The name that Hugging Face's files and PEFT have for what this model has at `path`: `h.0.attn.c_attn.weight` is
    /// `transformer.h.0.attn.c_attn.weight`. Paths of other families are the names themselves.
    pub fn hub_name(&self, path: &str) -> String {
        if self.arch == Arch::Gpt2 { format!("{PREFIX}{path}") } else { path.into() }
    }

    /// The path of a module of this name.
    fn path_of(&self, name: String) -> String {
        match name.strip_prefix(PREFIX) {
            Some(path) if self.arch == Arch::Gpt2 => path.into(),
            _ => name,
        }
    }

    /// The path of what Hugging Face's files have under `name`, with or without the prefix in a GPT-2. None for what is no
    /// weight: masks and frequencies that older files hold, and an output head that is tied to the embedding.
    pub fn hub_path<'a>(&self, name: &'a str) -> Option<&'a str> {
        let path = match self.arch {
            Arch::Gpt2 => name.strip_prefix(PREFIX).unwrap_or(name),
            Arch::Llama => name,
        };
        let ignored = match (self.arch, &path.split('.').collect::<Vec<_>>()[..]) {
            (_, ["lm_head", "weight"]) => self.tied,
            (Arch::Gpt2, ["h", _, "attn", "bias" | "masked_bias"]) => true,
            (Arch::Llama, [.., "rotary_emb", "inv_freq"]) => true,
            _ => false,
        };
        (!ignored).then_some(path)
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
    fn names_lead_back_to_paths() {
        let gpt2 = ModelConfig::new(Arch::Gpt2, 10, 8, 1, 2, 8);
        for name in ["transformer.h.0.attn.c_attn.bias", "h.0.attn.c_attn.bias"] {
            assert_eq!(gpt2.hub_path(name), Some("h.0.attn.c_attn.bias"));
        }
        for name in ["h.11.attn.bias", "transformer.h.0.attn.masked_bias", "lm_head.weight"] {
            assert_eq!(gpt2.hub_path(name), None, "{name}");
        }
        let llama = ModelConfig { tied: false, ..ModelConfig::new(Arch::Llama, 10, 8, 1, 2, 8) };
        assert_eq!(llama.hub_path("model.layers.0.self_attn.rotary_emb.inv_freq"), None);
        assert_eq!(llama.hub_path("lm_head.weight"), Some("lm_head.weight"));
        assert_eq!(llama.hub_path("transformer.wte.weight"), Some("transformer.wte.weight"));
    }
}
