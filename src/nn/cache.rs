//! Keys and values of tokens already read, so that generating one more costs one row. Sequences that go on together have
//! one cache each, and need not be of one length.

use crate::ops::attention::Attention;
use crate::tensor::Tensor;

/// Keys and values of every layer, of one sequence.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<Option<(Tensor, Tensor)>>,
    tokens: usize,
}

impl Cache {
    /// An empty cache for a model of `layers` blocks.
    pub fn new(layers: usize) -> Cache {
        Cache { layers: vec![None; layers], tokens: 0 }
    }

    /// Tokens it holds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Counts tokens that all layers have stored.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// Attention of new tokens over all tokens so far: qkv is [1, new, heads + 2 kv_heads, size]. The first call may
    /// bring many tokens, each later one brings one.
    pub(super) fn attend(&mut self, layer: usize, qkv: &Tensor, op: Attention) -> Tensor {
        let k = qkv.slice(2, op.heads, op.kv_heads);
        let v = qkv.slice(2, op.heads + op.kv_heads, op.kv_heads);
        let Some((old_k, old_v)) = self.layers[layer].take() else {
            self.layers[layer] = Some((k.contiguous(), v.contiguous()));
            return qkv.attention(op, None);
        };
        assert_eq!(qkv.shape()[1], 1, "a filled cache takes one token at a time");
        let (k, v) = (Tensor::concat(&[&old_k, &k], 1), Tensor::concat(&[&old_v, &v], 1));
        let y = one_row(&qkv.slice(2, 0, op.heads), &k, &v, op);
        self.layers[layer] = Some((k, v));
        y
    }
}

/// Shows `f` each sequence of a batch with its cache, and puts what it makes of them together again.
pub(super) fn by_sequence(
    x: &Tensor,
    caches: &mut [&mut Cache],
    mut f: impl FnMut(&mut Cache, &Tensor) -> Tensor,
) -> Tensor {
    if let [cache] = caches {
        return f(cache, x);
    }
    let parts: Vec<Tensor> = caches.iter_mut().enumerate().map(|(i, cache)| f(cache, &x.slice(0, i, 1))).collect();
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)
}

/// Attention of one token, q [1, 1, heads, size] over k and v [1, time, kv_heads, size]; to [1, 1, heads, size].
fn one_row(q: &Tensor, k: &Tensor, v: &Tensor, op: Attention) -> Tensor {
    let (group, size) = (op.heads / op.kv_heads, q.shape()[3]);
    let q = q.reshape([op.kv_heads, group, size]);
    let by_head = |x: &Tensor| x.index(0, 0).permute(&[1, 0, 2]); // [kv_heads, time, size]
    let scores = q.matmul(&by_head(k).t()) * op.scale.unwrap_or(1.0 / (size as f64).sqrt());
    scores.softmax(-1).matmul(&by_head(v)).reshape([1, 1, op.heads, size])
}
