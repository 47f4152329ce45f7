//! What would change numbers and is not supported, by name.

use super::super::config::ModelConfig;
use super::kind::Kind;
use super::read::File;
use super::rope::refused;
use crate::error::Result;

impl File {
    /// Settings that change numbers and are not supported.
    pub fn refuse(&self, kind: Kind) -> Result<()> {
        if self.quantization_config.is_some() {
            return refused("quantization_config: quantized weights are not supported");
        }
        // Two names stand for the form with tanh.
        let (usual, known): (_, &[&str]) = match kind {
            Kind::Gpt2 => ("gelu_new", &["gelu_new", "gelu_pytorch_tanh"]),
            Kind::Bert | Kind::Roberta => ("gelu", &["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]),
            _ => ("silu", &["silu"]),
        };
        let activation = self.hidden_act.as_deref().unwrap_or(usual);
        if !known.contains(&activation) {
            let known = if known.len() > 2 { known.join(", ") } else { usual.into() };
            return refused(&format!("activation {activation}: only {known} is supported for {}", self.model_type));
        }
        // `reorder_and_upcast_attn` is not among them: in single precision it changes nothing.
        let (gpt2, encoder) = (kind == Kind::Gpt2, matches!(kind, Kind::Bert | Kind::Roberta));
        let relative = self.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute");
        let unusual = [
            ("scale_attn_weights", gpt2 && self.scale_attn_weights == Some(false)),
            ("scale_attn_by_inverse_layer_idx", gpt2 && self.scale_attn_by_inverse_layer_idx == Some(true)),
            ("add_cross_attention", (gpt2 || encoder) && self.add_cross_attention == Some(true)),
            ("is_decoder", encoder && self.is_decoder == Some(true)),
            ("position_embedding_type", encoder && relative),
        ];
        match unusual.iter().find(|(_, set)| *set) {
            Some((name, _)) => refused(&format!("{name}: only the usual value is supported")),
            None => Ok(()),
        }
    }

    /// For sequences of at most `context` tokens.
    pub fn within(&self, kind: Kind, context: Option<usize>, config: ModelConfig) -> Result<ModelConfig> {
        let all = self.max_position_embeddings.saturating_sub(config.first_position());
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
            Kind::Gpt2 | Kind::Llama | Kind::Bert | Kind::Roberta => false,
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
