//! Tangent kernels: the forward and the backward pass, differentiated by hand along one direction. A dot marks a
//! tangent; scores, probabilities and cotangents are named as in the backward kernel.
//!
//! Ṡ = scale (Q̇ Kᵀ + Q K̇ᵀ), Ṗ = P ∘ (Ṡ − rowsum(P ∘ Ṡ)), Ẏ = Ṗ V + P V̇.
//! Ȧ = Ċ Vᵀ + C V̇ᵀ, D = rowsum(P ∘ A), Ḋ = rowsum(Ṗ ∘ A + P ∘ Ȧ), Ġ = scale (Ṗ ∘ (A − D) + P ∘ (Ȧ − Ḋ)),
//! dQ̇ = Ġ K + G K̇, dK̇ = Ġᵀ Q + Gᵀ Q̇, dV̇ = Ṗᵀ C + Pᵀ Ċ.

use super::Attention;
use super::backward::BLOCK;
use super::operand::{Heads, Mask, transpose};
use super::result::Packed;
use super::row::{Sight, dot, probabilities};
use super::sizes::{Sizes, carve};
use super::tile::{Left, ROWS, product};
use crate::autograd::SavedArrays;
use crate::device::{Array, cpu};
use crate::scalar::Float;

/// Space for one pair of the forward pass: Kᵀ, K̇ᵀ, V, V̇; of one tile Q, Q̇, P, Ṡ, Ẏ.
fn forward_pieces(s: &Sizes) -> [usize; 9] {
    let (flat, tall) = (s.dim * s.keys, s.keys * s.lanes);
    let (side, scores) = (ROWS * s.lanes, ROWS * s.keys);
    [flat, flat, tall, tall, side, side, scores, scores, side]
}

/// Operands and result of the forward pass along one direction.
struct Forward<'a, T> {
    s: Sizes,
    qkv: Heads<'a, T>,
    dqkv: Heads<'a, T>,
    mask: Option<Mask<'a>>,
    lse: &'a [T],
    dy: Packed<'a, T>,
}

/// Scratch of [`forward`].
pub(super) fn forward_scratch(s: &Sizes) -> [usize; 2] {
    s.scratch(forward_pieces(s))
}

/// Scratch of [`backward`].
pub(super) fn backward_scratch(s: &Sizes) -> [usize; 2] {
    s.scratch(backward_pieces(s))
}

/// Tangent of the result.
pub(super) fn forward<T: Float>(
    op: &Attention,
    ins: &[&Array],
    lse: &Array,
    dqkv: &Array,
    dy: &mut Array,
    scratch: &mut Array,
) {
    let s = Sizes::new(op, ins[0].shape());
    let kernel = Forward {
        s,
        qkv: Heads::<T>::new(ins[0]),
        dqkv: Heads::new(dqkv),
        mask: Mask::new(ins.get(1).copied(), &s),
        lse: lse.slice(),
        dy: Packed::new(dy),
    };
    s.each_pair(scratch.slice_mut(), forward_pieces(&s), |batch, kv, scratch| kernel.pair(batch, kv, scratch));
}

impl<T: Float> Forward<'_, T> {
    fn pair(&self, batch: usize, kv: usize, scratch: &mut [T]) {
        let s = &self.s;
        let [kt, dkt, v, dv, q, dq, p, ds, dy] = carve(scratch, forward_pieces(s));
        for (x, kt, v) in [(&self.qkv, &mut *kt, &mut *v), (&self.dqkv, &mut *dkt, &mut *dv)] {
            x.pack(batch, s.key_slot(kv), 0, v);
            transpose(v, s, s.scale, kt);
            x.pack(batch, s.value_slot(kv), 0, v);
        }
        for (head, first) in s.tiles_of(kv, ROWS) {
            self.qkv.pack(batch, head, first, q);
            self.dqkv.pack(batch, head, first, dq);
            let (reach, width) = s.reach(first + ROWS);
            let size = (ROWS, s.dim, width);
            product(size, Left::rows(q, s.lanes), (kt, s.keys), (p, s.keys), false);
            product(size, Left::rows(dq, s.lanes), (kt, s.keys), (ds, s.keys), false);
            product(size, Left::rows(q, s.lanes), (dkt, s.keys), (ds, s.keys), true);
            let sight = Sight { sizes: s, mask: self.mask, batch, head };
            cpu::simd(
                #[inline(always)]
                || {
                    for i in 0..ROWS {
                        let (p, ds) = (&mut p[i * s.keys..][..width], &mut ds[i * s.keys..][..width]);
                        probabilities(p, &sight, first + i, self.lse);
                        turn(p, ds);
                    }
                },
            );
            let size = (ROWS, reach, s.lanes);
            product(size, Left::rows(ds, s.keys), (v, s.lanes), (dy, s.lanes), false);
            product(size, Left::rows(p, s.keys), (dv, s.lanes), (dy, s.lanes), true);
            self.dy.write([batch, head, first], dy, s);
        }
    }
}

/// Ṗ from P and Ṡ, in place of Ṡ.
#[inline(always)]
fn turn<T: Float>(p: &[T], ds: &mut [T]) {
    let mean = dot(p, ds);
    for (ds, p) in ds.iter_mut().zip(p) {
        *ds = *p * (*ds - mean);
    }
}

/// Space for one pair of the backward pass.
fn backward_pieces(s: &Sizes) -> [usize; 17] {
    let (flat, tall) = (s.dim * s.keys, s.keys * s.lanes);
    let (side, scores) = (BLOCK * s.lanes, BLOCK * s.keys);
    let [f, t, r, x] = [flat, tall, side, scores];
    [t, t, f, f, f, f, t, t, r, r, r, r, r, x, x, x, x]
}

/// Operands and result of the backward pass along one direction.
pub(super) struct Direction<'a> {
    pub saved: &'a SavedArrays<'a>,
    pub c: &'a Array,
    pub dqkv: &'a Array,
    pub dc: &'a Array,
}

struct Backward<'a, T> {
    s: Sizes,
    qkv: Heads<'a, T>,
    dqkv: Heads<'a, T>,
    c: Heads<'a, T>,
    dc: Heads<'a, T>,
    mask: Option<Mask<'a>>,
    lse: &'a [T],
    grad: Packed<'a, T>,
}

/// Tangent of the packed gradient.
pub(super) fn backward<T: Float>(op: &Attention, along: &Direction<'_>, grad: &mut Array, scratch: &mut Array) {
    let (saved, s) = (along.saved, Sizes::new(op, along.dqkv.shape()));
    let kernel = Backward {
        s,
        qkv: Heads::<T>::new(saved.input(0)),
        dqkv: Heads::new(along.dqkv),
        c: Heads::new(along.c),
        dc: Heads::new(along.dc),
        mask: Mask::new(saved.inputs.get(1).copied().flatten(), &s),
        lse: saved.residuals[0].slice(),
        grad: Packed::new(grad),
    };
    s.each_pair(scratch.slice_mut(), backward_pieces(&s), |batch, kv, scratch| kernel.pair(batch, kv, scratch));
}

/// What one pair works in; of the gradients only tangents.
struct Space<'a, T> {
    k: [&'a mut [T]; 2],
    kt: [&'a mut [T]; 2],
    vt: [&'a mut [T]; 2],
    grad_k: &'a mut [T],
    grad_v: &'a mut [T],
    q: [&'a mut [T]; 2],
    c: [&'a mut [T]; 2],
    grad_q: &'a mut [T],
    p: [&'a mut [T]; 2],
    g: [&'a mut [T]; 2],
}

impl<T: Float> Backward<'_, T> {
    fn pair(&self, batch: usize, kv: usize, scratch: &mut [T]) {
        let s = &self.s;
        let [k0, k1, kt0, kt1, vt0, vt1, grad_k, grad_v, q0, q1, c0, c1, grad_q, p0, p1, g0, g1] =
            carve(scratch, backward_pieces(s));
        for (x, k, kt, vt) in
            [(&self.qkv, &mut *k0, &mut *kt0, &mut *vt0), (&self.dqkv, &mut *k1, &mut *kt1, &mut *vt1)]
        {
            x.pack(batch, s.key_slot(kv), 0, k);
            transpose(k, s, s.scale, kt);
            x.pack(batch, s.value_slot(kv), 0, grad_v);
            transpose(grad_v, s, 1.0, vt);
        }
        grad_k.fill(T::zero());
        grad_v.fill(T::zero());
        let (k, kt, vt, q, c, p, g) = ([k0, k1], [kt0, kt1], [vt0, vt1], [q0, q1], [c0, c1], [p0, p1], [g0, g1]);
        let mut space = Space { k, kt, vt, grad_k, grad_v, q, c, grad_q, p, g };
        for (head, first) in s.tiles_of(kv, BLOCK) {
            self.block([batch, head, first], &mut space);
        }
        self.grad.write([batch, s.key_slot(kv), 0], space.grad_k, s);
        self.grad.write([batch, s.value_slot(kv), 0], space.grad_v, s);
    }

    fn block(&self, at @ [batch, head, first]: [usize; 3], m: &mut Space<'_, T>) {
        let s = &self.s;
        let rows = BLOCK.min(s.time - first).next_multiple_of(ROWS);
        for (i, (qkv, c)) in [(&self.qkv, &self.c), (&self.dqkv, &self.dc)].into_iter().enumerate() {
            qkv.pack(batch, head, first, &mut m.q[i][..rows * s.lanes]);
            c.pack(batch, head, first, &mut m.c[i][..rows * s.lanes]);
        }
        for top in (0..rows).step_by(ROWS) {
            self.tile(at, top, m);
        }
        self.grad.write(at, &m.grad_q[..rows * s.lanes], s);
        for (key, skip) in s.key_tiles(first, rows) {
            let size = (ROWS, rows - skip, s.lanes);
            let (scores, from, to) = (skip * s.keys + key, skip * s.lanes, key * s.lanes);
            for i in 0..2 {
                let (g, p) = (&m.g[1 - i][scores..], &m.p[1 - i][scores..]);
                let (k, v) = ((&mut m.grad_k[to..], s.lanes), (&mut m.grad_v[to..], s.lanes));
                product(size, Left::transposed(g, s.keys), (&m.q[i][from..], s.lanes), k, true);
                product(size, Left::transposed(p, s.keys), (&m.c[i][from..], s.lanes), v, true);
            }
        }
    }

    /// P, G, their tangents and dQ̇ of queries `top..top + ROWS` of a block.
    fn tile(&self, [batch, head, first]: [usize; 3], top: usize, m: &mut Space<'_, T>) {
        let s = &self.s;
        let (reach, width) = s.reach(first + top + ROWS);
        let (side, scores) = (top * s.lanes, top * s.keys..(top + ROWS) * s.keys);
        let [p, dp] = m.p.each_mut().map(|x| &mut x[scores.clone()]);
        let [g, dg] = m.g.each_mut().map(|x| &mut x[scores.clone()]);
        for (x, right, value, tangent) in [(&m.q, &m.kt, &mut *p, &mut *dp), (&m.c, &m.vt, &mut *g, &mut *dg)] {
            let (size, [x, dx]) = ((ROWS, s.dim, width), x.each_ref().map(|x| Left::rows(&x[side..], s.lanes)));
            product(size, x, (right[0], s.keys), (value, s.keys), false);
            product(size, dx, (right[0], s.keys), (tangent, s.keys), false);
            product(size, x, (right[1], s.keys), (tangent, s.keys), true);
        }
        let sight = Sight { sizes: s, mask: self.mask, batch, head };
        cpu::simd(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let row = i * s.keys..i * s.keys + width;
                    probabilities(&mut p[row.clone()], &sight, first + top + i, self.lse);
                    let rows = [&mut *dp, &mut *g, &mut *dg].map(|x| &mut x[row.clone()]);
                    bend(&p[row.clone()], rows, T::of(s.scale));
                }
            },
        );
        let (size, out) = ((ROWS, reach, s.lanes), &mut m.grad_q[side..]);
        product(size, Left::rows(dg, s.keys), (m.k[0], s.lanes), (out, s.lanes), false);
        product(size, Left::rows(g, s.keys), (m.k[1], s.lanes), (out, s.lanes), true);
    }
}

/// From P, Ṡ, A and Ȧ to Ṗ, G and Ġ, each in the place of its like.
#[inline(always)]
fn bend<T: Float>(p: &[T], [dp, g, dg]: [&mut [T]; 3], scale: T) {
    turn(p, dp);
    let (mean, dmean) = (dot(p, g), dot(dp, g) + dot(p, dg));
    for (((p, dp), g), dg) in p.iter().zip(dp).zip(g).zip(dg) {
        let rest = *g - mean;
        *dg = (*dp * rest + *p * (*dg - dmean)) * scale;
        *g = *p * rest * scale;
    }
}
