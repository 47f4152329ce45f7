//! Splitting work over threads. Pieces depend on shapes alone, never on the number of threads, and partial sums are
//! added in a fixed order: so results have the same bits for any number of threads.

use crate::scalar::Float;
use rayon::prelude::*;

/// Elements that make a piece worth a task of its own.
const PIECE: usize = 16 * 1024;

/// Rows in a piece when each row costs about as much as `cost` elements.
fn rows_per_piece(cost: usize) -> usize {
    (PIECE / cost.max(1)).max(1)
}

/// Calls `f(index, piece)` for pieces of `out`, in parallel. `size` must be the same for any number of threads.
pub fn blocks_into<T: Send>(out: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if out.len() <= size {
        if !out.is_empty() {
            f(0, out);
        }
        return;
    }
    out.par_chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
}

/// Calls `f(first_row, rows)` for groups of rows of `out`, each `width` long, in parallel.
pub fn rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if width == 0 {
        return;
    }
    let group = rows_per_piece(width);
    blocks_into(out, group * width, |i, piece| f(i * group, piece));
}

/// Calls `f(start, end)` for ranges that cover `0..count`, in parallel, each item costing about `cost` elements.
pub fn blocks(count: usize, cost: usize, f: impl Fn(usize, usize) + Sync + Send) {
    let group = rows_per_piece(cost);
    if count <= group {
        return f(0, count);
    }
    (0..count.div_ceil(group)).into_par_iter().for_each(|i| f(i * group, ((i + 1) * group).min(count)));
}

/// Rows that share one partial sum in [`sum_rows`].
const SUMMED: usize = 64;

/// `out[j] = Σᵢ f(i)[j]` over `count` rows, where `add(first, last, partial)` adds rows `first..last` to `partial`.
pub fn sum_rows<T: Float>(count: usize, out: &mut [T], add: impl Fn(usize, usize, &mut [T]) + Sync + Send) {
    let width = out.len();
    out.fill(T::zero());
    if count <= SUMMED || width == 0 {
        return add(0, count, out);
    }
    // At most 32 partial sums, so that their number stays small beside the rows themselves.
    let group = count.div_ceil(32).max(SUMMED);
    let pieces = count.div_ceil(group);
    let mut partial = vec![T::zero(); pieces * width];
    blocks_into(&mut partial, width, |i, sum| add(i * group, ((i + 1) * group).min(count), sum));
    for sum in partial.chunks(width) {
        for (o, s) in out.iter_mut().zip(sum) {
            *o += *s;
        }
    }
}

/// Calls `f` on pieces of three slices of one length at the same places, in parallel, compiled for SIMD.
pub fn rows3<T: Send>(slices: [&mut [T]; 3], f: impl Fn([&mut [T]; 3]) + Sync + Send) {
    let [a, b, c] = slices;
    let pieces = a.par_chunks_mut(PIECE).zip(b.par_chunks_mut(PIECE)).zip(c.par_chunks_mut(PIECE));
    pieces.for_each(|((a, b), c)| {
        super::simd(
            #[inline(always)]
            || f([a, b, c]),
        )
    });
}
