//! The backward kernel: blocks of queries, their probabilities recomputed from the log-sum-exp.
//!
//! With scores S = scale Q Kᵀ, probabilities P and cotangent C of the result: A = C Vᵀ, G = scale P ∘ (A − rowsum P ∘ A),
//! dQ = G K, dK = Gᵀ Q, dV = Pᵀ C.

use super::Attention;
use super::layout::{Heads, Mask, Shared, Sizes, carve};
use super::row::{Query, Sight, dot};
use super::tile::{LANES, Left, ROWS, product};
use crate::autograd::SavedArrays;
use crate::device::{Array, cpu};
use crate::scalar::Float;

/// Queries of a block.
pub(super) const BLOCK: usize = 32;

/// Scratch of one pair: keys row by row and transposed, values transposed, gradients of both; of one block queries,
/// cotangents, gradients of queries, P and G.
fn pieces(s: &Sizes) -> [usize; 10] {
    let (flat, tall) = (s.dim * s.keys, s.keys * s.lanes);
    let (side, scores) = (BLOCK * s.lanes, BLOCK * s.keys);
    [tall, flat, flat, tall, tall, side, side, side, scores, scores]
}

pub(super) fn scratch(s: &Sizes) -> [usize; 2] {
    s.scratch(pieces(s).iter().sum())
}

pub(super) fn run<T: Float>(op: &Attention, saved: &SavedArrays<'_>, c: &Array, grad: &mut Array, scratch: &mut Array) {
    let s = Sizes::new(op, saved.input(0).shape());
    let (qkv, c) = (Heads::<T>::new(saved.input(0)), Heads::<T>::new(c));
    let sight = Sight { sizes: s, mask: Mask::new(saved.inputs.get(1).copied().flatten(), &s) };
    let lse = saved.residuals[0].slice::<T>();
    let grad = Shared::new(grad.slice_mut::<T>());
    let slots = s.heads + 2 * s.kv_heads;
    let scale = T::of(s.scale);
    s.each_pair(scratch.slice_mut::<T>(), pieces(&s).iter().sum(), |batch, kv, scratch| {
        let [k, kt, vt, dk, dv, q, cs, dq, p, g] = carve(scratch, pieces(&s));
        qkv.pack(batch, s.heads + kv, 0, 1.0, k);
        qkv.pack_transposed(batch, s.heads + kv, s.scale, kt);
        qkv.pack_transposed(batch, s.heads + s.kv_heads + kv, 1.0, vt);
        dk.fill(T::zero());
        dv.fill(T::zero());
        let write = |head: usize, first: usize, count: usize, from: &[T]| {
            for i in 0..count.min(s.time - first) {
                // SAFETY: one task computes one query of one head, and one (batch, key head).
                let row = unsafe { grad.part(((batch * s.time + first + i) * slots + head) * s.dim, s.dim) };
                row.copy_from_slice(&from[i * s.lanes..][..s.dim]);
            }
        };
        for head in s.queries_of(kv) {
            let lse = &lse[(batch * s.heads + head) * s.time..][..s.time];
            for first in (0..s.time).step_by(BLOCK) {
                let rows = BLOCK.min(s.time - first).next_multiple_of(ROWS);
                qkv.pack(batch, head, first, 1.0, &mut q[..rows * s.lanes]);
                c.pack(batch, head, first, 1.0, &mut cs[..rows * s.lanes]);
                for top in (0..rows).step_by(ROWS) {
                    let reach = s.reach(first + top + ROWS);
                    let width = reach.next_multiple_of(LANES);
                    let p = &mut p[top * s.keys..(top + ROWS) * s.keys];
                    let g = &mut g[top * s.keys..(top + ROWS) * s.keys];
                    let at = top * s.lanes;
                    product((ROWS, s.dim, width), Left::rows(&q[at..], s.lanes), (kt, s.keys), (p, s.keys), false);
                    product((ROWS, s.dim, width), Left::rows(&cs[at..], s.lanes), (vt, s.keys), (g, s.keys), false);
                    let rows = p.chunks_exact_mut(s.keys).zip(g.chunks_exact_mut(s.keys)).enumerate();
                    cpu::simd(
                        #[inline(always)]
                        || {
                            for (i, (p, g)) in rows {
                                let (p, g) = (&mut p[..width], &mut g[..width]);
                                let index = first + top + i;
                                let lse = if index < s.time { lse[index] } else { T::zero() };
                                sight.probabilities(Query { batch, head, index }, p, lse);
                                let d = dot(p, g);
                                for (g, p) in g.iter_mut().zip(&*p) {
                                    *g = *p * (*g - d) * scale;
                                }
                            }
                        },
                    );
                    let out = (&mut dq[at..], s.lanes);
                    product((ROWS, reach, s.lanes), Left::rows(g, s.keys), (k, s.lanes), out, false);
                }
                write(head, first, rows, dq);
                // Queries before a key tile do not see it.
                for key in (0..s.reach(first + rows)).step_by(ROWS) {
                    let skip = if s.causal { key.saturating_sub(first) } else { 0 };
                    let at = skip * s.keys + key;
                    let size = (ROWS, rows - skip, s.lanes);
                    let (from, to) = (skip * s.lanes, key * s.lanes);
                    let (dk, dv) = ((&mut dk[to..], s.lanes), (&mut dv[to..], s.lanes));
                    product(size, Left::transposed(&g[at..], s.keys), (&q[from..], s.lanes), dk, true);
                    product(size, Left::transposed(&p[at..], s.keys), (&cs[from..], s.lanes), dv, true);
                }
            }
        }
        write(s.heads + kv, 0, s.time, dk);
        write(s.heads + s.kv_heads + kv, 0, s.time, dv);
    });
}
