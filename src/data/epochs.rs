//! Examples as batches: micro-batch `index` is a function of (seed, index), so a run goes on where it was.

use super::order::{Recent, permutation};
use super::{Batch, Buckets, Example, IGNORED};
use crate::rng::Seed;

/// Batches are filled up to a multiple of this many tokens, so that a run has few shapes.
pub(super) const WIDTH: usize = 32;

/// How examples are laid out in the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One example in a row, filled up to a multiple of 32 with tokens whose targets do not count; batches of examples
    /// of similar length, see [`Buckets`].
    Padded,
    /// All examples of an epoch one after the other, in rows of exactly `max_length` tokens with nothing between them
    /// (an example ends in its EOS, of which the next example's first token is not a target). Attention crosses from one
    /// example into the next, and an example may be cut by the end of a row. Only the last row is filled up.
    Packed,
}

/// The examples of a part of a data set, as batches for training and validation.
#[derive(Debug)]
pub struct Batches {
    examples: Vec<Example>,
    rows: usize,
    max_length: usize,
    layout: Layout,
    buckets: Buckets,
    recent: Recent<Line>,
}

/// Examples in an order, and at which token of all each starts.
#[derive(Debug)]
struct Line {
    order: Vec<u32>,
    starts: Vec<usize>,
}

impl Batches {
    /// Batches of `rows` rows of at most `max_length` tokens. Panics without examples or rows, or if an example has
    /// fewer than two tokens or more than `max_length`.
    #[track_caller]
    pub fn new(examples: Vec<Example>, rows: usize, max_length: usize, layout: Layout) -> Batches {
        let fits = |example: &Example| (2..=max_length).contains(&example.ids.len());
        assert!(examples.iter().all(fits), "an example does not have 2 to {max_length} tokens");
        let buckets = Buckets::new(examples.iter().map(|example| example.ids.len() - 1).collect(), rows);
        Batches { examples, rows, max_length, layout, buckets, recent: Recent::default() }
    }

    /// The examples, in the order of the file.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Targets that count in an epoch, in either layout.
    pub fn counted(&self) -> usize {
        self.examples.iter().map(Example::counted).sum()
    }

    /// Micro-batches in an epoch. Each example is in an epoch once.
    pub fn batches_per_epoch(&self) -> u64 {
        match self.layout {
            Layout::Padded => self.buckets.per_epoch(),
            Layout::Packed => self.packed_rows().div_ceil(self.rows) as u64,
        }
    }

    /// Rows and tokens in a row of the largest batch that there would be with at most `rows` rows in each.
    pub fn largest(&self, rows: usize) -> [usize; 2] {
        match self.layout {
            Layout::Padded => [rows.min(self.examples.len()), self.width(self.buckets.longest())],
            Layout::Packed => [rows.min(self.packed_rows()), self.max_length],
        }
    }

    /// Targets that count in micro-batch `index`.
    pub fn counted_in(&self, seed: Seed, index: u64) -> usize {
        match self.layout {
            Layout::Padded => {
                let numbers = self.buckets.batch(seed, index);
                numbers.iter().map(|&number| self.examples[number as usize].counted()).sum()
            }
            Layout::Packed => self.packed(seed, index).counted(),
        }
    }

    /// Micro-batch `index`, counted through all epochs; the last of an epoch may have fewer rows.
    pub fn batch(&self, seed: Seed, index: u64) -> Batch {
        match self.layout {
            Layout::Padded => {
                let numbers = self.buckets.batch(seed, index);
                self.padded(numbers.iter().map(|&number| &self.examples[number as usize]))
            }
            Layout::Packed => self.packed(seed, index),
        }
    }

    /// All examples in the order of the file, one in a row, `windows` rows in a batch.
    pub fn validation(&self, windows: usize) -> impl Iterator<Item = Batch> {
        self.examples.chunks(windows.max(1)).map(|examples| self.padded(examples.iter()))
    }

    /// A row's length for examples of which at most `longest` tokens are read.
    fn width(&self, longest: usize) -> usize {
        longest.next_multiple_of(WIDTH).min(self.max_length)
    }

    fn padded<'a>(&self, examples: impl Iterator<Item = &'a Example> + Clone) -> Batch {
        let longest = examples.clone().map(|example| example.ids.len() - 1).max().unwrap_or(0);
        let mut batch = Batch { context: self.width(longest), ..Batch::default() };
        for (row, example) in examples.enumerate() {
            read(example, 0..example.ids.len() - 1, &mut batch);
            fill(&mut batch, (row + 1) * self.width(longest));
        }
        batch
    }

    fn packed_rows(&self) -> usize {
        self.tokens().div_ceil(self.max_length)
    }

    fn tokens(&self) -> usize {
        self.examples.iter().map(|example| example.ids.len()).sum()
    }

    fn packed(&self, seed: Seed, index: u64) -> Batch {
        let per_epoch = self.batches_per_epoch();
        let line = self.recent.get(seed.fold(index / per_epoch), |seed| self.line(seed));
        let size = self.rows * self.max_length;
        let start = (index % per_epoch) as usize * size;
        let end = self.tokens().min(start + size);
        let mut batch = Batch { context: self.max_length, ..Batch::default() };
        // The example in which the batch starts, and all that start before its end.
        let first = line.starts.partition_point(|&at| at <= start) - 1;
        for (&number, &at) in line.order[first..].iter().zip(&line.starts[first..]).take_while(|(_, at)| **at < end) {
            let example = &self.examples[number as usize];
            read(example, start.max(at) - at..example.ids.len().min(end - at), &mut batch);
        }
        fill(&mut batch, (end - start).next_multiple_of(self.max_length));
        batch
    }

    fn line(&self, seed: Seed) -> Line {
        let order = permutation(self.examples.len(), seed.named("examples"));
        let mut next = 0;
        let start = |&number: &u32| {
            next += self.examples[number as usize].ids.len();
            next - self.examples[number as usize].ids.len()
        };
        let starts = order.iter().map(start).collect();
        Line { order, starts }
    }
}

/// Adds tokens of an example and what follows each.
fn read(example: &Example, places: std::ops::Range<usize>, batch: &mut Batch) {
    batch.ids.extend_from_slice(&example.ids[places.clone()]);
    let target = |next: usize| match example.ids.get(next) {
        Some(&token) if next >= example.learnt_from => token,
        _ => IGNORED,
    };
    batch.targets.extend(places.map(|place| target(place + 1)));
}

/// Fills up with tokens that nothing is learnt from.
fn fill(batch: &mut Batch, length: usize) {
    batch.ids.resize(length, 0);
    batch.targets.resize(length, IGNORED);
}
