//! The order in which examples are seen: a function of (seed, epoch), never of what was drawn before.

use crate::rng::{Seed, Stream};
use rand::Rng;
use std::sync::{Arc, Mutex};

/// Batches whose lengths are sorted together. More of them waste less on filling up, and make an epoch less random.
const CHUNK: usize = 16;

/// The numbers `0..count` shuffled (Fisher and Yates; Durstenfeld, "Algorithm 235", 1964).
pub fn permutation(count: usize, seed: Seed) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    shuffle(&mut order, seed);
    order
}

fn shuffle<T>(items: &mut [T], seed: Seed) {
    let mut stream = seed.stream();
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1, &mut stream));
    }
}

/// A number below `end`: the high word of a product, uniform to within 2⁻⁶⁴ of `end`.
pub(super) fn below(end: usize, stream: &mut Stream) -> usize {
    ((stream.next_u64() as u128 * end as u128) >> 64) as usize
}

/// Which examples go into which batch, so that those of a batch are about equally long. In every epoch each example is in
/// one batch: all are shuffled, sorted by length within chunks of 16 batches, cut into batches, and these shuffled. One
/// batch of an epoch is smaller where the number of examples is no multiple of the rows.
#[derive(Debug)]
pub struct Buckets {
    lengths: Vec<usize>,
    rows: usize,
    recent: Recent<Vec<Vec<u32>>>,
}

impl Buckets {
    /// For examples of these lengths, `rows` of them in a batch. Panics if there are none of either.
    #[track_caller]
    pub fn new(lengths: Vec<usize>, rows: usize) -> Buckets {
        assert!(!lengths.is_empty() && rows > 0, "{} examples in batches of {rows}", lengths.len());
        Buckets { lengths, rows, recent: Recent::default() }
    }

    /// Batches in an epoch.
    pub fn per_epoch(&self) -> u64 {
        self.lengths.len().div_ceil(self.rows) as u64
    }

    /// The greatest length.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// The examples of micro-batch `index`, counted through all epochs.
    pub fn batch(&self, seed: Seed, index: u64) -> Vec<u32> {
        let (epoch, within) = (index / self.per_epoch(), index % self.per_epoch());
        let batches = self.recent.get(seed.fold(epoch), |seed| self.epoch(seed));
        batches[within as usize].clone()
    }

    fn epoch(&self, seed: Seed) -> Vec<Vec<u32>> {
        let mut order = permutation(self.lengths.len(), seed.named("examples"));
        for chunk in order.chunks_mut(CHUNK.saturating_mul(self.rows)) {
            chunk.sort_by_key(|&example| self.lengths[example as usize]);
        }
        let mut batches: Vec<Vec<u32>> = order.chunks(self.rows).map(<[u32]>::to_vec).collect();
        shuffle(&mut batches, seed.named("batches"));
        batches
    }
}

/// The last result of a pure function of a seed: it saves time and changes nothing.
#[derive(Debug)]
pub struct Recent<T>(Mutex<Option<(Seed, Arc<T>)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent(Mutex::new(None))
    }
}

impl<T> Recent<T> {
    /// The function's value, computed anew if the seed is another one.
    pub fn get(&self, seed: Seed, compute: impl FnOnce(Seed) -> T) -> Arc<T> {
        // A panic while it was held leaves a whole value or none.
        let mut recent = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*recent {
            Some((known, value)) if *known == seed => value.clone(),
            _ => {
                let value = Arc::new(compute(seed));
                *recent = Some((seed, value.clone()));
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_even() {
        let mut seen = std::collections::BTreeMap::new();
        for n in 0..6000 {
            *seen.entry(permutation(3, Seed(3).fold(n))).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        // 1000 each, within five standard deviations of 29.
        assert!(seen.values().all(|&count| (855..=1145).contains(&count)), "{seen:?}");
    }

    #[test]
    fn batches_are_of_similar_length_and_in_any_order() {
        let lengths: Vec<usize> = (0..1000).map(|n| n * 7919 % 500).collect();
        let buckets = Buckets::new(lengths.clone(), 8);
        let spread = |index| {
            let batch = buckets.batch(Seed(1), index);
            let lengths = batch.iter().map(|&example| lengths[example as usize]);
            lengths.clone().max().unwrap() - lengths.min().unwrap()
        };
        let mean = (0..125).map(spread).sum::<usize>() as f64 / 125.0;
        assert!(mean < 60.0, "mean spread {mean}: no better than chance, which would be about 390");
        let longest: Vec<usize> = (0..125).map(|i| lengths[buckets.batch(Seed(1), i)[0] as usize]).collect();
        assert!(!longest.is_sorted(), "batches come sorted by length");
    }
}
