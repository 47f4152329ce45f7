//! Operands, read head by head wherever they lie.

use super::sizes::Sizes;
use super::tile::LANES;
use crate::device::{Array, cpu};
use crate::scalar::Float;
use crate::shape::Shape;

/// An operand [batch, time, heads, dim], read head by head.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a, T> {
    data: &'a [T],
    steps: [usize; 4],
    time: usize,
    dim: usize,
}

impl<'a, T: Float> Heads<'a, T> {
    pub fn new(x: &'a Array) -> Self {
        let steps = std::array::from_fn(|axis| x.strides()[axis] as usize);
        Heads { data: x.raw(), steps, time: x.shape()[1], dim: x.shape()[3] }
    }

    /// Times of a head from `first` on, as rows of whole tiles: [count, lanes]. Zeros beyond.
    pub fn pack(&self, batch: usize, head: usize, first: usize, out: &mut [T]) {
        for (i, row) in out.chunks_exact_mut(self.dim.next_multiple_of(LANES)).enumerate() {
            if first + i >= self.time {
                row.fill(T::zero());
                continue;
            }
            let (row, rest) = row.split_at_mut(self.dim);
            rest.fill(T::zero());
            let data = &self.data[batch * self.steps[0] + (first + i) * self.steps[1] + head * self.steps[2]..];
            match self.steps[3] {
                1 => copy(&data[..row.len()], row),
                step => row.iter_mut().enumerate().for_each(|(d, x)| *x = data[d * step]),
            }
        }
    }
}

/// Copies a row. Rows of heads are so short that calls of the library's copy would take as long as what they copy.
#[inline]
pub(super) fn copy<T: Copy>(from: &[T], to: &mut [T]) {
    let (from, from_rest) = from.as_chunks::<LANES>();
    let (to, to_rest) = to.as_chunks_mut::<LANES>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = *from);
}

/// The transpose of packed rows, times `scale`: [keys, lanes] to [dim, keys].
pub(super) fn transpose<T: Float>(rows: &[T], s: &Sizes, scale: f64, out: &mut [T]) {
    cpu::transpose((s.keys, s.dim), (rows, s.lanes), T::of(scale), (out, s.keys));
}

/// Which keys a mask shows, read where it lies.
#[derive(Clone, Copy)]
pub(super) struct Mask<'a> {
    data: &'a [u32],
    steps: [usize; 4],
}

impl<'a> Mask<'a> {
    /// The mask operand, if there is one.
    pub fn new(mask: Option<&'a Array>, sizes: &Sizes) -> Option<Mask<'a>> {
        let full = Shape::new(&[sizes.batch, sizes.heads, sizes.time, sizes.time]);
        mask.map(|mask| {
            let strides = mask.strides().broadcast(mask.shape(), &full);
            Mask { data: mask.raw(), steps: std::array::from_fn(|axis| strides[axis] as usize) }
        })
    }

    /// Gives the scores of hidden keys the value `hidden`.
    #[inline(always)]
    pub fn hide<T: Float>(&self, [batch, head, query]: [usize; 3], scores: &mut [T], hidden: T) {
        let start = batch * self.steps[0] + head * self.steps[1] + query * self.steps[2];
        for (j, score) in scores.iter_mut().enumerate() {
            if self.data[start + j * self.steps[3]] == 0 {
                *score = hidden;
            }
        }
    }
}
