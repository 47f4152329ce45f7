//! Windows of a text: at random places for training, one after the other for validation.

use super::order::below;
use crate::device::Device;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// A target that counts neither in a loss nor in its mean.
pub const IGNORED: u32 = u32::MAX;

/// Rows of tokens and what is to be foretold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tokens, [rows, context].
    pub ids: Vec<u32>,
    /// The token after each [rows, context], the tokens that were at `places`, or the class of each row `[rows]`;
    /// [`IGNORED`] where there is none.
    pub targets: Vec<u32>,
    /// Tokens in a row.
    pub context: usize,
    /// Which segment each token is in [rows, context], where that is told apart.
    pub segments: Option<Vec<u32>>,
    /// 1 for tokens and 0 where rows are filled up [rows, context], for models that see what is behind a token.
    pub mask: Option<Vec<u32>>,
    /// What the targets are about, as places row · context + token; the order of the rows, or all tokens, if none.
    pub places: Option<Vec<u32>>,
}

impl Batch {
    fn new(context: usize, windows: usize) -> Batch {
        let room = context * windows;
        let (ids, targets) = (Vec::with_capacity(room), Vec::with_capacity(room));
        Batch { ids, targets, context, ..Batch::default() }
    }

    /// Adds the window that starts at `start`, filled up where the text ends.
    fn push(&mut self, text: &[u32], start: usize) {
        let end = (start + self.context).min(text.len() - 1);
        self.ids.extend_from_slice(&text[start..end]);
        self.targets.extend_from_slice(&text[start + 1..=end]);
        let full = self.ids.len().next_multiple_of(self.context);
        self.ids.resize(full, 0);
        self.targets.resize(full, IGNORED);
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.ids.len() / self.context
    }

    /// How many targets count.
    pub fn counted(&self) -> usize {
        counted(&self.targets)
    }

    /// How many targets of a window count.
    pub fn counted_in(&self, window: usize) -> usize {
        counted(&self.targets[window * self.context..][..self.context])
    }

    /// Tokens and targets on a device, tokens [rows, context].
    pub fn upload(&self, device: &Device) -> (Tensor, Tensor) {
        let shape = [self.rows(), self.context];
        let ids = Tensor::new(&self.ids, shape, device);
        let each = self.targets.len() == self.ids.len() && self.places.is_none();
        let targets = match each {
            true => Tensor::new(&self.targets, shape, device),
            false => Tensor::new(&self.targets, [self.targets.len()], device),
        };
        (ids, targets)
    }
}

fn counted(targets: &[u32]) -> usize {
    targets.iter().filter(|&&target| target != IGNORED).count()
}

/// `windows` windows at random places of `text`, a function of the seed alone: fold the step and its part in first.
/// The text must be longer than `context`.
pub fn training_batch(text: &[u32], context: usize, windows: usize, seed: Seed) -> Batch {
    let places = text.len() - context;
    let mut stream = seed.stream();
    let mut batch = Batch::new(context, windows);
    for _ in 0..windows {
        batch.push(text, below(places, &mut stream));
    }
    batch
}

/// Windows one after the other, so that each token of `text` but the first is a target once.
pub fn validation_batches(text: &[u32], context: usize, windows: usize) -> impl Iterator<Item = Batch> {
    let starts: Vec<usize> = (0..text.len().saturating_sub(1)).step_by(context).collect();
    let batches: Vec<Vec<usize>> = starts.chunks(windows).map(<[usize]>::to_vec).collect();
    batches.into_iter().map(move |starts| {
        let mut batch = Batch::new(context, starts.len());
        starts.iter().for_each(|&start| batch.push(text, start));
        batch
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_windows_are_pieces_of_the_text_shifted_by_one() {
        let text: Vec<u32> = (0..50).collect();
        let seen: Vec<Batch> = (0..200).map(|step| training_batch(&text, 8, 3, Seed(1).fold(step))).collect();
        for batch in &seen {
            assert!(batch.ids.iter().zip(&batch.targets).all(|(id, target)| id + 1 == *target));
        }
        let starts: std::collections::BTreeSet<u32> =
            seen.iter().flat_map(|b| b.ids.iter().step_by(8).copied()).collect();
        assert_eq!(starts, (0..42).collect(), "every place is drawn, the last one too");
    }

    #[test]
    fn training_batches_are_a_function_of_the_seed() {
        let text: Vec<u32> = (0..50).collect();
        let batch = |seed| training_batch(&text, 8, 3, seed);
        assert_eq!(batch(Seed(7).fold(2)), batch(Seed(7).fold(2)));
        assert_ne!(batch(Seed(7).fold(2)), batch(Seed(7).fold(3)));
    }

    #[test]
    fn validation_covers_every_target_once() {
        for length in 2..60 {
            let text: Vec<u32> = (100..100 + length).collect();
            let batches: Vec<Batch> = validation_batches(&text, 8, 3).collect();
            let targets: Vec<u32> = batches.iter().flat_map(|b| b.targets.clone()).filter(|&t| t != IGNORED).collect();
            assert_eq!(targets, text[1..]);
            assert_eq!(batches.iter().map(Batch::counted).sum::<usize>(), targets.len());
            assert!(batches.iter().all(|b| b.ids.len() % 8 == 0 && b.ids.len() <= 24));
        }
    }
}
