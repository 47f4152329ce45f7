//! A parameter in a step.

use super::Held;
use crate::device::Array;
use crate::rng::Seed;

/// One parameter's part in a step.
pub struct Turn<'a> {
    /// Its value, which nothing else refers to.
    pub weight: &'a mut Array,
    /// Used up by the step.
    pub gradient: Option<Held>,
    /// As declared by [`super::Transform::state`].
    pub state: &'a mut Vec<Array>,
    /// Of its own: a function of the optimizer's seed and the parameter's path.
    pub seed: Seed,
    /// Learning rate of its group; on a GPU a factor on the one that the device is given.
    pub rate: f64,
    /// Decoupled weight decay of its group.
    pub decay: f64,
}

impl Turn<'_> {
    /// Takes the gradient, dense.
    pub fn gradient(&mut self) -> Array {
        self.gradient.take().expect("one step for a gradient").dense()
    }
}
