//! Splitting work over threads. Pieces depend on shapes alone, never on the number of threads, and partial sums are
//! added in a fixed order: so results have the same bits for any number of threads.

use crate::scalar::Float;
use rayon::prelude::*;

/// Elements that make a piece worth a task of its own.
const PIECE: usize = 16 * 1024;

/// Rows in a piece when each row costs about as much as `cost` elements.
pub fn rows_per_piece(cost: usize) -> usize {
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

/// Calls `f` for every piece, in parallel.
pub fn each<P: Send>(pieces: Vec<P>, f: impl Fn(P) + Sync + Send) {
    if pieces.len() > 1 {
        return pieces.into_par_iter().for_each(f);
    }
    pieces.into_iter().for_each(f);
}

/// Calls `f(first_row, rows)` for groups of rows of `out`, each `width` long, in parallel.
pub fn rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if width == 0 {
        return;
    }
    let group = rows_per_piece(width);
    blocks_into(out, group * width, |i, piece| f(i * group, piece));
}

/// Calls `f(piece, parts)` for `0..pieces`, in parallel, with part `piece` of every slice in `outs`. A slice comes with
/// the elements of a part; the last part takes what is left, and an absent output is an empty slice.
pub fn split<const N: usize, T: Send>(
    pieces: usize,
    outs: [(&mut [T], usize); N],
    f: impl Fn(usize, [&mut [T]; N]) + Sync,
) {
    if pieces > 0 {
        halve(0, pieces, outs, &f);
    }
}

fn halve<const N: usize, T: Send>(
    first: usize,
    pieces: usize,
    mut outs: [(&mut [T], usize); N],
    f: &(impl Fn(usize, [&mut [T]; N]) + Sync),
) {
    if pieces == 1 {
        return f(first, outs.map(|(out, _)| out));
    }
    let half = pieces / 2;
    let left: [(&mut [T], usize); N] = std::array::from_fn(|k| {
        let (out, size) = &mut outs[k];
        let whole = std::mem::take(out);
        let (left, right) = whole.split_at_mut((half * *size).min(whole.len()));
        *out = right;
        (left, *size)
    });
    rayon::join(|| halve(first, half, left, f), || halve(first + half, pieces - half, outs, f));
}

/// Fewest rows that share one partial sum in [`sum_rows`].
const SUMMED: usize = 64;

/// Rows that share one partial sum: at most 32 sums, so that their number stays small beside the rows themselves.
pub fn summed_rows(count: usize) -> usize {
    count.div_ceil(32).max(SUMMED)
}

/// `out[j] = Σᵢ f(i)[j]` over `count` rows, where `add(first, last, partial)` adds rows `first..last` to `partial`.
pub fn sum_rows<T: Float>(count: usize, out: &mut [T], add: impl Fn(usize, usize, &mut [T]) + Sync + Send) {
    let width = out.len();
    out.fill(T::zero());
    if count <= SUMMED || width == 0 {
        return add(0, count, out);
    }
    let group = summed_rows(count);
    let pieces = count.div_ceil(group);
    let mut partial = vec![T::zero(); pieces * width];
    blocks_into(&mut partial, width, |i, sum| add(i * group, ((i + 1) * group).min(count), sum));
    for sum in partial.chunks(width) {
        for (o, s) in out.iter_mut().zip(sum) {
            *o += *s;
        }
    }
}
