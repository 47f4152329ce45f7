//! Llama (Touvron et al., "Llama 2", 2023): RMS norm, rotary positions, grouped heads, SwiGLU. Paths are those of
//! published weights in their usual layout: `model.embed_tokens`, `model.layers.0.self_attn.q_proj`, …
//!
//! Mistral (Jiang et al. 2023, without its window), Qwen2 (Yang et al. 2024: biases of q, k and v) and Qwen3 (Yang et al.
//! 2025: norms of q and k instead, heads of their own size) have the same shape.

use super::cache::{Cache, by_sequence};
use super::config::{AttentionBias, ModelConfig};
use super::layers::{Linear, Pass, RmsNorm, block, drop, rotary_table, score};
use crate::device::{Tag, tagged};
use crate::module::{Dense, LinearMap, Module, Path, normal};
use crate::ops::attention::Attention;
use crate::ops::dropout::Mask;
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{DType, Device, module};

/// Deviation of initial weights.
const DEVIATION: f64 = 0.02;

/// The model.
#[derive(Clone, Debug)]
pub struct Llama {
    model: Body,
    /// Output head [vocabulary, width]; the embedding's transpose if none.
    lm_head: Option<LinearMap>,
    /// Logits of classes, stored as [classes, width], in a model that classifies.
    pub(super) score: Option<LinearMap>,
    rotary: Tensor,
    dropout: f64,
}
module!(Llama: model, lm_head, score);

#[derive(Clone, Debug)]
struct Body {
    embed_tokens: LinearMap,
    layers: Vec<Block>,
    norm: RmsNorm,
}
module!(Body: embed_tokens, layers, norm);

/// Attention and MLP, each added to the stream. Weights are stored as [out, in].
#[derive(Clone, Debug)]
pub struct Block {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
    rotary: Tensor,
    dropout: f64,
}
module!(Block: input_layernorm, self_attn, post_attention_layernorm, mlp);

#[derive(Clone, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Of each head, [head_dim].
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    heads: usize,
    kv_heads: usize,
}
module!(SelfAttention: q_proj, k_proj, v_proj, o_proj, q_norm, k_norm);

#[derive(Clone, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}
module!(Mlp: gate_proj, up_proj, down_proj);

impl Llama {
    /// Fresh weights, a function of the seed; projections into the stream are scaled by 1/√(2 layers).
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Llama {
        let rotary = rotary_table(config.context, &config.rope_frequencies(), DType::F32, device);
        let layer = |i| Block::new(config, rotary.clone(), seed.named("layers").fold(i as u64), device);
        let table = normal(&[config.vocabulary, config.width], DEVIATION, seed.named("embed_tokens"), device);
        let model = Body {
            embed_tokens: LinearMap::embedding(table),
            layers: (0..config.layers).map(layer).collect(),
            norm: RmsNorm::new(config.width, config.norm_epsilon, device),
        };
        let (lm_head, score) = (lm_head(config, seed, device), score(config, seed, device));
        Llama { model, lm_head, score, rotary, dropout: config.dropout }
    }

    /// A head that is fresh, a function of the seed.
    pub(super) fn renew_head(&mut self, config: &ModelConfig, seed: Seed, device: &Device) {
        (self.lm_head, self.score) = (lm_head(config, seed, device), score(config, seed, device));
    }

    /// Gives the head a copy of the embedding; false where the embedding is not a plain table.
    pub(super) fn untie(&mut self) -> bool {
        let Some(table) = self.model.embed_tokens.get::<Dense>() else { return false };
        let copy = tagged(Tag::Weights, || Tensor::from_array(table.weight.tensor().array().to_owned()));
        let mut head = LinearMap::transposed(copy);
        if !table.weight.trains() {
            head.visit_mut(&Path::root(), &mut |_, weight| weight.freeze());
        }
        self.lm_head = Some(head);
        true
    }

    /// Positions for weights of another type or on another device.
    pub(super) fn retype(&mut self, config: &ModelConfig, dtype: DType, device: &Device) {
        self.rotary = rotary_table(config.context, &config.rope_frequencies(), dtype, device);
        for layer in &mut self.model.layers {
            layer.rotary = self.rotary.clone();
        }
    }

    /// Hidden states after the last norm: [batch, time] to [batch, time, width].
    #[track_caller]
    pub fn hidden(&self, ids: &Tensor, pass: &Pass) -> Tensor {
        let mut x = drop(self.model.embed_tokens.rows(ids), self.dropout, pass.dropout.as_ref(), u64::MAX);
        for (i, layer) in self.model.layers.iter().enumerate() {
            x = block(layer, i, x, pass, Block::forward);
        }
        self.model.norm.apply(&x)
    }

    /// The same for new tokens of sequences, with the old ones in their caches.
    pub fn continued(&self, ids: &Tensor, caches: &mut [&mut Cache]) -> Tensor {
        let mut x = self.model.embed_tokens.rows(ids);
        for (i, layer) in self.model.layers.iter().enumerate() {
            x = layer.with(&x, None, |qkv, op| {
                by_sequence(&qkv, caches, |cache, qkv| cache.attend(i, &layer.turned(qkv, cache.tokens()), op))
            });
        }
        caches.iter_mut().for_each(|cache| cache.advance(ids.shape()[1]));
        self.model.norm.apply(&x)
    }

    /// Logits of hidden states: of classes if it classifies, else of tokens by the head or the embedding's transpose.
    #[track_caller]
    pub fn head(&self, hidden: &Tensor) -> Tensor {
        match self.score.as_ref().or(self.lm_head.as_ref()) {
            Some(head) => head.apply(hidden, None),
            None => self.model.embed_tokens.apply_transposed(hidden),
        }
    }
}

impl Block {
    fn new(config: &ModelConfig, rotary: Tensor, seed: Seed, device: &Device) -> Block {
        let norm = || RmsNorm::new(config.width, config.norm_epsilon, device);
        Block {
            input_layernorm: norm(),
            self_attn: SelfAttention::new(config, seed, device),
            post_attention_layernorm: norm(),
            mlp: Mlp::new(config, seed, device),
            rotary,
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, mask: Option<&Mask>) -> Tensor {
        self.with(x, mask, |qkv, op| self.turned(&qkv, 0).attention(op, None))
    }

    /// Queries and keys turned by their positions, of which the first is `start`.
    fn turned(&self, qkv: &Tensor, start: usize) -> Tensor {
        qkv.rotary(&self.rotary, start, self.self_attn.heads + self.self_attn.kv_heads)
    }

    /// The block around an attention, which turns what it is given: x [batch, time, width].
    fn with(&self, x: &Tensor, mask: Option<&Mask>, mut attend: impl FnMut(Tensor, Attention) -> Tensor) -> Tensor {
        let SelfAttention { heads, kv_heads, .. } = self.self_attn;
        let (batch, time) = (x.shape()[0], x.shape()[1]);
        let qkv = self.self_attn.packed(&self.input_layernorm.apply(x));
        let size = heads * qkv.shape()[3];
        let mixed = attend(qkv, Attention { kv_heads, ..Attention::new(heads, true) }).reshape([batch, time, size]);
        let x = x + drop(self.self_attn.o_proj.apply(&mixed), self.dropout, mask, 0);
        let normed = self.post_attention_layernorm.apply(&x);
        let hidden = self.mlp.gate_proj.apply(&normed).silu() * self.mlp.up_proj.apply(&normed);
        &x + drop(self.mlp.down_proj.apply(&hidden), self.dropout, mask, 1)
    }
}

/// An output head with weights of its own, if it is to have one.
fn lm_head(config: &ModelConfig, seed: Seed, device: &Device) -> Option<LinearMap> {
    let head = || normal(&[config.vocabulary, config.width], DEVIATION, seed.named("lm_head"), device);
    (!config.tied && config.labels.is_none()).then(|| LinearMap::transposed(head()))
}

/// Deviation of what writes into the stream.
fn residual(config: &ModelConfig) -> f64 {
    DEVIATION / (2.0 * config.layers as f64).sqrt()
}

impl SelfAttention {
    fn new(config: &ModelConfig, seed: Seed, device: &Device) -> SelfAttention {
        let (width, size, bias) = (config.width, config.head_size(), config.attention_bias);
        let map = |name: &str, sizes, biased, deviation| {
            Linear::transposed(sizes, biased, deviation, seed.named(name), device)
        };
        let inner = |name, heads: usize| map(name, [width, heads * size], bias != AttentionBias::None, DEVIATION);
        let norm = || config.qk_norm.then(|| RmsNorm::new(size, config.norm_epsilon, device));
        SelfAttention {
            q_proj: inner("q_proj", config.heads),
            k_proj: inner("k_proj", config.kv_heads),
            v_proj: inner("v_proj", config.kv_heads),
            o_proj: map("o_proj", [config.heads * size, width], bias == AttentionBias::All, residual(config)),
            q_norm: norm(),
            k_norm: norm(),
            heads: config.heads,
            kv_heads: config.kv_heads,
        }
    }

    /// Queries, keys and values packed as [batch, time, heads + 2 kv_heads, size].
    fn packed(&self, x: &Tensor) -> Tensor {
        let (batch, time, size) = (x.shape()[0], x.shape()[1], self.q_proj.map.sizes()[1] / self.heads);
        let split = |map: &Linear, heads: usize| map.apply(x).reshape([batch, time, heads, size]);
        let normed = |norm: &Option<RmsNorm>, x: Tensor| match norm {
            Some(norm) => norm.apply(&x),
            None => x,
        };
        let q = normed(&self.q_norm, split(&self.q_proj, self.heads));
        let k = normed(&self.k_norm, split(&self.k_proj, self.kv_heads));
        Tensor::concat(&[&q, &k, &split(&self.v_proj, self.kv_heads)], 2)
    }
}

impl Mlp {
    fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Mlp {
        let (width, hidden) = (config.width, config.hidden);
        let map = |name: &str, sizes, deviation| {
            Linear::transposed(sizes, config.mlp_bias, deviation, seed.named(name), device)
        };
        Mlp {
            gate_proj: map("gate_proj", [width, hidden], DEVIATION),
            up_proj: map("up_proj", [width, hidden], DEVIATION),
            down_proj: map("down_proj", [hidden, width], residual(config)),
        }
    }
}
