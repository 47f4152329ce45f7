//! BERT (Devlin et al., "BERT: Pre-training of deep bidirectional transformers", 2019) and RoBERTa (Liu et al. 2019):
//! encoders with a norm behind each sum. Paths are those of their published weights without `bert.` or `roberta.`:
//! `embeddings.word_embeddings`, `encoder.layer.0.attention.self.query`, …

use super::config::{Activation, ModelConfig};
use super::encoder_head::Head;
use super::inputs::Inputs;
use super::layers::{LayerNorm, Linear, Pass, block, drop};
use crate::module::{LinearMap, Module, Parameter, Path, normal};
use crate::ops::attention::Attention;
use crate::ops::dropout::Mask;
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{Device, module};

/// Deviation of initial weights.
pub(super) const DEVIATION: f64 = 0.02;

/// The model.
#[derive(Clone, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layer: Vec<Block>,
    /// What is made of the states.
    pub(super) head: Head,
}

#[derive(Clone, Debug)]
struct Embeddings {
    word_embeddings: LinearMap,
    position_embeddings: LinearMap,
    token_type_embeddings: LinearMap,
    norm: LayerNorm,
    first_position: usize,
    dropout: f64,
}
module!(Embeddings: word_embeddings, position_embeddings, token_type_embeddings, norm as "LayerNorm");

/// Attention and MLP, each added to the stream, which is normed then. Weights are stored as [out, in].
#[derive(Clone, Debug)]
struct Block {
    attention: SelfAttention,
    mixed: Added,
    intermediate: Linear,
    output: Added,
    activation: Activation,
}
module!(Block: attention as "attention.self", mixed as "attention.output", intermediate as "intermediate.dense", output);

#[derive(Clone, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}
module!(SelfAttention: query, key, value);

/// What is written into the stream.
#[derive(Clone, Debug)]
struct Added {
    dense: Linear,
    norm: LayerNorm,
    dropout: f64,
}
module!(Added: dense, norm as "LayerNorm");

impl Module for Bert {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.embeddings.visit(&path.join("embeddings"), see);
        self.layer.visit(&path.join("encoder.layer"), see);
        self.head.visit(path, see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.embeddings.visit_mut(&path.join("embeddings"), see);
        self.layer.visit_mut(&path.join("encoder.layer"), see);
        self.head.visit_mut(path, see);
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        self.embeddings.visit_maps(&path.join("embeddings"), see);
        self.layer.visit_maps(&path.join("encoder.layer"), see);
        self.head.visit_maps(path, see);
    }
}

impl Bert {
    /// Fresh weights, a function of the seed.
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Bert {
        let layer = |i| Block::new(config, seed.named("layer").fold(i as u64), device);
        Bert {
            embeddings: Embeddings::new(config, seed, device),
            layer: (0..config.layers).map(layer).collect(),
            head: Head::new(config, seed, device),
        }
    }

    /// States after the last block: [batch, time] to [batch, time, width].
    #[track_caller]
    pub fn hidden(&self, inputs: &Inputs, pass: &Pass) -> Tensor {
        let visible = inputs.visible();
        let mut x = self.embeddings.apply(inputs, pass.dropout.as_ref());
        for (i, layer) in self.layer.iter().enumerate() {
            let visible = visible.clone();
            x = block(layer, i, x, pass, move |layer, x, mask| layer.forward(x, visible.as_ref(), mask));
        }
        x
    }

    /// Logits of tokens or of classes, see [`Inputs::places`].
    #[track_caller]
    pub fn logits(&self, inputs: &Inputs, pass: &Pass) -> Tensor {
        let states = inputs.of(self.hidden(inputs, pass), self.head.reads());
        self.head.apply(&states, &self.embeddings.word_embeddings, pass.dropout.as_ref())
    }
}

impl Embeddings {
    fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Embeddings {
        let first_position = config.first_position();
        let table =
            |name: &str, rows| LinearMap::embedding(normal(&[rows, config.width], DEVIATION, seed.named(name), device));
        Embeddings {
            word_embeddings: table("word_embeddings", config.vocabulary),
            position_embeddings: table("position_embeddings", first_position + config.positions()),
            token_type_embeddings: table("token_type_embeddings", config.segments),
            norm: LayerNorm::new(config.width, config.norm_epsilon, device),
            first_position,
            dropout: config.dropout,
        }
    }

    #[track_caller]
    fn apply(&self, inputs: &Inputs, mask: Option<&Mask>) -> Tensor {
        let words = self.word_embeddings.rows(&inputs.ids);
        let positions = self.position_embeddings.rows_between(self.first_position, inputs.ids.shape()[1]);
        let segments = match &inputs.segments {
            Some(segments) => self.token_type_embeddings.rows(segments),
            None => self.token_type_embeddings.rows_between(0, 1),
        };
        drop(self.norm.apply(&(words + positions + segments)), self.dropout, mask, u64::MAX)
    }
}

impl Block {
    fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Block {
        let (width, hidden) = (config.width, config.hidden);
        let linear = |name: &str, sizes| Linear::transposed(sizes, true, DEVIATION, seed.named(name), device);
        let added = |name: &str, inputs| Added {
            dense: linear(name, [inputs, width]),
            norm: LayerNorm::new(width, config.norm_epsilon, device),
            dropout: config.dropout,
        };
        Block {
            attention: SelfAttention {
                query: linear("query", [width, width]),
                key: linear("key", [width, width]),
                value: linear("value", [width, width]),
                heads: config.heads,
            },
            mixed: added("attention.output", width),
            intermediate: linear("intermediate", [width, hidden]),
            output: added("output", hidden),
            activation: config.activation,
        }
    }

    /// x [batch, time, width]; `visible` broadcasts to [batch, heads, time, time].
    fn forward(&self, x: &Tensor, visible: Option<&Tensor>, mask: Option<&Mask>) -> Tensor {
        let x = self.mixed.to(x, &self.attention.apply(x, visible), mask, 0);
        let hidden = self.activation.apply(&self.intermediate.apply(&x));
        self.output.to(&x, &hidden, mask, 1)
    }
}

impl SelfAttention {
    /// [batch, time, width] to the same.
    fn apply(&self, x: &Tensor, visible: Option<&Tensor>) -> Tensor {
        let [batch, time, width] = x.shape()[..] else { unreachable!("embeddings are [batch, time, width]") };
        let split = |map: &Linear| map.apply(x).reshape([batch, time, self.heads, width / self.heads]);
        let qkv = Tensor::concat(&[&split(&self.query), &split(&self.key), &split(&self.value)], 2);
        qkv.attention(Attention::new(self.heads, false), visible).reshape([batch, time, width])
    }
}

impl Added {
    fn to(&self, x: &Tensor, y: &Tensor, mask: Option<&Mask>, place: u64) -> Tensor {
        self.norm.apply(&(x + drop(self.dense.apply(y), self.dropout, mask, place)))
    }
}

impl Activation {
    pub(super) fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Relu => x.relu(),
        }
    }
}
