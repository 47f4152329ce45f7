//! Epochs of batches: every example once, and every batch a function of (seed, index).

use eckart::Seed;
use eckart::data::{Batch, Batches, Example, IGNORED, Layout};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Examples of these lengths, no two with a token in common; some tokens at the beginning are not learnt.
fn examples(shapes: &[(usize, usize)]) -> Vec<Example> {
    let example = |(number, &(length, masked)): (usize, &(usize, usize))| {
        let first = 1 + 100 * number as u32;
        Example { ids: (first..first + length as u32).collect(), learnt_from: masked }
    };
    shapes.iter().enumerate().map(example).collect()
}

/// How often each pair of a token and what follows it counts.
fn counted(batches: impl Iterator<Item = Batch>) -> BTreeMap<(u32, u32), usize> {
    let mut seen = BTreeMap::new();
    for batch in batches {
        for (&id, &target) in batch.ids.iter().zip(&batch.targets).filter(|(_, target)| **target != IGNORED) {
            *seen.entry((id, target)).or_insert(0) += 1;
        }
    }
    seen
}

fn expected(examples: &[Example]) -> BTreeMap<(u32, u32), usize> {
    let pairs = |example: &Example| {
        let targets = example.learnt_from.max(1)..example.ids.len();
        targets.map(|next| ((example.ids[next - 1], example.ids[next]), 1)).collect::<Vec<_>>()
    };
    examples.iter().flat_map(pairs).collect()
}

fn fits(batch: &Batch, max_length: usize, [rows, width]: [usize; 2]) {
    let here = batch.ids.len() / batch.context;
    assert_eq!(batch.ids.len(), here * batch.context);
    assert_eq!(batch.ids.len(), batch.targets.len());
    assert!(here <= rows && batch.context <= width && width <= max_length, "{here} rows of {}", batch.context);
    assert!(batch.context == max_length || batch.context.is_multiple_of(32));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_example_is_in_every_epoch_once(
        shapes in prop::collection::vec((2usize..90, 0usize..6), 1..60),
        rows in 1usize..9,
        spare in 0usize..40,
        seed in any::<u64>(),
    ) {
        let examples = examples(&shapes);
        let max_length = shapes.iter().map(|(length, _)| *length).max().unwrap() + spare;
        let expected = expected(&examples);
        for layout in [Layout::Padded, Layout::Packed] {
            let batches = Batches::new(examples.clone(), rows, max_length, layout);
            prop_assert_eq!(batches.counted(), expected.len());
            let per_epoch = batches.batches_per_epoch();
            for epoch in 0..2 {
                let of_epoch = || (epoch * per_epoch..(epoch + 1) * per_epoch).map(|i| batches.batch(Seed(seed), i));
                of_epoch().for_each(|batch| fits(&batch, max_length, batches.largest(rows)));
                prop_assert_eq!(&counted(of_epoch()), &expected, "{:?}, epoch {}", layout, epoch);
                for (index, batch) in (epoch * per_epoch..).zip(of_epoch()) {
                    prop_assert_eq!(batches.counted_in(Seed(seed), index), batch.counted());
                }
            }
            prop_assert_eq!(&counted(batches.validation(rows)), &expected);
        }
    }

    #[test]
    fn batches_do_not_depend_on_what_was_drawn_before(
        shapes in prop::collection::vec((2usize..40, 0usize..3), 1..40),
        rows in 1usize..5,
        order in prop::collection::vec(0u64..60, 1..12),
    ) {
        for layout in [Layout::Padded, Layout::Packed] {
            let batches = || Batches::new(examples(&shapes), rows, 48, layout);
            let used = batches();
            for index in order.iter().copied() {
                prop_assert_eq!(used.batch(Seed(5), index), batches().batch(Seed(5), index));
            }
        }
    }
}

#[test]
fn epochs_and_seeds_differ() {
    for layout in [Layout::Padded, Layout::Packed] {
        let batches = Batches::new(examples(&[(5, 0); 64]), 4, 16, layout);
        let epoch = |seed, epoch: u64| {
            let per_epoch = batches.batches_per_epoch();
            (0..per_epoch).map(|index| batches.batch(Seed(seed), epoch * per_epoch + index)).collect::<Vec<_>>()
        };
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
        assert_eq!(epoch(1, 3), epoch(1, 3));
    }
}

#[test]
fn the_largest_batch_comes_in_an_epoch() {
    let shapes: Vec<(usize, usize)> = (0..30).map(|n| (2 + n * 3 % 70, 0)).collect();
    for layout in [Layout::Padded, Layout::Packed] {
        let batches = Batches::new(examples(&shapes), 3, 80, layout);
        let sizes = (0..batches.batches_per_epoch()).map(|index| {
            let batch = batches.batch(Seed(2), index);
            [batch.ids.len() / batch.context, batch.context]
        });
        assert!(
            sizes.clone().any(|size| size == batches.largest(3)),
            "{:?} is not among {:?}",
            batches.largest(3),
            sizes.collect::<Vec<_>>()
        );
    }
}

#[test]
fn packed_rows_are_full_and_padded_ones_stand_alone() {
    let shapes = [(5, 2), (3, 0), (4, 0)];
    let packed = Batches::new(examples(&shapes), 1, 6, Layout::Packed);
    assert_eq!((packed.batches_per_epoch(), packed.largest(1)), (2, [1, 6]));
    let line: Vec<u32> = (0..2).flat_map(|index| packed.batch(Seed(1), index).ids).collect();
    let mut tokens = line.clone();
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2, 3, 4, 5, 101, 102, 103, 201, 202, 203, 204]);
    // An example's last token is read, and foretells nothing.
    let targets: Vec<u32> = (0..2).flat_map(|index| packed.batch(Seed(1), index).targets).collect();
    for (id, target) in line.iter().zip(&targets) {
        let last = [5, 103, 204].contains(id);
        assert_eq!(*target, if last || *id == 1 { IGNORED } else { id + 1 }, "after {id}");
    }
    let padded = Batches::new(examples(&shapes), 2, 6, Layout::Padded);
    let first = padded.validation(2).next().unwrap();
    assert_eq!(first.context, 6, "a multiple of 32 would be longer than what fits");
    assert_eq!(first.ids, [1, 2, 3, 4, 0, 0, 101, 102, 0, 0, 0, 0]);
    let none = IGNORED;
    assert_eq!(first.targets, [none, 3, 4, 5, none, none, 102, 103, none, none, none, none]);
}

#[test]
#[should_panic(expected = "an example does not have 2 to 4 tokens")]
fn what_is_too_long_is_refused() {
    Batches::new(examples(&[(5, 0)]), 1, 4, Layout::Padded);
}
