//! Windows of a text: at random places for training, one after the other for validation.

use crate::device::Device;
use crate::rng::Seed;
use crate::tensor::Tensor;
use rand::Rng;

/// A target that counts neither in a loss nor in its mean.
pub const IGNORED: u32 = u32::MAX;

/// Windows of a text and, at each place, the token that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tokens, [windows, context].
    pub ids: Vec<u32>,
    /// The token after each; [`IGNORED`] where a window reaches past the text. [windows, context].
    pub targets: Vec<u32>,
    /// Tokens in a window.
    pub context: usize,
}

impl Batch {
    fn new(context: usize, windows: usize) -> Batch {
        let room = context * windows;
        Batch { ids: Vec::with_capacity(room), targets: Vec::with_capacity(room), context }
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

    /// How many targets count.
    pub fn counted(&self) -> usize {
        counted(&self.targets)
    }

    /// How many targets of a window count.
    pub fn counted_in(&self, window: usize) -> usize {
        counted(&self.targets[window * self.context..][..self.context])
    }

    /// Tokens and targets on a device, both [windows, context].
    pub fn upload(&self, device: &Device) -> (Tensor, Tensor) {
        let shape = [self.ids.len() / self.context, self.context];
        (Tensor::new(&self.ids, shape, device), Tensor::new(&self.targets, shape, device))
    }
}

fn counted(targets: &[u32]) -> usize {
    targets.iter().filter(|&&target| target != IGNORED).count()
}

/// `windows` windows at random places of `text`, a function of the seed alone: fold the step and its part in first.
/// The text must be longer than `context`.
pub fn training_batch(text: &[u32], context: usize, windows: usize, seed: Seed) -> Batch {
    let places = (text.len() - context) as u128;
    let mut stream = seed.stream();
    let mut batch = Batch::new(context, windows);
    for _ in 0..windows {
        // The high word of a product: uniform to within 2⁻⁶⁴ of the number of places.
        batch.push(text, ((stream.next_u64() as u128 * places) >> 64) as usize);
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
