//! Hiding tokens from a model that sees a text from both sides, so that it learns to foretell them (Devlin et al. 2019,
//! section 3.1).

use super::order::below;
use super::{Batch, IGNORED};
use crate::rng::Seed;

/// How tokens are hidden.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// Share of tokens that are chosen.
    share: f64,
    /// The token that stands for hidden ones.
    mask: u32,
    /// Tokens that are never hidden, nor put in another's place; ascending.
    special: Vec<u32>,
    /// One more than the largest token.
    vocabulary: usize,
}

/// The share of tokens that Devlin et al. choose.
pub const MASKED: f64 = 0.15;

/// How many are chosen of `tokens` tokens: a share, rounded, and at least one.
pub fn masked(share: f64, tokens: usize) -> usize {
    ((share * tokens as f64 + 0.5) as usize).max(1).min(tokens)
}

impl Masking {
    /// Of a share of [`MASKED`], for tokens below `vocabulary`, of which `special` ones and the mask are never hidden.
    pub fn new(mask: u32, special: &[u32], vocabulary: usize) -> Masking {
        let mut special = [special, &[mask]].concat();
        special.sort_unstable();
        special.dedup();
        Masking { share: MASKED, mask, special, vocabulary }
    }

    /// With another share of tokens, above 0 and at most 1.
    pub fn of(self, share: f64) -> Masking {
        Masking { share, ..self }
    }

    /// How many tokens are chosen of a text with so many that may be.
    pub fn count(&self, tokens: usize) -> usize {
        masked(self.share, tokens)
    }

    /// How many tokens may be chosen.
    pub fn ordinary(&self, tokens: &[u32]) -> usize {
        tokens.iter().filter(|token| self.special.binary_search(token).is_err()).count()
    }

    /// Chooses tokens of a text, a function of the seed alone, and hides them: of ten, eight become the mask, one another
    /// token, and one stays. Gives their places, ascending, and what they were.
    fn hide(&self, tokens: &mut [u32], seed: Seed) -> Vec<(usize, u32)> {
        let ordinary = |place: &usize| self.special.binary_search(&tokens[*place]).is_err();
        let mut places: Vec<usize> = (0..tokens.len()).filter(ordinary).collect();
        let (count, mut stream) = (self.count(places.len()), seed.stream());
        // The first steps of a shuffle.
        for chosen in 0..count {
            let other = chosen + below(places.len() - chosen, &mut stream);
            places.swap(chosen, other);
        }
        places.truncate(count);
        places.sort_unstable();
        let mut hidden = Vec::with_capacity(count);
        for place in places {
            hidden.push((place, tokens[place]));
            match below(10, &mut stream) {
                0..8 => tokens[place] = self.mask,
                8 => tokens[place] = self.another(below(self.vocabulary - self.special.len(), &mut stream) as u32),
                _ => {}
            }
        }
        hidden
    }

    /// Ordinary token number `n`.
    fn another(&self, n: u32) -> u32 {
        self.special.iter().fold(n, |token, special| token + (*special <= token) as u32)
    }

    /// Hides tokens of each row, by a seed for each; the targets are what they were. There are as many places for each row
    /// as the longest that fits would need, so that batches of a width have one shape.
    pub(super) fn hide_in(&self, batch: &mut Batch, seed: impl Fn(usize) -> Seed) {
        let (context, most) = (batch.context, self.count(batch.context));
        let filling = batch.mask.clone().unwrap_or_else(|| vec![1; batch.ids.len()]);
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (row, (tokens, mask)) in batch.ids.chunks_mut(context).zip(filling.chunks(context)).enumerate() {
            let length = mask.iter().filter(|&&token| token == 1).count();
            for (place, token) in self.hide(&mut tokens[..length], seed(row)) {
                places.push((row * context + place) as u32);
                targets.push(token);
            }
            places.resize((row + 1) * most, (row * context) as u32);
            targets.resize((row + 1) * most, IGNORED);
        }
        (batch.places, batch.targets) = (Some(places), targets);
    }
}

/// A text that an encoder reads piece by piece: what it expects around each, and how it is hidden.
#[derive(Clone, Debug)]
pub struct Framing {
    /// Tokens in front of a piece, and behind it.
    pub around: [Vec<u32>; 2],
    /// How tokens are hidden.
    pub masking: Masking,
}

impl Framing {
    /// With another share of tokens hidden, above 0 and at most 1.
    pub fn hiding(self, share: f64) -> Framing {
        Framing { masking: self.masking.of(share), ..self }
    }

    /// Tokens of a text in a window of `context`.
    pub fn room(&self, context: usize) -> usize {
        context.saturating_sub(self.around.iter().map(Vec::len).sum())
    }

    /// `windows` windows at random places of `text`, with tokens hidden: a function of the seed alone. The text must be
    /// longer than the room in a window.
    pub fn training_batch(&self, text: &[u32], context: usize, windows: usize, seed: Seed) -> Batch {
        let mut stream = seed.named("places").stream();
        let places = 0..windows;
        let starts = places.map(|_| below(text.len() - self.room(context) + 1, &mut stream)).collect::<Vec<_>>();
        self.batch(text, context, &starts, |row| seed.fold(row as u64))
    }

    /// Windows one after the other, the last where the text ends; what is hidden is a function of the seed and of the
    /// window's number alone.
    pub fn validation_batches(
        &self,
        text: &[u32],
        context: usize,
        windows: usize,
        seed: Seed,
    ) -> impl Iterator<Item = Batch> {
        let room = self.room(context);
        let last = text.len().saturating_sub(room);
        let starts: Vec<usize> = (0..text.len().div_ceil(room)).map(|number| (number * room).min(last)).collect();
        let batches: Vec<Vec<usize>> = starts.chunks(windows).map(<[usize]>::to_vec).collect();
        batches.into_iter().enumerate().map(move |(number, starts)| {
            self.batch(text, context, &starts, |row| seed.fold((number * windows + row) as u64))
        })
    }

    fn batch(&self, text: &[u32], context: usize, starts: &[usize], seed: impl Fn(usize) -> Seed) -> Batch {
        let window =
            |&start: &usize| [&*self.around[0], &text[start..start + self.room(context)], &self.around[1]].concat();
        let ids: Vec<u32> = starts.iter().flat_map(window).collect();
        let mut batch = Batch { ids, context, ..Batch::default() };
        self.masking.hide_in(&mut batch, seed);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing() -> Framing {
        Framing { around: [vec![2], vec![3]], masking: Masking::new(4, &[0, 1, 2, 3], 105) }
    }

    #[test]
    fn eight_of_ten_are_masked_one_is_another_and_one_stays() {
        let Framing { masking, .. } = framing();
        let (mut masked, mut kept, mut other, mut all) = (0, 0, std::collections::BTreeSet::new(), 0);
        for n in 0..4000 {
            let text: Vec<u32> = [&[2][..], &[50; 40], &[3]].concat();
            let mut hidden = text.clone();
            let chosen = masking.hide(&mut hidden, Seed(7).fold(n));
            assert_eq!(chosen.len(), 6);
            assert!(chosen.is_sorted() && chosen.iter().all(|(place, token)| (1..=40).contains(place) && *token == 50));
            for (place, _) in &chosen {
                match hidden[*place] {
                    4 => masked += 1,
                    50 => kept += 1,
                    token => drop(other.insert(token)),
                }
                hidden[*place] = 50;
            }
            all += chosen.len();
            assert_eq!(hidden, text, "what was not chosen stays");
        }
        let [masked, kept] = [masked, kept].map(|count| count as f64 / all as f64);
        // Within five standard deviations; another token is the same one in a hundredth of a tenth.
        assert!((masked - 0.8).abs() < 0.013 && (kept - 0.101).abs() < 0.01, "{masked}, {kept}");
        assert_eq!((other.len(), other.first(), other.last()), (99, Some(&5), Some(&104)), "all but special ones");
    }

    #[test]
    fn more_are_hidden_where_the_share_is_larger() {
        let chosen = framing().masking.of(0.4).hide(&mut [50; 40], Seed(1));
        assert_eq!(chosen.len(), 16);
    }

    #[test]
    fn short_texts_have_one_hidden_and_empty_ones_none() {
        let count = |share: f64| [0, 1, 3, 9, 10, 16, 17, 100].map(|tokens| masked(share, tokens));
        assert_eq!(count(MASKED), [0, 1, 1, 1, 2, 2, 3, 15]);
        assert_eq!(count(0.4), [0, 1, 1, 4, 4, 6, 7, 40]);
        assert_eq!(count(1.0), [0, 1, 3, 9, 10, 16, 17, 100]);
        assert_eq!(framing().masking.hide(&mut [2, 3], Seed(0)), []);
    }

    #[test]
    fn batches_are_functions_of_the_seed_and_have_one_shape() {
        let (framing, text) = (framing(), (0..100).map(|i| 5 + i).collect::<Vec<u32>>());
        let batch = |seed| framing.training_batch(&text, 20, 3, Seed(seed));
        assert_eq!(batch(1), batch(1));
        assert_ne!(batch(1).ids, batch(2).ids);
        for seed in 0..50 {
            let batch = batch(seed);
            assert_eq!((batch.ids.len(), batch.targets.len(), batch.counted()), (60, 9, 9));
            assert!(batch.ids.chunks(20).all(|row| (row[0], row[19]) == (2, 3)));
            let places = batch.places.unwrap();
            let next = places.windows(2).zip(batch.targets.windows(2)).filter(|(p, _)| p[0] / 20 == p[1] / 20);
            assert!(next.into_iter().all(|(p, t)| t[1] - t[0] == p[1] - p[0]), "targets are what stood there");
        }
    }

    #[test]
    fn validation_covers_the_text_and_does_not_depend_on_the_size_of_batches() {
        let (framing, text) = (framing(), (0..100).map(|i| 5 + i).collect::<Vec<u32>>());
        let batches = |windows| framing.validation_batches(&text, 20, windows, Seed(3)).collect::<Vec<Batch>>();
        let rows = |windows: usize| batches(windows).iter().flat_map(|batch| batch.ids.clone()).collect::<Vec<u32>>();
        assert_eq!((rows(1), batches(4).len()), (rows(4), 2));
        assert_eq!(rows(4).len(), 6 * 20, "the sixth window ends with the text");
        let targets: Vec<u32> = batches(4).iter().flat_map(|batch| batch.targets.clone()).collect();
        assert!(targets.iter().all(|target| (5..105).contains(target)));
    }
}
