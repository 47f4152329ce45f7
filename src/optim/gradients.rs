//! Gradients held until the step: added up over an accumulation window, with their common norm.

use crate::autograd::{Gradient, LeafId, backward};
use crate::device::cpu::row;
use crate::device::{Array, Device, Tag, cpu, tagged};
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;

/// A gradient that waits for the step.
pub enum Held {
    /// As it is.
    Dense(Array),
}

impl Held {
    /// Multiplied out.
    pub fn dense(self) -> Array {
        match self {
            Held::Dense(gradient) => gradient,
        }
    }

    fn array(&self) -> &Array {
        match self {
            Held::Dense(array) => array,
        }
    }
}

/// One gradient for each leaf, counted under gradients.
#[derive(Default)]
pub struct Gradients(BTreeMap<LeafId, Held>);

impl Gradients {
    /// None yet.
    pub fn new() -> Gradients {
        Gradients::default()
    }

    /// Walks back from `loss` and adds each leaf's gradient to what is held.
    #[track_caller]
    pub fn add(&mut self, loss: Tensor) {
        backward(loss, &mut |leaf, gradient| self.add_one(leaf, gradient));
    }

    fn add_one(&mut self, leaf: LeafId, gradient: Gradient) {
        let sum = tagged(Tag::Gradients, || match self.0.remove(&leaf) {
            Some(Held::Dense(held)) => Some(gradient.add_to(Tensor::from_array(held))),
            None => gradient.densify(),
        });
        if let Some(sum) = sum {
            self.insert(leaf, sum.into_array());
        }
    }

    /// Gradient of a leaf.
    pub fn get(&self, leaf: LeafId) -> Option<&Array> {
        self.0.get(&leaf).map(Held::array)
    }

    /// Puts a gradient back, as when a run resumes inside an accumulation window.
    pub fn insert(&mut self, leaf: LeafId, gradient: Array) {
        let gradient = owned(gradient);
        gradient.retag(Tag::Gradients);
        self.0.insert(leaf, Held::Dense(gradient));
    }

    /// Euclidean norm of all gradients together, summed in double precision in a fixed order; NaN if any is not a
    /// number, and on the null device.
    pub fn norm(&self) -> f64 {
        if !self.computes() {
            return f64::NAN;
        }
        // Where a device fails there are no numbers.
        let Ok(held) = Array::all_to_host(&self.arrays().collect::<Vec<_>>()) else { return f64::NAN };
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

    /// All of them, in the order of their leaves.
    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.0.values().map(Held::array)
    }

    pub(super) fn into_map(self) -> BTreeMap<LeafId, Held> {
        self.0
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
