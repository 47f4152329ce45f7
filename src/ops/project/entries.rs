//! Entries of random projections on the host, `shaders/entries.wgsl` in Rust.

use super::normal::normal;
use super::walsh::{Order, parities};
use super::{Entries, Project};
use crate::device::cpu;
use crate::rng::Seed;
use crate::scalar::Float;
use std::hint::black_box;
use std::ops::Range;

/// Blocks of words that are drawn together, and words that are read together.
const BLOCKS: usize = 16;
const WORDS: usize = 4 * BLOCKS;
/// Entries that are worth a task of their own.
const SIGNS: usize = 1 << 17;
const NORMALS: usize = 1 << 13;

/// Words of a seed's array, as they were drawn last.
struct Words {
    seed: Seed,
    held: Range<u64>,
    /// One more, for those that begin inside a block.
    blocks: [[u32; 4]; BLOCKS + 1],
}

impl Words {
    fn new(seed: Seed) -> Words {
        Words { seed, held: 0..0, blocks: [[0; 4]; BLOCKS + 1] }
    }

    /// Those from `first` on, at least `count` of them, which is at most [`WORDS`].
    #[inline(always)]
    fn read(&mut self, first: u64, count: usize) -> &[u32] {
        if first < self.held.start || first + count as u64 > self.held.end {
            let block = first / 4;
            self.blocks[..BLOCKS].copy_from_slice(&blocks(self.seed, block));
            self.blocks[BLOCKS] = self.seed.block(block + BLOCKS as u64);
            self.held = 4 * block..4 * (block + BLOCKS as u64 + 1);
        }
        &self.blocks.as_flattened()[(first - self.held.start) as usize..]
    }
}

/// A power of two of blocks, by a loop that is vectorised.
#[inline(always)]
fn blocks(seed: Seed, first: u64) -> [[u32; 4]; BLOCKS] {
    let mut blocks = [[0; 4]; BLOCKS];
    for (number, words) in (first..).zip(&mut blocks) {
        *words = seed.block(number);
    }
    blocks
}

impl Project {
    /// Factor on signs, or on what [`normal`] makes, whose variance is 1/2: a number of single precision on every device.
    pub(super) fn scale(&self) -> f32 {
        let rank = self.random.rank as f64;
        let square = match self.random.entries {
            Entries::Signs => 1.0,
            Entries::Rademacher | Entries::Walsh => 1.0 / rank,
            Entries::Gaussian => 2.0 / rank,
        };
        square.sqrt() as f32
    }

    /// Draws these columns of P, row by row.
    pub(super) fn draw<T: Float>(&self, columns: Range<usize>, out: &mut [T]) {
        let task = match self.random.entries {
            Entries::Rademacher | Entries::Walsh | Entries::Signs => SIGNS,
            Entries::Gaussian => NORMALS,
        };
        let (width, rows) = (columns.len(), (task / columns.len()).max(1));
        let order = self.order();
        cpu::blocks_into(out, rows * width, |task, out| {
            let mut words = Words::new(self.random.seed);
            for (i, row) in (task * rows..).zip(out.chunks_exact_mut(width)) {
                cpu::simd(
                    #[inline(always)]
                    || match self.random.entries {
                        Entries::Gaussian => self.normals(i, columns.start, &mut words, row),
                        _ => self.signs(i, order, columns.start, &mut words, row),
                    },
                );
            }
        });
    }

    /// Row `i` from column `first` on, a multiple of 32.
    #[inline(always)]
    fn signs<T: Float>(&self, i: usize, order: Order, first: usize, words: &mut Words, row: &mut [T]) {
        let values = [self.scale(), -self.scale()].map(|x| T::of(x.into()));
        let (group, function) = (i / order.group, order.function(i % order.group));
        let start = group as u64 * self.size.div_ceil(32) as u64;
        for (at, row) in (first as u64 / 32..).step_by(WORDS).zip(row.chunks_mut(32 * WORDS)) {
            let words = words.read(start + at, row.len().div_ceil(32));
            for ((row, word), at) in row.chunks_mut(32).zip(words).zip(at as u32..) {
                let all = choose(*word ^ parities(function, at), values);
                match row.as_mut_array() {
                    Some(row) => *row = all,
                    None => row.copy_from_slice(&all[..row.len()]),
                }
            }
        }
    }

    /// Row `i` from column `first` on.
    #[inline(always)]
    fn normals<T: Float>(&self, i: usize, first: usize, words: &mut Words, row: &mut [T]) {
        let (start, scale) = (i as u64 * self.size as u64 + first as u64, self.scale());
        for (at, row) in (start..).step_by(WORDS).zip(row.chunks_mut(WORDS)) {
            let words: &[u32; WORDS] = words.read(at, WORDS).first_chunk().expect("as many as asked for");
            let mut all = [T::zero(); WORDS];
            for (x, word) in all.iter_mut().zip(words) {
                *x = T::of((normal(*word) * scale).into());
            }
            row.copy_from_slice(&all[..row.len()]);
        }
    }
}

/// The second of two values where a bit is set, the lowest bit first.
#[inline(always)]
fn choose<T: Float>(word: u32, [clear, set]: [T; 2]) -> [T; 32] {
    // Else a loop over words is vectorised instead of this one, and scatters.
    let word = black_box(word);
    let mut all = [clear; 32];
    for (bit, x) in all.iter_mut().enumerate() {
        *x = if word & 1 << bit != 0 { set } else { clear };
    }
    all
}
