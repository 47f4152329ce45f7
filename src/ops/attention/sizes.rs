//! Sizes, which keys a query sees, and how the work is split.

use super::Attention;
use super::tile::{LANES, ROWS};
use crate::device::cpu;
use crate::scalar::Float;
use crate::shape::Shape;

/// Elements of scratch beyond which fewer pairs run at the same time.
const SCRATCH: usize = 1 << 22;

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

    /// Where key head `kv` lies in the packed operand.
    pub fn key_slot(&self, kv: usize) -> usize {
        self.heads + kv
    }

    /// Where value head `kv` lies in the packed operand.
    pub fn value_slot(&self, kv: usize) -> usize {
        self.heads + self.kv_heads + kv
    }

    /// (query head, first query) for all blocks of `step` queries that use key head `kv`.
    pub fn tiles_of(&self, kv: usize, step: usize) -> impl Iterator<Item = (usize, usize)> {
        let (group, time) = (self.heads / self.kv_heads, self.time);
        (kv * group..(kv + 1) * group).flat_map(move |head| (0..time).step_by(step).map(move |first| (head, first)))
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

    /// How many keys the queries before `end` see between them, and the same in whole tiles.
    pub fn reach(&self, end: usize) -> (usize, usize) {
        let reach = if self.causal { end.min(self.time) } else { self.time };
        (reach, reach.next_multiple_of(LANES))
    }

    /// Tiles of keys that `rows` queries from `first` on see, each with how many of these queries come before it and
    /// do not see it.
    pub fn key_tiles(&self, first: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
        let causal = self.causal;
        let skip = move |key: usize| if causal { key.saturating_sub(first) } else { 0 };
        (0..self.reach(first + rows).0).step_by(ROWS).map(move |key| (key, skip(key)))
    }

    /// How many pieces of scratch, `each` elements long, the pairs share: enough for many threads, while scratch stays
    /// small beside the operands.
    fn groups(&self, each: usize) -> usize {
        let affordable = SCRATCH / each.max(1);
        (self.batch * self.kv_heads).min(affordable.clamp(8, 32))
    }

    /// Scratch of a kernel that wants these pieces for each pair.
    pub fn scratch<const N: usize>(&self, pieces: [usize; N]) -> [usize; 2] {
        let each = pieces.iter().sum();
        [self.groups(each), each]
    }

    /// Calls `f(batch, key head, scratch)` for every pair, in parallel; which pairs share scratch depends on the
    /// sizes alone.
    pub fn each_pair<T: Float, const N: usize>(
        &self,
        scratch: &mut [T],
        pieces: [usize; N],
        f: impl Fn(usize, usize, &mut [T]) + Sync + Send,
    ) {
        let each = pieces.iter().sum();
        let (pairs, groups) = (self.batch * self.kv_heads, self.groups(each));
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
