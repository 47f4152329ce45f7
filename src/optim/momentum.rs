//! Running sums of gradients.

use super::{At, Slot, Transform};
use crate::device::{Array, Spec};
use crate::float;
use crate::scalar::{Float, Real};

/// Momentum SGD: u = β u + g (Polyak 1964). State: 1 float a parameter, none for β = 0.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    /// Decay of the running sum.
    pub beta: f64,
}

impl Transform for Momentum {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        if self.beta == 0.0 { Vec::new() } else { vec![("momentum", *parameter)] }
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], mut gradient: Array) -> Array {
        if let Some(numbers) = at.now.numbers {
            self.record(numbers, state, &mut gradient, at.first);
        } else if gradient.device().computes() {
            float!(gradient.dtype(), T => self.kernel::<T>(state, &mut gradient, at.factor()));
        }
        gradient
    }
}

impl Momentum {
    fn kernel<T: Float>(&self, state: &mut [Array], gradient: &mut Array, factor: f64) {
        let (beta, factor) = (<T as Real>::of(self.beta), <T as Real>::of(factor));
        let Some(velocity) = state.first_mut() else {
            return gradient.slice_mut::<T>().iter_mut().for_each(|g| *g = *g * factor);
        };
        for (g, u) in gradient.slice_mut::<T>().iter_mut().zip(velocity.slice_mut::<T>()) {
            *u = beta * *u + *g * factor;
            *g = *u;
        }
    }
}
