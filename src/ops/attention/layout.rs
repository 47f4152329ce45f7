//! Sizes, where heads lie, which keys a query sees, and how the work is split.

use super::Attention;
use super::tile::LANES;
use crate::device::{Array, cpu};
use crate::scalar::Float;
use crate::shape::Shape;
use std::marker::PhantomData;

/// Groups of (batch, key head) pairs; the pairs of a group follow each other in one piece of scratch.
const GROUPS: usize = 32;

/// Sizes of one attention.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub batch: usize,
    pub time: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    /// `time` in whole tiles.
    pub keys: usize,
    /// `dim` in whole tiles.
    pub lanes: usize,
    pub causal: bool,
    pub scale: f64,
}

impl Sizes {
    pub fn new(op: &Attention, qkv: &Shape) -> Sizes {
        let (time, dim) = (qkv[1], qkv[3]);
        Sizes {
            batch: qkv[0],
            time,
            heads: op.heads,
            kv_heads: op.kv_heads,
            dim,
            keys: time.next_multiple_of(LANES),
            lanes: dim.next_multiple_of(LANES),
            causal: op.causal,
            scale: op.scale_for(dim),
        }
    }

    /// Query heads of key head `kv`.
    pub fn queries_of(&self, kv: usize) -> std::ops::Range<usize> {
        let group = self.heads / self.kv_heads;
        kv * group..(kv + 1) * group
    }

    /// How many keys query `i` sees, masks aside.
    #[inline(always)]
    pub fn visible(&self, i: usize) -> usize {
        match (i < self.time, self.causal) {
            (false, _) => 0,
            (true, true) => i + 1,
            (true, false) => self.time,
        }
    }

    /// How many keys the queries before `end` see between them.
    pub fn reach(&self, end: usize) -> usize {
        if self.causal { end.min(self.time) } else { self.time }
    }

    fn groups(&self) -> usize {
        (self.batch * self.kv_heads).min(GROUPS)
    }

    /// Scratch of a kernel that wants `each` elements at a time.
    pub fn scratch(&self, each: usize) -> [usize; 2] {
        [self.groups(), each]
    }

    /// Calls `f(batch, key head, scratch)` for every pair, in parallel; which pairs share scratch depends on the
    /// sizes alone.
    pub fn each_pair<T: Float>(
        &self,
        scratch: &mut [T],
        each: usize,
        f: impl Fn(usize, usize, &mut [T]) + Sync + Send,
    ) {
        let (pairs, groups) = (self.batch * self.kv_heads, self.groups());
        cpu::blocks_into(scratch, each, |group, scratch| {
            for pair in group * pairs / groups..(group + 1) * pairs / groups {
                f(pair / self.kv_heads, pair % self.kv_heads, scratch);
            }
        });
    }
}

/// Cuts scratch into pieces.
pub(super) fn carve<T, const N: usize>(mut scratch: &mut [T], sizes: [usize; N]) -> [&mut [T]; N] {
    sizes.map(|size| {
        let (piece, rest) = std::mem::take(&mut scratch).split_at_mut(size);
        scratch = rest;
        piece
    })
}

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

    /// Times `first..first + count` of a head, times `scale`, as rows of whole tiles: [count, lanes]. Zeros beyond.
    pub fn pack(&self, batch: usize, head: usize, first: usize, scale: f64, out: &mut [T]) {
        let (lanes, scale) = (self.dim.next_multiple_of(LANES), T::of(scale));
        for (i, row) in out.chunks_exact_mut(lanes).enumerate() {
            if first + i >= self.time {
                row.fill(T::zero());
                continue;
            }
            let (row, rest) = row.split_at_mut(self.dim);
            rest.fill(T::zero());
            let start = batch * self.steps[0] + (first + i) * self.steps[1] + head * self.steps[2];
            for (d, x) in row.iter_mut().enumerate() {
                *x = self.data[start + d * self.steps[3]] * scale;
            }
        }
    }

    /// All times of a head, times `scale`, transposed: [dim, keys]. Zeros beyond.
    pub fn pack_transposed(&self, batch: usize, head: usize, scale: f64, out: &mut [T]) {
        let (keys, scale) = (self.time.next_multiple_of(LANES), T::of(scale));
        for (d, row) in out.chunks_exact_mut(keys).enumerate() {
            let start = batch * self.steps[0] + head * self.steps[2] + d * self.steps[3];
            let (row, rest) = row.split_at_mut(self.time);
            rest.fill(T::zero());
            for (t, x) in row.iter_mut().enumerate() {
                *x = self.data[start + t * self.steps[1]] * scale;
            }
        }
    }
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

/// An array that tasks write at the same time, each its own elements.
pub(super) struct Shared<'a, T> {
    data: *mut T,
    count: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` gives access only through `part`, whose callers keep parts disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Shared { data: data.as_mut_ptr(), count: data.len(), lives: PhantomData }
    }

    /// Elements `start..start + count`.
    ///
    /// # Safety
    /// No two parts that live at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, count: usize) -> &mut [T] {
        assert!(start + count <= self.count, "a part lies inside its array");
        // SAFETY: inside the array, which is borrowed for `'a`; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), count) }
    }
}
