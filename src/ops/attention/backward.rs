//! The backward kernel: blocks of queries, whose probabilities are recomputed from the log-sum-exp.
//!
//! With scores S = scale Q Kᵀ, probabilities P and cotangent C of the result,
//! A = C Vᵀ, G = scale P ∘ (A − rowsum(P ∘ A)), dQ = G K, dK = Gᵀ Q, dV = Pᵀ C.

use super::Attention;
use super::operand::{Heads, Mask, transpose};
use super::result::Packed;
use super::row::{Sight, dot, probabilities};
use super::sizes::{Sizes, carve};
use super::tile::{Left, ROWS, product};
use crate::autograd::SavedArrays;
use crate::device::{Array, cpu};
use crate::scalar::Float;

/// Queries of a block: enough that adding to dK and dV pays, few enough for the first-level cache.
pub(super) const BLOCK: usize = 32;

/// Scratch of one pair: K, Kᵀ, Vᵀ, dK, dV; of one block Q, C, dQ, P, G.
fn pieces(s: &Sizes) -> [usize; 10] {
    let (flat, tall) = (s.dim * s.keys, s.keys * s.lanes);
    let (side, scores) = (BLOCK * s.lanes, BLOCK * s.keys);
    [tall, flat, flat, tall, tall, side, side, side, scores, scores]
}

pub(super) fn scratch(s: &Sizes) -> [usize; 2] {
    s.scratch(pieces(s))
}

/// Operands and results.
struct Backward<'a, T> {
    s: Sizes,
    qkv: Heads<'a, T>,
    c: Heads<'a, T>,
    mask: Option<Mask<'a>>,
    lse: &'a [T],
    grad: Packed<'a, T>,
}

pub(super) fn run<T: Float>(op: &Attention, saved: &SavedArrays<'_>, c: &Array, grad: &mut Array, scratch: &mut Array) {
    let s = Sizes::new(op, saved.input(0).shape());
    let kernel = Backward {
        s,
        qkv: Heads::<T>::new(saved.input(0)),
        c: Heads::new(c),
        mask: Mask::new(saved.inputs.get(1).copied().flatten(), &s),
        lse: saved.residuals[0].slice(),
        grad: Packed::new(grad),
    };
    s.each_pair(scratch.slice_mut(), pieces(&s), |batch, kv, scratch| kernel.pair(batch, kv, scratch));
}

/// What one pair works in.
struct Space<'a, T> {
    k: &'a mut [T],
    kt: &'a mut [T],
    vt: &'a mut [T],
    dk: &'a mut [T],
    dv: &'a mut [T],
    q: &'a mut [T],
    c: &'a mut [T],
    dq: &'a mut [T],
    p: &'a mut [T],
    g: &'a mut [T],
}

impl<T: Float> Backward<'_, T> {
    fn pair(&self, batch: usize, kv: usize, scratch: &mut [T]) {
        let s = &self.s;
        let [k, kt, vt, dk, dv, q, c, dq, p, g] = carve(scratch, pieces(s));
        self.qkv.pack(batch, s.key_slot(kv), 0, k);
        transpose(k, s, s.scale, kt);
        self.qkv.pack(batch, s.value_slot(kv), 0, dv);
        transpose(dv, s, 1.0, vt);
        dk.fill(T::zero());
        dv.fill(T::zero());
        let mut space = Space { k, kt, vt, dk, dv, q, c, dq, p, g };
        for (head, first) in s.tiles_of(kv, BLOCK) {
            self.block([batch, head, first], &mut space);
        }
        self.grad.write([batch, s.key_slot(kv), 0], space.dk, s);
        self.grad.write([batch, s.value_slot(kv), 0], space.dv, s);
    }

    fn block(&self, at @ [batch, head, first]: [usize; 3], m: &mut Space<'_, T>) {
        let s = &self.s;
        let rows = BLOCK.min(s.time - first).next_multiple_of(ROWS);
        self.qkv.pack(batch, head, first, &mut m.q[..rows * s.lanes]);
        self.c.pack(batch, head, first, &mut m.c[..rows * s.lanes]);
        for top in (0..rows).step_by(ROWS) {
            self.tile(at, top, m);
        }
        self.grad.write(at, &m.dq[..rows * s.lanes], s);
        for (key, skip) in s.key_tiles(first, rows) {
            let size = (ROWS, rows - skip, s.lanes);
            let (scores, from, to) = (skip * s.keys + key, skip * s.lanes, key * s.lanes);
            let (dk, dv) = ((&mut m.dk[to..], s.lanes), (&mut m.dv[to..], s.lanes));
            product(size, Left::transposed(&m.g[scores..], s.keys), (&m.q[from..], s.lanes), dk, true);
            product(size, Left::transposed(&m.p[scores..], s.keys), (&m.c[from..], s.lanes), dv, true);
        }
    }

    /// P, G and dQ of queries `top..top + ROWS` of a block.
    fn tile(&self, [batch, head, first]: [usize; 3], top: usize, m: &mut Space<'_, T>) {
        let s = &self.s;
        let (reach, width) = s.reach(first + top + ROWS);
        let (side, size) = (top * s.lanes, (ROWS, s.dim, width));
        let [p, g] = [&mut *m.p, &mut *m.g].map(|x| &mut x[top * s.keys..(top + ROWS) * s.keys]);
        product(size, Left::rows(&m.q[side..], s.lanes), (m.kt, s.keys), (p, s.keys), false);
        product(size, Left::rows(&m.c[side..], s.lanes), (m.vt, s.keys), (g, s.keys), false);
        let sight = Sight { sizes: s, mask: self.mask, batch, head };
        let scale = T::of(s.scale);
        cpu::simd(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let (p, g) = (&mut p[i * s.keys..][..width], &mut g[i * s.keys..][..width]);
                    probabilities(p, &sight, first + top + i, self.lse);
                    let d = dot(p, g);
                    for (g, p) in g.iter_mut().zip(&*p) {
                        *g = *p * (*g - d) * scale;
                    }
                }
            },
        );
        product((ROWS, reach, s.lanes), Left::rows(g, s.keys), (m.k, s.lanes), (&mut m.dq[side..], s.lanes), false);
    }
}
