//! GPT-2 (Radford et al., "Language models are unsupervised multitask learners", 2019). Paths are those of its
//! published weights: `wte`, `wpe`, `h.0.attn.c_attn`, …

use super::cache::{Cache, by_sequence};
use super::config::ModelConfig;
use super::layers::{LayerNorm, Linear, Pass, block, drop, score};
use crate::module::{LinearMap, normal};
use crate::ops::attention::Attention;
use crate::ops::dropout::Mask;
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{Device, module};

/// Deviation of initial weights.
const DEVIATION: f64 = 0.02;

/// The model.
#[derive(Clone, Debug)]
pub struct Gpt2 {
    /// Token embedding and output head, [vocabulary, width].
    pub wte: LinearMap,
    /// Position embedding, [positions, width].
    pub wpe: LinearMap,
    /// Blocks.
    pub h: Vec<Block>,
    /// Last norm.
    pub ln_f: LayerNorm,
    /// Logits of classes, stored as [classes, width], in a model that classifies.
    pub score: Option<LinearMap>,
    dropout: f64,
}
module!(Gpt2: wte, wpe, h, ln_f, score);

/// Attention and MLP, each added to the stream.
#[derive(Clone, Debug)]
pub struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    mlp: Mlp,
    dropout: f64,
}
module!(Block: ln_1, attn, ln_2, mlp);

#[derive(Clone, Debug)]
struct SelfAttention {
    c_attn: Linear,
    c_proj: Linear,
    heads: usize,
}
module!(SelfAttention: c_attn, c_proj);

#[derive(Clone, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}
module!(Mlp: c_fc, c_proj);

impl Gpt2 {
    /// Fresh weights, a function of the seed; projections into the stream are scaled by 1/√(2 layers).
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Gpt2 {
        let (width, epsilon) = (config.width, config.norm_epsilon);
        let layer = |i| Block::new(config, seed.named("h").fold(i as u64), device);
        Gpt2 {
            wte: LinearMap::embedding(normal(&[config.vocabulary, width], DEVIATION, seed.named("wte"), device)),
            wpe: LinearMap::embedding(normal(&[config.positions(), width], DEVIATION, seed.named("wpe"), device)),
            h: (0..config.layers).map(layer).collect(),
            ln_f: LayerNorm::new(width, epsilon, device),
            score: score(config, seed, device),
            dropout: config.dropout,
        }
    }

    /// Hidden states after the last norm: [batch, time] to [batch, time, width].
    #[track_caller]
    pub fn hidden(&self, ids: &Tensor, pass: &Pass) -> Tensor {
        let mut x = drop(self.embed(ids, 0), self.dropout, pass.dropout.as_ref(), u64::MAX);
        for (i, layer) in self.h.iter().enumerate() {
            x = block(layer, i, x, pass, Block::forward);
        }
        self.ln_f.apply(&x)
    }

    /// The same for new tokens of sequences, with the old ones in their caches.
    pub fn continued(&self, ids: &Tensor, caches: &mut [&mut Cache]) -> Tensor {
        let mut x = by_sequence(ids, caches, |cache, ids| self.embed(ids, cache.tokens()));
        for (i, layer) in self.h.iter().enumerate() {
            x = layer.with(&x, None, |qkv, op| by_sequence(&qkv, caches, |cache, qkv| cache.attend(i, qkv, op)));
        }
        caches.iter_mut().for_each(|cache| cache.advance(ids.shape()[1]));
        self.ln_f.apply(&x)
    }

    /// Logits of hidden states: of classes if it classifies, else of tokens by the embedding's transpose.
    #[track_caller]
    pub fn head(&self, hidden: &Tensor) -> Tensor {
        match &self.score {
            Some(score) => score.apply(hidden, None),
            None => self.wte.apply_transposed(hidden),
        }
    }

    /// Tokens from position `start` on: [batch, time] to [batch, time, width].
    #[track_caller]
    fn embed(&self, ids: &Tensor, start: usize) -> Tensor {
        self.wte.rows(ids) + self.wpe.rows_between(start, ids.shape()[1])
    }
}

impl Block {
    fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Block {
        let (width, epsilon) = (config.width, config.norm_epsilon);
        let residual = DEVIATION / (2.0 * config.layers as f64).sqrt();
        let linear =
            |name: &str, inputs, outputs, deviation| Linear::new(inputs, outputs, deviation, seed.named(name), device);
        Block {
            ln_1: LayerNorm::new(width, epsilon, device),
            attn: SelfAttention {
                c_attn: linear("c_attn", width, 3 * width, DEVIATION),
                c_proj: linear("c_proj", width, width, residual),
                heads: config.heads,
            },
            ln_2: LayerNorm::new(width, epsilon, device),
            mlp: Mlp {
                c_fc: linear("c_fc", width, config.hidden, DEVIATION),
                c_proj: linear("mlp_c_proj", config.hidden, width, residual),
            },
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, mask: Option<&Mask>) -> Tensor {
        self.with(x, mask, |qkv, op| qkv.attention(op, None))
    }

    /// The block around an attention: x [batch, time, width], qkv [batch, time, 3 heads, size].
    fn with(&self, x: &Tensor, mask: Option<&Mask>, mut attend: impl FnMut(Tensor, Attention) -> Tensor) -> Tensor {
        let (batch, time, width) = (x.shape()[0], x.shape()[1], x.shape()[2]);
        let heads = self.attn.heads;
        let qkv = self.attn.c_attn.apply(&self.ln_1.apply(x)).reshape([batch, time, 3 * heads, width / heads]);
        let mixed = attend(qkv, Attention::new(heads, true)).reshape([batch, time, width]);
        let x = x + drop(self.attn.c_proj.apply(&mixed), self.dropout, mask, 0);
        let hidden = self.mlp.c_fc.apply(&self.ln_2.apply(&x)).gelu_tanh();
        &x + drop(self.mlp.c_proj.apply(&hidden), self.dropout, mask, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::grad;
    use crate::module::Module;

    #[test]
    fn positions_are_rows_by_index() {
        let device = Device::cpu();
        let table = LinearMap::dense(normal(&[5, 3], 1.0, Seed(0), &device));
        let weight = &table.parameters()[0].1;
        for (start, count) in [(0, 5), (0, 3), (2, 3), (4, 1), (1, 0), (5, 0)] {
            let ids: Vec<u32> = (start..start + count).map(|i| i as u32).collect();
            let by_index = table.rows(&Tensor::new(&ids, [count], &device));
            let [found, expected] = [table.rows_between(start, count), by_index].map(|y| {
                let gradient = grad(&(&y * &y * &y).sum_all(), &[weight.tensor()], false).remove(0);
                [y, gradient].map(|x| x.to_vec::<f32>().unwrap())
            });
            assert_eq!(found, expected, "{count} from {start} on");
        }
    }

    #[test]
    #[should_panic(expected = "rows 0 to 9 of a map that has 8")]
    fn there_are_no_positions_beyond_the_context() {
        let config = ModelConfig::new(crate::nn::Arch::Gpt2, 7, 8, 1, 1, 4);
        let ids = Tensor::new(&[0_u32; 9], [1, 9], &Device::null());
        Gpt2::new(&config, Seed(0), &Device::null()).hidden(&ids, &Pass::default());
    }
}
