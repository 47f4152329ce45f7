//! The forward kernel: a tile of queries at a time against all keys that they see.

use super::Attention;
use super::operand::{Heads, Mask, transpose};
use super::result::Shared;
use super::row::{Sight, exponentials, log_sum_exp};
use super::sizes::{Sizes, carve};
use super::tile::{Left, ROWS, product};
use crate::device::{Array, cpu};
use crate::ops::Outputs;
use crate::scalar::Float;

/// Scratch of one pair: keys transposed and values; queries, scores and results of one tile.
fn pieces(s: &Sizes) -> [usize; 5] {
    [s.dim * s.keys, s.keys * s.lanes, ROWS * s.lanes, ROWS * s.keys, ROWS * s.lanes]
}

pub(super) fn scratch(s: &Sizes) -> [usize; 2] {
    s.scratch(pieces(s))
}

/// Operands and results.
struct Forward<'a, T> {
    s: Sizes,
    qkv: Heads<'a, T>,
    mask: Option<Mask<'a>>,
    y: Shared<'a, T>,
    lse: Option<Shared<'a, T>>,
}

pub(super) fn run<T: Float>(op: &Attention, ins: &[&Array], out: Outputs<'_>) {
    let s = Sizes::new(op, ins[0].shape());
    let kernel = Forward {
        s,
        qkv: Heads::new(ins[0]),
        mask: Mask::new(ins.get(1).copied(), &s),
        y: Shared::new(out.y.slice_mut::<T>()),
        lse: out.residuals.first_mut().map(|lse| Shared::new(lse.slice_mut::<T>())),
    };
    let scratch = out.scratch.expect("declared by the op").slice_mut::<T>();
    s.each_pair(scratch, pieces(&s), |batch, kv, scratch| kernel.pair(batch, kv, scratch));
}

impl<T: Float> Forward<'_, T> {
    fn pair(&self, batch: usize, kv: usize, scratch: &mut [T]) {
        let s = &self.s;
        let [keys, values, queries, scores, result] = carve(scratch, pieces(s));
        self.qkv.pack(batch, s.key_slot(kv), 0, values);
        transpose(values, s, s.scale, keys);
        self.qkv.pack(batch, s.value_slot(kv), 0, values);
        for (head, first) in s.tiles_of(kv, ROWS) {
            self.qkv.pack(batch, head, first, queries);
            let (reach, width) = s.reach(first + ROWS);
            product((ROWS, s.dim, width), Left::rows(queries, s.lanes), (keys, s.keys), (scores, width), false);
            let sight = Sight { sizes: s, mask: self.mask, batch, head };
            let mut sums = [(T::zero(), T::zero()); ROWS];
            cpu::simd(
                #[inline(always)]
                || {
                    for (i, row) in scores.chunks_exact_mut(width).take(ROWS).enumerate() {
                        sums[i] = exponentials(row, &sight, first + i);
                    }
                },
            );
            product((ROWS, reach, s.lanes), Left::rows(scores, width), (values, s.lanes), (result, s.lanes), false);
            self.write([batch, head, first], result, &sums);
        }
    }

    /// Divides a tile's rows by their sums.
    fn write(&self, [batch, head, first]: [usize; 3], result: &[T], sums: &[(T, T)]) {
        let s = &self.s;
        for (i, &(sum, largest)) in sums.iter().enumerate().take(s.time - first) {
            let (t, share) = (first + i, if sum == T::zero() { sum } else { T::one() / sum });
            // SAFETY: one task computes one query of one head.
            let y = unsafe { self.y.part(((batch * s.time + t) * s.heads + head) * s.dim, s.dim) };
            for (y, x) in y.iter_mut().zip(&result[i * s.lanes..]) {
                *y = *x * share;
            }
            if let Some(lse) = &self.lse {
                // SAFETY: as above.
                unsafe { lse.part((batch * s.heads + head) * s.time + t, 1)[0] = log_sum_exp(sum, largest) };
            }
        }
    }
}
