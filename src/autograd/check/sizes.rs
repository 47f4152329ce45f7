//! A sample in other sizes: emptied along a dimension, and shrunk to single elements.

use crate::ops::{Fill, Input, Sample};
use crate::shape::Shape;

/// The sample as it is, with each of its sizes emptied, and with one element in each operand. Not every op takes
/// operands of every shape: its `infer` tells.
pub(super) fn sizes(sample: &Sample) -> Vec<(String, Sample)> {
    let mut different: Vec<usize> = sample.inputs.iter().flat_map(|input| input.shape.to_vec()).collect();
    different.sort_unstable();
    different.dedup();
    let empty = |&size: &usize| (format!("size {size} emptied"), resized(sample, |s| if s == size { 0 } else { s }));
    let emptied = different.iter().map(empty).filter(|(_, sample)| !points_nowhere(sample));
    let one = ("one element".to_owned(), resized(sample, |_| 1));
    [("as sampled".to_owned(), sample.clone())].into_iter().chain(emptied).chain([one]).collect()
}

fn resized(sample: &Sample, size: impl Fn(usize) -> usize) -> Sample {
    let resize = |input: &Input| {
        let sizes: Vec<usize> = input.shape.iter().map(|&s| size(s)).collect();
        let shape = Shape::new(&sizes);
        Input { shape, fill: shortened(&input.fill, shape.count()), ..input.clone() }
    };
    Sample { op: sample.op.clone(), inputs: sample.inputs.iter().map(resize).collect() }
}

/// Indices become 0, which is valid wherever anything is.
fn shortened(fill: &Fill, count: usize) -> Fill {
    match fill {
        Fill::Values(values) => Fill::Values(values.iter().copied().take(count).collect()),
        Fill::Index { .. } | Fill::Indices(_) => Fill::Index { below: 1 },
        other => other.clone(),
    }
}

/// Whether there are indices, but perhaps nothing for them to point to.
fn points_nowhere(sample: &Sample) -> bool {
    let indices = |input: &Input| matches!(input.fill, Fill::Index { .. } | Fill::Indices(_));
    let (ids, values): (Vec<&Input>, Vec<&Input>) = sample.inputs.iter().partition(|input| indices(input));
    ids.iter().any(|input| input.shape.count() > 0) && values.iter().any(|input| input.shape.count() == 0)
}
