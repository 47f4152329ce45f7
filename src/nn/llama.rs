//! Llama (Touvron et al., "Llama 2", 2023): RMS norm, rotary positions, grouped heads, SwiGLU. Paths are those of
//! published weights in their usual layout: `model.embed_tokens`, `model.layers.0.self_attn.q_proj`, …

use super::cache::Cache;
use super::config::ModelConfig;
use super::layers::{Pass, RmsNorm, block, drop, rotary_table};
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
    rotary: Tensor,
    dropout: f64,
}
module!(Llama: model, lm_head);

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
    q_proj: LinearMap,
    k_proj: LinearMap,
    v_proj: LinearMap,
    o_proj: LinearMap,
    heads: usize,
    kv_heads: usize,
}
module!(SelfAttention: q_proj, k_proj, v_proj, o_proj);

#[derive(Clone, Debug)]
struct Mlp {
    gate_proj: LinearMap,
    up_proj: LinearMap,
    down_proj: LinearMap,
}
module!(Mlp: gate_proj, up_proj, down_proj);

impl Llama {
    /// Fresh weights, a function of the seed; projections into the stream are scaled by 1/√(2 layers).
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Llama {
        let rotary = rotary_table(config.head_size(), config.context, config.rope_theta, DType::F32, device);
        let layer = |i| Block::new(config, rotary.clone(), seed.named("layers").fold(i as u64), device);
        let table = normal(&[config.vocabulary, config.width], DEVIATION, seed.named("embed_tokens"), device);
        let model = Body {
            embed_tokens: LinearMap::embedding(table),
            layers: (0..config.layers).map(layer).collect(),
            norm: RmsNorm::new(config.width, config.norm_epsilon, device),
        };
        let head = || normal(&[config.vocabulary, config.width], DEVIATION, seed.named("lm_head"), device);
        let lm_head = (!config.tied).then(|| LinearMap::transposed(head()));
        Llama { model, lm_head, rotary, dropout: config.dropout }
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

    /// Positions for weights of another type.
    pub(super) fn retype(&mut self, config: &ModelConfig, dtype: DType) {
        let device = self.rotary.device().clone();
        self.rotary = rotary_table(config.head_size(), config.context, config.rope_theta, dtype, &device);
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

    /// The same for new tokens of one sequence, with the old ones in `cache`.
    pub fn continued(&self, ids: &Tensor, cache: &mut Cache) -> Tensor {
        let start = cache.tokens();
        let mut x = self.model.embed_tokens.rows(ids);
        for (i, layer) in self.model.layers.iter().enumerate() {
            x = layer.with(&x, start, None, |qkv, op| cache.attend(i, &qkv, op));
        }
        cache.advance(ids.shape()[1]);
        self.model.norm.apply(&x)
    }

    /// Logits of hidden states, by the head or else the embedding's transpose.
    #[track_caller]
    pub fn head(&self, hidden: &Tensor) -> Tensor {
        match &self.lm_head {
            Some(head) => head.apply(hidden, None),
            None => self.model.embed_tokens.apply_transposed(hidden),
        }
    }
}

impl Block {
    fn new(config: &ModelConfig, rotary: Tensor, seed: Seed, device: &Device) -> Block {
        let (width, hidden, kv) = (config.width, config.hidden, config.kv_heads * config.head_size());
        let residual = DEVIATION / (2.0 * config.layers as f64).sqrt();
        let map = |name: &str, outputs, inputs, deviation| {
            LinearMap::transposed(normal(&[outputs, inputs], deviation, seed.named(name), device))
        };
        let norm = || RmsNorm::new(width, config.norm_epsilon, device);
        Block {
            input_layernorm: norm(),
            self_attn: SelfAttention {
                q_proj: map("q_proj", width, width, DEVIATION),
                k_proj: map("k_proj", kv, width, DEVIATION),
                v_proj: map("v_proj", kv, width, DEVIATION),
                o_proj: map("o_proj", width, width, residual),
                heads: config.heads,
                kv_heads: config.kv_heads,
            },
            post_attention_layernorm: norm(),
            mlp: Mlp {
                gate_proj: map("gate_proj", hidden, width, DEVIATION),
                up_proj: map("up_proj", hidden, width, DEVIATION),
                down_proj: map("down_proj", width, hidden, residual),
            },
            rotary,
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, mask: Option<&Mask>) -> Tensor {
        self.with(x, 0, mask, |qkv, op| qkv.attention(op, None))
    }

    /// The block around an attention: x [batch, time, width], its first token at position `start`.
    fn with(
        &self,
        x: &Tensor,
        start: usize,
        mask: Option<&Mask>,
        mut attend: impl FnMut(Tensor, Attention) -> Tensor,
    ) -> Tensor {
        let SelfAttention { heads, kv_heads, .. } = self.self_attn;
        let qkv = self.self_attn.packed(&self.input_layernorm.apply(x));
        let qkv = qkv.rotary(&self.rotary, start, heads + kv_heads);
        let mixed = attend(qkv, Attention { kv_heads, ..Attention::new(heads, true) }).reshape(*x.shape());
        let x = x + drop(self.self_attn.o_proj.apply(&mixed, None), self.dropout, mask, 0);
        let normed = self.post_attention_layernorm.apply(&x);
        let hidden = self.mlp.gate_proj.apply(&normed, None).silu() * self.mlp.up_proj.apply(&normed, None);
        &x + drop(self.mlp.down_proj.apply(&hidden, None), self.dropout, mask, 1)
    }
}

impl SelfAttention {
    /// Queries, keys and values packed as [batch, time, heads + 2 kv_heads, size].
    fn packed(&self, x: &Tensor) -> Tensor {
        let (batch, time, size) = (x.shape()[0], x.shape()[1], x.shape()[2] / self.heads);
        let split = |map: &LinearMap, heads: usize| map.apply(x, None).reshape([batch, time, heads, size]);
        let q = split(&self.q_proj, self.heads);
        Tensor::concat(&[&q, &split(&self.k_proj, self.kv_heads), &split(&self.v_proj, self.kv_heads)], 2)
    }
}
