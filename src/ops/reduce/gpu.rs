//! Sums and extremes on a GPU, by `shaders/reduce.wgsl`: what makes a result, and which threads share it.

use crate::device::kernel::Kernel;
use crate::device::{Array, Spec};
use crate::shape::MAX_DIMS;

/// Threads of a workgroup.
pub(crate) const THREADS: usize = 256;

/// How elements are joined: its name in `shaders/lanes.wgsl`, and what nothing is.
#[derive(Clone, Copy)]
pub(crate) struct Join {
    name: &'static str,
    start: f64,
}

pub(crate) const SUM: Join = Join { name: "SUM", start: 0.0 };
pub(crate) const LARGEST: Join = Join { name: "LARGEST", start: f64::NEG_INFINITY };
pub(crate) const SMALLEST: Join = Join { name: "SMALLEST", start: f64::INFINITY };

/// The smallest power of four from `least` on, at most [`THREADS`].
pub(crate) fn power_of_four(least: usize) -> usize {
    [1, 4, 16, 64].into_iter().find(|&power| power >= least).unwrap_or(THREADS)
}

/// How threads share sums: `lanes` of a workgroup for each, and long ones in parts.
pub(crate) struct Split {
    /// Threads that share a sum.
    pub lanes: usize,
    /// Workgroups for one part of all sums.
    pub blocks: usize,
    /// Elements of a part.
    pub part: usize,
    /// Parts, each of which gives sums of its own.
    pub parts: usize,
}

impl Split {
    /// Sums of elements that lie side by side, read in `length` loads each.
    pub fn rows(results: usize, length: usize) -> Split {
        Split::new(power_of_four(length.div_ceil(4)), results, length)
    }

    /// Sums that lie side by side.
    pub fn columns(results: usize, length: usize) -> Split {
        let side_by_side = match length {
            0..=8 => THREADS,
            _ => power_of_four(results).min(64),
        };
        Split::new(THREADS / side_by_side, results, length)
    }

    /// As many parts as keep a card busy, as long as each thread has something to add.
    fn new(lanes: usize, results: usize, length: usize) -> Split {
        const BUSY: usize = 1024;
        let blocks = results.div_ceil(THREADS / lanes).max(1);
        let parts = (BUSY / blocks).min(length.div_ceil(lanes) / 8).max(1);
        let part = length.div_ceil(parts).next_multiple_of(lanes).max(lanes);
        Split { lanes, blocks, part, parts: length.div_ceil(part).max(1) }
    }

    /// The same in one part.
    fn whole(self, length: usize) -> Split {
        Split { part: length.next_multiple_of(self.lanes), parts: 1, ..self }
    }
}

/// Sizes and steps, innermost first; those that lie behind each other are merged.
struct Dims(Vec<(usize, usize)>);

impl Dims {
    fn new(dims: impl Iterator<Item = (usize, usize)>) -> Dims {
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for (size, step) in dims.filter(|(size, _)| *size != 1) {
            match merged.last_mut() {
                Some(inner) if inner.0 * inner.1 == step => inner.0 *= size,
                _ => merged.push((size, step)),
            }
        }
        Dims(merged)
    }

    fn count(&self) -> usize {
        self.0.iter().map(|(size, _)| size).product()
    }

    fn innermost(&self) -> usize {
        self.0.first().map_or(0, |(_, step)| *step)
    }

    /// The same in elements four times as large, if all steps allow it.
    fn in_fours(&self) -> Option<Dims> {
        let fits = self.0.iter().all(|(_, step)| step.is_multiple_of(4));
        fits.then(|| Dims(self.0.iter().map(|(size, step)| (*size, step / 4)).collect()))
    }

    /// Where the innermost dimension lies side by side, in whole fours, each four is one.
    fn gathered_in_fours(&self) -> Option<Dims> {
        match self.0.split_first() {
            Some((&(size, 1), outer)) if size.is_multiple_of(4) => {
                let outer = Dims(outer.to_vec()).in_fours()?;
                Some(Dims([vec![(size / 4, 1)], outer.0].concat()))
            }
            _ => None,
        }
    }

    /// Fills in a `Dims`.
    fn fill<'a>(&self, kernel: Kernel<'a>, name: &'static str) -> Kernel<'a> {
        let dims = self.0.len().max(1);
        let inner = |i: usize| if i + 1 < dims { self.0[i] } else { (1, 0) };
        let outermost = self.0.last().map_or(0, |(_, step)| *step);
        let kernel = kernel.name(name, format!("{dims}u")).words((0..MAX_DIMS - 1).map(|i| inner(i).0));
        kernel.words((0..MAX_DIMS - 1).map(|i| inner(i).1)).words([outermost, 0])
    }
}

/// `y` = the elements of `x` joined over `axes`.
pub(crate) fn record(join: Join, x: &Array, axes: &[usize], y: &mut Array) {
    if x.count() == 0 {
        return y.fill(join.start as f32);
    }
    let dim = |axis: usize| (x.shape()[axis], x.strides()[axis] as usize);
    let kept = Dims::new((0..x.shape().len()).rev().filter(|axis| !axes.contains(axis)).map(dim));
    let mut gone: Vec<_> = (0..x.shape().len()).filter(|axis| axes.contains(axis)).map(dim).collect();
    // Elements that are repeated are read once.
    let repeated: usize = gone.iter().filter(|(_, step)| *step == 0).map(|(size, _)| size).product();
    gone.retain(|(_, step)| *step != 0);
    gone.sort_by_key(|(_, step)| *step);
    let scale = if join.name == SUM.name { repeated as f64 } else { 1.0 };
    run(join, x, [kept, Dims::new(gone.into_iter())], y, scale);
}

fn run(join: Join, x: &Array, [kept, gone]: [Dims; 2], y: &mut Array, scale: f64) {
    let by_columns = kept.count() > 1 && (1..gone.innermost()).contains(&kept.innermost());
    let fours = match by_columns {
        true => kept.gathered_in_fours().zip(gone.in_fours()),
        false => kept.in_fours().zip(gone.gathered_in_fours()),
    };
    let fours = fours.filter(|_| x.offset().is_multiple_of(4));
    let (entry, offset, kept, gone) = match fours {
        Some((kept, gone)) => (if by_columns { "columns" } else { "dense" }, x.offset() / 4, kept, gone),
        None => ("strided", x.offset(), kept, gone),
    };
    let split = if by_columns { Split::columns } else { Split::rows }(kept.count(), gone.count());
    in_parts(join, (entry, split, by_columns), x, offset, [&kept, &gone], y, scale);
}

/// All parts, and what they give joined.
fn in_parts(
    join: Join,
    (entry, split, by_columns): (&'static str, Split, bool),
    x: &Array,
    offset: usize,
    dims: [&Dims; 2],
    y: &mut Array,
    scale: f64,
) {
    let (parts, results) = (split.parts, y.count());
    if parts == 1 {
        return dispatch(join, (entry, split, by_columns), x, offset, dims, y, scale);
    }
    let mut partial = x.device().scratch(Spec::new(x.dtype(), [parts, results]));
    dispatch(join, (entry, split, by_columns), x, offset, dims, &mut partial, 1.0);
    join_parts(join, &partial, 0, y, scale);
}

/// `y` = the rows of `partial`, [parts, .., results], joined, where each begins `skip` elements in.
pub(crate) fn join_parts(join: Join, partial: &Array, skip: usize, y: &mut Array, scale: f64) {
    let (parts, results) = (partial.shape()[0], y.count());
    let step = partial.strides()[0] as usize;
    let dims = [Dims::new([(results, 1)].into_iter()), Dims::new([(parts, step)].into_iter())];
    let split = match results {
        1 => Split::rows(1, parts),
        _ => Split::new(if parts > 8 { 16 } else { 1 }, results, parts),
    };
    dispatch(join, ("strided", split.whole(parts), results > 1), partial, skip, [&dims[0], &dims[1]], y, scale);
}

fn dispatch(
    join: Join,
    (entry, split, by_columns): (&'static str, Split, bool),
    x: &Array,
    offset: usize,
    [kept, gone]: [&Dims; 2],
    y: &mut Array,
    scale: f64,
) {
    let kernel = Kernel::new("reduce", entry)
        .name("JOIN", join.name)
        .name("LANES", format!("{}u", split.lanes))
        .name("LANE_STEP", format!("{}u", if by_columns { THREADS / split.lanes } else { 1 }))
        .write(y)
        .read(x)
        .words([kept.count(), gone.count(), split.part, split.parts, split.blocks, offset])
        .float(join.start)
        .float(scale);
    let kernel = gone.fill(kept.fill(kernel, "KEPT_DIMS"), "GONE_DIMS");
    kernel.run(split.blocks * split.parts);
}
