//! The forward kernel: ROWS queries at a time against all keys they see.

use super::Attention;
use super::layout::{Heads, Mask, Shared, Sizes, carve};
use super::row::{Query, Sight, log_sum_exp};
use super::tile::{LANES, Left, ROWS, product};
use crate::device::{Array, cpu};
use crate::ops::Outputs;
use crate::scalar::Float;

/// Scratch of one pair: keys transposed, values, and queries, scores and results of one tile.
fn pieces(s: &Sizes) -> [usize; 5] {
    [s.dim * s.keys, s.keys * s.lanes, ROWS * s.lanes, ROWS * s.keys, ROWS * s.lanes]
}

pub(super) fn scratch(s: &Sizes) -> [usize; 2] {
    s.scratch(pieces(s).iter().sum())
}

pub(super) fn run<T: Float>(op: &Attention, ins: &[&Array], out: Outputs<'_>) {
    let s = Sizes::new(op, ins[0].shape());
    let qkv = Heads::<T>::new(ins[0]);
    let sight = Sight { sizes: s, mask: Mask::new(ins.get(1).copied(), &s) };
    let y = Shared::new(out.y.slice_mut::<T>());
    let lse = out.residuals.first_mut().map(|lse| Shared::new(lse.slice_mut::<T>()));
    let scratch = out.scratch.expect("declared").slice_mut::<T>();
    s.each_pair(scratch, pieces(&s).iter().sum(), |batch, kv, scratch| {
        let [keys, values, queries, scores, result] = carve(scratch, pieces(&s));
        qkv.pack_transposed(batch, s.heads + kv, s.scale, keys);
        qkv.pack(batch, s.heads + s.kv_heads + kv, 0, 1.0, values);
        for head in s.queries_of(kv) {
            for first in (0..s.time).step_by(ROWS) {
                qkv.pack(batch, head, first, 1.0, queries);
                let reach = s.reach(first + ROWS);
                let width = reach.next_multiple_of(LANES);
                product((ROWS, s.dim, width), Left::rows(queries, s.lanes), (keys, s.keys), (scores, width), false);
                let rows = scores.chunks_exact_mut(width).take(ROWS).enumerate();
                let mut sums = [(T::zero(), T::zero()); ROWS];
                cpu::simd(
                    #[inline(always)]
                    || {
                        for (i, row) in rows {
                            sums[i] = sight.exponentials(Query { batch, head, index: first + i }, row);
                        }
                    },
                );
                product((ROWS, reach, s.lanes), Left::rows(scores, width), (values, s.lanes), (result, s.lanes), false);
                for (i, (sum, largest)) in sums.into_iter().enumerate().take(s.time - first) {
                    let t = first + i;
                    let share = if sum > T::zero() { T::one() / sum } else { sum };
                    // SAFETY: one task computes one query of one head.
                    unsafe {
                        let y = y.part(((batch * s.time + t) * s.heads + head) * s.dim, s.dim);
                        for (y, x) in y.iter_mut().zip(&result[i * s.lanes..]) {
                            *y = *x * share;
                        }
                        if let Some(lse) = &lse {
                            lse.part((batch * s.heads + head) * s.time + t, 1)[0] = log_sum_exp(sum, largest);
                        }
                    }
                }
            }
        }
    });
}
