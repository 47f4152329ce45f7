//! Framed texts as batches, for models that see a text from both sides or say what it is. Micro-batch `index` is a function
//! of (seed, index).

use super::epochs::WIDTH;
use super::{Batch, Buckets, Labelled, Masking};
use crate::rng::Seed;

/// What is to be foretold of texts.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Tokens that are hidden.
    Hidden(Masking),
    /// Their labels, from the first token on, by a model that sees the whole text there.
    Labels,
    /// Their labels, by a model that has seen the whole text at its last token alone.
    LabelsAtEnd,
}

/// Texts in batches of similar length, filled up to a multiple of 32.
#[derive(Debug)]
pub struct Texts {
    texts: Vec<Labelled>,
    goal: Goal,
    max_length: usize,
    /// Whether segments are told apart.
    segments: bool,
    buckets: Buckets,
}

impl Texts {
    /// Batches of `rows` texts of at most `max_length` tokens. Panics without texts or rows, or on a text that is empty or
    /// longer.
    #[track_caller]
    pub fn new(texts: Vec<Labelled>, goal: Goal, rows: usize, max_length: usize) -> Texts {
        let fits = |text: &Labelled| (1..=max_length).contains(&text.ids.len());
        assert!(texts.iter().all(fits), "a text does not have 1 to {max_length} tokens");
        let segments = texts.iter().any(|text| text.second.is_some());
        let buckets = Buckets::new(texts.iter().map(|text| text.ids.len()).collect(), rows);
        Texts { texts, goal, max_length, segments, buckets }
    }

    /// The texts, in the order of the file.
    pub fn texts(&self) -> &[Labelled] {
        &self.texts
    }

    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.ids.len()).sum()
    }

    /// Micro-batch `index`, counted through all epochs; the last of an epoch may have fewer rows.
    pub fn batch(&self, seed: Seed, index: u64) -> Batch {
        let masks = seed.named("masks").fold(index);
        self.of(&self.buckets.batch(seed, index), |row| masks.fold(row as u64))
    }

    /// Targets that count in micro-batch `index`.
    pub fn counted_in(&self, seed: Seed, index: u64) -> usize {
        let numbers = self.buckets.batch(seed, index);
        match &self.goal {
            Goal::Hidden(masking) => {
                let hidden = |number: &u32| masking.count(masking.ordinary(&self.texts[*number as usize].ids));
                numbers.iter().map(hidden).sum()
            }
            _ => numbers.len(),
        }
    }

    /// All texts by length, `rows` in a batch; what is hidden of each is a function of the seed and its number alone.
    pub fn validation(&self, rows: usize, seed: Seed) -> impl Iterator<Item = Batch> {
        let mut order: Vec<u32> = (0..self.texts.len() as u32).collect();
        order.sort_by_key(|&number| self.texts[number as usize].ids.len());
        let batches: Vec<Vec<u32>> = order.chunks(rows.max(1)).map(<[u32]>::to_vec).collect();
        batches.into_iter().map(move |numbers| self.of(&numbers, |row| seed.fold(numbers[row] as u64)))
    }

    /// The largest batch that there could be with at most `rows` rows: the longest text, again and again.
    pub fn largest(&self, rows: usize) -> Batch {
        let longest = (0..self.texts.len()).max_by_key(|&number| self.texts[number].ids.len()).unwrap_or(0);
        self.of(&vec![longest as u32; rows.min(self.texts.len())], |_| Seed(0))
    }

    fn of(&self, numbers: &[u32], seed: impl Fn(usize) -> Seed) -> Batch {
        let texts = || numbers.iter().map(|&number| &self.texts[number as usize]);
        let longest = texts().map(|text| text.ids.len()).max().unwrap_or(0);
        let width = longest.next_multiple_of(WIDTH).min(self.max_length);
        let mut batch = Batch::filled(texts().map(|text| &*text.ids), width);
        if self.segments {
            let row = |text: &Labelled| segments(text, width).collect::<Vec<u32>>();
            batch.segments = Some(texts().flat_map(row).collect());
        }
        let labels = || texts().map(|text| text.label as u32).collect();
        match &self.goal {
            Goal::Hidden(masking) => masking.hide_in(&mut batch, seed),
            Goal::Labels => batch.targets = labels(),
            Goal::LabelsAtEnd => {
                let last = |(row, text): (usize, &Labelled)| (row * width + text.ids.len() - 1) as u32;
                let places = Some(texts().enumerate().map(last).collect());
                // What fills a row up lies behind all that such a model sees.
                batch = Batch { targets: labels(), places, mask: None, ..batch };
            }
        }
        batch
    }
}

impl Batch {
    /// Rows of tokens filled up to `context`, and the mask that says where; without targets.
    fn filled<'a>(rows: impl Iterator<Item = &'a [u32]>, context: usize) -> Batch {
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (row, tokens) in rows.enumerate() {
            ids.extend_from_slice(tokens);
            mask.resize(ids.len(), 1);
            ids.resize((row + 1) * context, 0);
            mask.resize(ids.len(), 0);
        }
        Batch { ids, mask: Some(mask), context, ..Batch::default() }
    }
}

/// The segment of each place of a row.
fn segments(text: &Labelled, width: usize) -> impl Iterator<Item = u32> {
    let second = text.second.unwrap_or(width)..text.ids.len();
    (0..width).map(move |place| second.contains(&place) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::IGNORED;
    use crate::data::{MASKED, masked};

    /// Texts of 2 to 41 tokens, each of one token around two that frame it.
    fn texts(goal: Goal) -> Texts {
        let text = |n: usize| Labelled {
            ids: [&[2][..], &vec![5 + n as u32; n], &[3]].concat(),
            second: (n > 20).then_some(n - 10),
            label: n % 3,
        };
        Texts::new((0..40).map(text).collect(), goal, 4, 64)
    }

    #[test]
    fn rows_are_filled_up_and_know_their_labels() {
        for (goal, at_end) in [(Goal::Labels, false), (Goal::LabelsAtEnd, true)] {
            let texts = texts(goal);
            let mut seen = [0; 40];
            for index in 0..10 {
                let batch = texts.batch(Seed(1), index);
                assert_eq!((batch.rows(), batch.counted(), texts.counted_in(Seed(1), index)), (4, 4, 4));
                assert_eq!((batch.places.is_some(), batch.mask.is_some()), (at_end, !at_end));
                for (row, ids) in batch.ids.chunks(batch.context).enumerate() {
                    let end = ids.iter().position(|&token| token == 3).unwrap();
                    let n = end - 1;
                    assert_eq!(batch.targets[row], (n % 3) as u32);
                    let place = (row * batch.context + end) as u32;
                    assert!(batch.places.as_ref().is_none_or(|places| places[row] == place));
                    let row = row * batch.context..(row + 1) * batch.context;
                    let filled = batch.mask.as_ref().map(|mask| mask[row.clone()].iter().sum::<u32>());
                    assert!(filled.is_none_or(|tokens| tokens as usize == n + 2));
                    let second: u32 = batch.segments.as_ref().unwrap()[row].iter().sum();
                    assert_eq!(second, if n > 20 { 12 } else { 0 });
                    seen[n] += 1;
                }
            }
            assert_eq!(seen, [1; 40], "an epoch has each text once");
            let largest = texts.largest(9);
            assert_eq!((largest.rows(), largest.context), (9, 64));
            assert!(texts.validation(9, Seed(0)).all(|batch| batch.ids.len() <= largest.ids.len()));
        }
    }

    #[test]
    fn hidden_tokens_are_functions_of_seed_and_index() {
        let texts = texts(Goal::Hidden(Masking::new(4, &[2, 3], 60)));
        for index in 0..20 {
            let batch = texts.batch(Seed(1), index);
            assert_eq!(batch, texts.batch(Seed(1), index));
            assert_eq!(batch.counted(), texts.counted_in(Seed(1), index), "batch {index}");
            let each = masked(MASKED, batch.context);
            assert_eq!(batch.targets.len(), batch.rows() * each);
            let places = batch.places.as_ref().unwrap();
            for (&place, &target) in places.iter().zip(&batch.targets).filter(|(_, target)| **target != IGNORED) {
                let row = &batch.ids[place as usize / batch.context * batch.context..][..batch.context];
                let length = target as usize - 5 + 2;
                assert!(row[length - 1] == 3 && (1..length - 1).contains(&(place as usize % batch.context)));
            }
        }
        let held = |rows| texts.validation(rows, Seed(5)).flat_map(|batch| batch.targets).filter(|t| *t != IGNORED);
        let [one, many] = [held(1).collect::<Vec<u32>>(), held(7).collect()];
        assert_eq!(one, many, "the size of batches changes nothing");
    }
}
