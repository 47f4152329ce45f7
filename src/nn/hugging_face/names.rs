//! Names of weights.

use super::super::{Arch, ModelConfig};

impl ModelConfig {
    /// What files put before the paths of all but the head, and the first parts of those paths.
    fn body(&self) -> (&'static str, &'static [&'static str]) {
        match self.arch {
            Arch::Gpt2 => ("transformer.", &["wte", "wpe", "h", "ln_f"]),
            Arch::Llama => ("model.", &["embed_tokens", "layers", "norm"]),
            Arch::Bert => ("bert.", &["embeddings", "encoder", "pooler"]),
            Arch::Roberta => ("roberta.", &["embeddings", "encoder", "pooler"]),
        }
    }

    fn in_body(&self, path: &str) -> bool {
        path.split('.').next().is_some_and(|first| self.body().1.contains(&first))
    }

    /// The name that Hugging Face's files and PEFT have for what this model has at `path`: `h.0.attn.c_attn.weight` is
    /// `transformer.h.0.attn.c_attn.weight`. Paths of a Llama are the names themselves.
    pub fn hub_name(&self, path: &str) -> String {
        if self.in_body(path) { format!("{}{path}", self.body().0) } else { path.into() }
    }

    /// What PEFT calls the output head over tokens; none in a model that classifies.
    pub fn hub_head(&self) -> Option<&'static str> {
        let name = match self.arch {
            Arch::Gpt2 | Arch::Llama => "lm_head",
            Arch::Bert => "cls.predictions.decoder",
            Arch::Roberta => "lm_head.decoder",
        };
        self.labels.is_none().then_some(name)
    }

    /// The path of what Hugging Face's files have under `name`, with or without the prefix of a model with a head. None for
    /// what is no weight of this model: masks, places and frequencies that older files hold, an output head that is tied to
    /// the embedding, and heads for other tasks.
    pub fn hub_path(&self, name: &str) -> Option<String> {
        let prefix = self.body().0;
        let mut path = name.strip_prefix(prefix).unwrap_or(name).to_string();
        if self.arch.is_encoder() {
            // As the first files had them.
            path = path.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
        }
        if self.is_other(&path.split('.').collect::<Vec<_>>()) {
            return None;
        }
        Some(if self.arch == Arch::Llama && self.in_body(&path) { format!("{prefix}{path}") } else { path })
    }

    /// Whether a name, cut at its dots, is known and no weight of this model.
    fn is_other(&self, path: &[&str]) -> bool {
        let classifies = self.labels.is_some();
        match (self.arch, path) {
            (Arch::Gpt2, ["h", _, "attn", "bias" | "masked_bias"]) => true,
            (Arch::Gpt2, ["lm_head", "weight"]) => true,
            (Arch::Llama, [.., "rotary_emb", "inv_freq"]) => true,
            (Arch::Llama, ["lm_head", "weight"]) => self.tied || classifies,
            (Arch::Gpt2 | Arch::Llama, ["score", ..]) => !classifies,
            (Arch::Gpt2 | Arch::Llama, _) => false,
            (_, ["embeddings", "position_ids" | "token_type_ids"]) => true,
            (_, ["cls", "seq_relationship", ..] | ["qa_outputs", ..]) => true,
            (_, ["cls", "predictions", "decoder", ..] | ["lm_head", "decoder", ..]) => true,
            (_, ["cls" | "lm_head", ..]) => classifies,
            (_, ["classifier", ..]) => !classifies,
            (Arch::Bert, ["pooler", ..]) => !classifies,
            (_, ["pooler", ..]) => true,
            _ => false,
        }
    }

    /// Whether a parameter belongs to what a task needs beside the model itself, which files for another task lack.
    pub fn is_of_head(&self, path: &str) -> bool {
        let first = path.split('.').next().unwrap_or_default();
        matches!(first, "lm_head" | "cls" | "pooler" | "classifier" | "score")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arch: Arch) -> ModelConfig {
        ModelConfig::new(arch, 10, 8, 1, 2, 8)
    }

    fn classifier(arch: Arch) -> ModelConfig {
        ModelConfig { labels: Some(vec!["a".into(), "b".into()]), ..config(arch) }
    }

    #[test]
    fn names_are_those_of_the_published_files() {
        assert_eq!(config(Arch::Gpt2).hub_name("h.0.ln_1.bias"), "transformer.h.0.ln_1.bias");
        assert_eq!(config(Arch::Llama).hub_name("model.norm.weight"), "model.norm.weight");
        assert_eq!(classifier(Arch::Gpt2).hub_name("score.weight"), "score.weight");
        assert_eq!(classifier(Arch::Bert).hub_name("pooler.dense.weight"), "bert.pooler.dense.weight");
        assert_eq!(config(Arch::Roberta).hub_name("lm_head.bias"), "lm_head.bias");
    }

    #[test]
    fn names_lead_back_to_paths() {
        let leads = |config: &ModelConfig, name: &str, path: &str| {
            assert_eq!(config.hub_path(name).as_deref(), Some(path), "{name}");
        };
        let none = |config: &ModelConfig, names: &[&str]| {
            names.iter().for_each(|name| assert_eq!(config.hub_path(name), None, "{name}"));
        };
        let gpt2 = config(Arch::Gpt2);
        for name in ["transformer.h.0.attn.c_attn.bias", "h.0.attn.c_attn.bias"] {
            leads(&gpt2, name, "h.0.attn.c_attn.bias");
        }
        none(&gpt2, &["h.11.attn.bias", "transformer.h.0.attn.masked_bias", "lm_head.weight", "score.weight"]);
        leads(&classifier(Arch::Gpt2), "score.weight", "score.weight");
        let llama = ModelConfig { tied: false, ..config(Arch::Llama) };
        none(&llama, &["model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"]);
        leads(&llama, "lm_head.weight", "lm_head.weight");
        leads(&llama, "layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight");
        leads(&llama, "transformer.wte.weight", "transformer.wte.weight");
        none(&ModelConfig { tied: false, ..classifier(Arch::Llama) }, &["lm_head.weight"]);
    }

    #[test]
    fn an_encoder_passes_over_other_heads() {
        let (bert, roberta) = (config(Arch::Bert), config(Arch::Roberta));
        let path = |config: &ModelConfig, name: &str| config.hub_path(name);
        let norm = "embeddings.LayerNorm.weight";
        for name in
            ["bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.weight"]
        {
            assert_eq!(path(&bert, name).as_deref(), Some(norm));
        }
        let [bias, pooler, score] = ["cls.predictions.bias", "bert.pooler.dense.bias", "classifier.weight"];
        assert_eq!([bias, pooler, score].map(|name| path(&bert, name).is_some()), [true, false, false]);
        let found = [bias, pooler, score].map(|name| path(&classifier(Arch::Bert), name).is_some());
        assert_eq!(found, [false, true, true]);
        for name in ["bert.embeddings.position_ids", "cls.predictions.decoder.bias", "cls.seq_relationship.weight"] {
            assert_eq!(path(&bert, name), None);
        }
        let names =
            ["lm_head.dense.weight", "lm_head.decoder.weight", "roberta.pooler.dense.weight", "classifier.dense.bias"];
        assert_eq!(names.map(|name| path(&roberta, name).is_some()), [true, false, false, false]);
        assert_eq!(names.map(|name| path(&classifier(Arch::Roberta), name).is_some()), [false, false, false, true]);
    }
}
