//! Dropout of what adapters are given, and of nothing else.
//!
//! Maps see no pass, so each holds the mask of the pass that runs: [`with_dropout`] hands it out and takes it back, and
//! what a pass leaves to be run again in backward has a copy.

use super::{Lora, each};
use crate::autograd::checkpoint;
use crate::module::Module;
use crate::ops::dropout::Mask;
use crate::ops::linear::Linear;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// `s drop(x) A`, for a matrix as stored or transposed.
#[derive(Clone, Debug)]
pub(super) struct Narrow {
    pub product: Linear,
    pub scale: f64,
    pub drop: Option<(f64, Mask)>,
}

impl Narrow {
    pub fn apply(&self, x: &Tensor, a: &Tensor) -> Tensor {
        let dropped = self.drop.as_ref().map(|(probability, mask)| x.dropout_by(*probability, mask));
        Tensor::apply(self.product, &[dropped.as_ref().unwrap_or(x), a]) * self.scale
    }

    /// The same without keeping what is left of x: it is dropped again in backward, by the same mask. Where A does not
    /// train nothing would be kept anyway.
    pub fn keeping_x(&self, x: &Tensor, a: &Tensor) -> Tensor {
        if self.drop.is_none() || !a.is_traced() {
            return self.apply(x, a);
        }
        let narrow = self.clone();
        checkpoint(move |ins| narrow.apply(&ins[0], &ins[1]), &[x, a])
    }
}

/// Runs a training pass in which adapters drop some of their inputs, each with the probability that it was made with and
/// by a mask of its own, a function of `mask` and the layer's path. `mask` needs room for one fold. Outside, nothing is
/// dropped: evaluation needs no care.
pub fn with_dropout<M: Module, R>(model: &mut M, mask: &Mask, pass: impl FnOnce(&M) -> R) -> R {
    each::<Lora>(model, |path, map| {
        map.mask = (map.dropout > 0.0).then(|| mask.fold(Seed(0).named(path).0));
    });
    let result = pass(model);
    each::<Lora>(model, |_, map| map.mask = None);
    result
}
