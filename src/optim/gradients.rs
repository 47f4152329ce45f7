//! Gradients held until the step: added up over an accumulation window, with their common norm.

use super::Sketch;
use crate::autograd::{Gradient, LeafId, backward};
use crate::device::cpu::row;
use crate::device::{Array, Device, Spec, Tag, cpu, tagged};
use crate::float;
use crate::ops::project::Random;
use crate::scalar::Float;
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;

/// A gradient that waits for the step.
pub enum Held {
    /// As it is.
    Dense(Array),
    /// Compressed by a random projection.
    Sketch(Sketch),
}

impl Held {
    /// Multiplied out, or lifted.
    pub fn dense(self) -> Array {
        match self {
            Held::Dense(gradient) => gradient,
            Held::Sketch(sketch) => sketch.lifted(),
        }
    }

    fn array(&self) -> &Array {
        match self {
            Held::Dense(array) => array,
            Held::Sketch(sketch) => &sketch.array,
        }
    }

    fn into_array(self) -> Array {
        match self {
            Held::Dense(array) => array,
            Held::Sketch(sketch) => sketch.array,
        }
    }
}

/// One gradient for each leaf, counted under gradients.
#[derive(Default)]
pub struct Gradients {
    held: BTreeMap<LeafId, Held>,
    /// Leaves whose gradients are compressed as soon as they come.
    compressed: BTreeMap<LeafId, (Random, Shape)>,
}

impl Gradients {
    /// None yet.
    pub fn new() -> Gradients {
        Gradients::default()
    }

    /// None yet; those of some leaves, matrices of the given shapes, will be added up as sketches: the smaller side
    /// brought down by a random projection, from the factors of a linear map's gradient without multiplying them out.
    pub fn compressed(leaves: BTreeMap<LeafId, (Random, Shape)>) -> Gradients {
        Gradients { held: BTreeMap::new(), compressed: leaves }
    }

    /// Walks back from `loss` and adds each leaf's gradient to what is held.
    #[track_caller]
    pub fn add(&mut self, loss: Tensor) {
        backward(loss, &mut |leaf, gradient| self.add_one(leaf, gradient));
    }

    fn add_one(&mut self, leaf: LeafId, gradient: Gradient) {
        let held = self.held.remove(&leaf).map(|held| Tensor::from_array(held.into_array()));
        let sum = tagged(Tag::Gradients, || match (self.compressed.get(&leaf), held) {
            (Some((random, _)), Some(sum)) => Some(gradient.sketch_onto(*random, sum)),
            (Some((random, _)), None) => gradient.sketch(*random),
            (None, Some(sum)) => Some(gradient.add_to(sum)),
            (None, None) => gradient.densify(),
        });
        if let Some(sum) = sum {
            self.insert(leaf, sum.into_array());
        }
    }

    /// What is held of a leaf: its gradient, or the sketch of it.
    pub fn get(&self, leaf: LeafId) -> Option<&Array> {
        self.held.get(&leaf).map(Held::array)
    }

    /// A leaf's gradient in its own shape: as it is, or lifted from its sketch.
    pub fn lifted(&self, leaf: LeafId) -> Option<Array> {
        match self.held.get(&leaf)? {
            Held::Dense(gradient) => Some(gradient.clone()),
            Held::Sketch(sketch) => Some(sketch.lifted()),
        }
    }

    /// Type and shape of what is held of a leaf like this.
    pub fn spec(&self, leaf: LeafId, parameter: &Spec) -> Spec {
        match self.compressed.get(&leaf) {
            Some((random, shape)) => Spec::new(parameter.dtype, random.sketch_shape(shape)),
            None => *parameter,
        }
    }

    /// Puts a gradient, or its sketch, back, as when a run resumes inside an accumulation window.
    pub fn insert(&mut self, leaf: LeafId, gradient: Array) {
        let gradient = owned(gradient);
        gradient.retag(Tag::Gradients);
        let held = match self.compressed.get(&leaf) {
            Some(&(random, shape)) => Held::Sketch(Sketch { array: gradient, random, shape }),
            None => Held::Dense(gradient),
        };
        self.held.insert(leaf, held);
    }

    /// Euclidean norm of all gradients together, summed in double precision in a fixed order; NaN if any is not a
    /// number, and on the null device.
    pub fn norm(&self) -> f64 {
        if !self.computes() {
            return f64::NAN;
        }
        // Where a device fails there are no numbers.
        let lengths = self.lengths();
        let Ok(held) = Array::all_to_host(&lengths.iter().collect::<Vec<_>>()) else { return f64::NAN };
        const PIECE: usize = 32 * 1024;
        let pieces =
            |g| (0..Array::count(g)).step_by(PIECE).map(move |first| (g, first..(first + PIECE).min(g.count())));
        let pieces: Vec<_> = held.iter().flat_map(pieces).collect();
        let mut partial = vec![0.0; pieces.len()];
        let work = partial.iter_mut().zip(&pieces).collect();
        cpu::each(work, |(sum, (g, range)): (&mut f64, &(&Array, Range<usize>))| {
            *sum = float!(g.dtype(), T => squares(&g.slice::<T>()[range.clone()]));
        });
        partial.iter().sum::<f64>().sqrt()
    }

    /// Whether there are numbers in them.
    pub fn computes(&self) -> bool {
        self.arrays().next().is_none_or(|g| g.device().computes())
    }

    /// The device they are on; none if there are none.
    pub fn device(&self) -> Option<Device> {
        self.arrays().next().map(|g| g.device().clone())
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.held.values().map(Held::array)
    }

    /// Arrays whose squares add up to that of the norm, in the order of their leaves: gradients themselves, and of each
    /// sketch the length of what it is lifted to.
    pub(super) fn lengths(&self) -> Vec<Array> {
        let length = |held: &Held| match held {
            Held::Dense(gradient) => gradient.clone(),
            Held::Sketch(sketch) => sketch.length().into_array(),
        };
        self.held.values().map(length).collect()
    }

    pub(super) fn into_map(self) -> BTreeMap<LeafId, Held> {
        self.held
    }
}

/// The same elements, contiguous, from their storage's start on, and referred to by nothing else.
fn owned(array: Array) -> Array {
    if array.owned() { array } else { tagged(Tag::Gradients, || array.to_owned()) }
}

/// Σ x² in double precision, on one thread.
fn squares<T: Float>(x: &[T]) -> f64 {
    cpu::simd(
        #[inline(always)]
        || {
            row::sum(
                [x],
                #[inline(always)]
                |[x]| x.to_f64() * x.to_f64(),
            )
        },
    )
}
