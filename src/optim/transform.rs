//! From gradient to update: what optimizers are composed of.

use super::Numbers;
use crate::device::{Array, Spec, cpu};
use crate::error::Result;
use crate::float;
use crate::scalar::{Float, Real};

/// Turns a parameter's gradient into its update, with state of its own.
pub trait Transform: Send + Sync {
    /// Names of the state's arrays, as in checkpoints.
    fn slots(&self) -> Vec<&'static str>;

    /// Types and shapes of the state of a parameter; it starts at zero.
    fn state(&self, parameter: &Spec) -> Vec<Spec>;

    /// The update for `factor` times `gradient`, written over the gradient. `step` counts from 0.
    fn update(&self, step: u64, state: &mut [Array], gradient: Array, factor: f64) -> Array;

    /// Decays of the two running means whose start at zero is corrected for, if there are any.
    fn decays(&self) -> Option<[f64; 2]> {
        None
    }

    /// Records the same for a GPU. The `first` of a chain scales the gradient. Without kernels of its own a transform
    /// runs on the host, and the GPU waits for it.
    fn record(&self, numbers: &Numbers, state: &mut [Array], gradient: Array, first: bool) -> Array {
        on_host(self, numbers, state, gradient, first)
    }
}

/// [`Transform::update`] for arrays of a GPU; where the device fails, nothing changes.
fn on_host(
    transform: &(impl Transform + ?Sized),
    numbers: &Numbers,
    state: &mut [Array],
    mut gradient: Array,
    first: bool,
) -> Array {
    let arrays = || state.iter().map(Array::to_host).collect::<Result<Vec<Array>>>();
    if !gradient.device().computes() {
        return gradient;
    }
    let (Ok((taken, factor, false)), Ok(mut held), Ok(g)) = (numbers.host(), arrays(), gradient.to_host()) else {
        return gradient;
    };
    gradient.device().count_host_op();
    let update = transform.update(taken - 1, &mut held, g, if first { factor } else { 1.0 });
    for (to, from) in state.iter_mut().zip(&held) {
        float!(from.dtype(), T => to.fill_from(from.slice::<T>()));
    }
    float!(update.dtype(), T => gradient.fill_from(update.slice::<T>()));
    gradient
}

/// Adam (Kingma & Ba 2015): m̂ / (√v̂ + ε) with both means corrected for their start at zero. With decoupled weight
/// decay, which the optimizer's groups say, it is AdamW. State: 2 floats a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root.
    pub epsilon: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl Transform for Adam {
    fn slots(&self) -> Vec<&'static str> {
        vec!["m", "v"]
    }

    fn state(&self, parameter: &Spec) -> Vec<Spec> {
        vec![*parameter; 2]
    }

    fn update(&self, step: u64, state: &mut [Array], mut gradient: Array, factor: f64) -> Array {
        if gradient.device().computes() {
            float!(gradient.dtype(), T => self.kernel::<T>(step, state, &mut gradient, factor));
        }
        gradient
    }

    fn decays(&self) -> Option<[f64; 2]> {
        Some([self.beta1, self.beta2])
    }

    fn record(&self, numbers: &Numbers, state: &mut [Array], mut gradient: Array, first: bool) -> Array {
        Adam::record(self, numbers, state, &mut gradient, first);
        gradient
    }
}

impl Adam {
    fn kernel<T: Float>(&self, step: u64, state: &mut [Array], gradient: &mut Array, factor: f64) {
        let t = step as i32 + 1;
        let of = <T as Real>::of;
        let (b1, b2, epsilon, factor) = (of(self.beta1), of(self.beta2), of(self.epsilon), of(factor));
        let (c1, c2) = (of(1.0 - self.beta1), of(1.0 - self.beta2));
        let first = of(1.0 / (1.0 - self.beta1.powi(t)));
        let second = of(1.0 / (1.0 - self.beta2.powi(t)).sqrt());
        let [m, v] = state else { unreachable!("two slots") };
        let size = cpu::rows_per_piece(1);
        let slices = [gradient.slice_mut::<T>(), m.slice_mut::<T>(), v.slice_mut::<T>()];
        let pieces = slices[0].len().div_ceil(size);
        cpu::split(pieces, slices.map(|slice| (slice, size)), |_, [g, m, v]| {
            cpu::simd(
                #[inline(always)]
                || {
                    for ((g, m), v) in g.iter_mut().zip(m).zip(v) {
                        let scaled = *g * factor;
                        *m = b1 * *m + c1 * scaled;
                        *v = b2 * *v + c2 * scaled * scaled;
                        *g = *m * first / (v.sqrt() * second + epsilon);
                    }
                },
            );
        });
    }
}

/// Momentum SGD: u = β u + g (Polyak 1964). State: 1 float a parameter, none for β = 0.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    /// Decay of the running sum.
    pub beta: f64,
}

impl Transform for Momentum {
    fn slots(&self) -> Vec<&'static str> {
        vec!["momentum"]
    }

    fn state(&self, parameter: &Spec) -> Vec<Spec> {
        if self.beta == 0.0 { Vec::new() } else { vec![*parameter] }
    }

    fn update(&self, _: u64, state: &mut [Array], mut gradient: Array, factor: f64) -> Array {
        if gradient.device().computes() {
            float!(gradient.dtype(), T => self.kernel::<T>(state, &mut gradient, factor));
        }
        gradient
    }

    fn record(&self, numbers: &Numbers, state: &mut [Array], mut gradient: Array, first: bool) -> Array {
        Momentum::record(self, numbers, state, &mut gradient, first);
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

/// Transforms one after the other, each working on what the last one made.
pub struct Chain(pub Vec<Box<dyn Transform>>);

impl Transform for Chain {
    fn slots(&self) -> Vec<&'static str> {
        self.0.iter().flat_map(|transform| transform.slots()).collect()
    }

    fn state(&self, parameter: &Spec) -> Vec<Spec> {
        self.0.iter().flat_map(|transform| transform.state(parameter)).collect()
    }

    fn update(&self, step: u64, mut state: &mut [Array], gradient: Array, factor: f64) -> Array {
        let spec = gradient.spec();
        let mut update = gradient;
        for (i, transform) in self.0.iter().enumerate() {
            let (own, rest) = state.split_at_mut(transform.state(&spec).len());
            update = transform.update(step, own, update, if i == 0 { factor } else { 1.0 });
            state = rest;
        }
        update
    }

    fn decays(&self) -> Option<[f64; 2]> {
        self.0.iter().find_map(|transform| transform.decays())
    }

    fn record(&self, numbers: &Numbers, mut state: &mut [Array], gradient: Array, first: bool) -> Array {
        let spec = gradient.spec();
        let mut update = gradient;
        for (i, transform) in self.0.iter().enumerate() {
            let (own, rest) = state.split_at_mut(transform.state(&spec).len());
            update = transform.record(numbers, own, update, first && i == 0);
            state = rest;
        }
        update
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    /// Each link has its own part of the state, and the factor scales the gradient once.
    #[test]
    fn a_chain_works_on_what_the_last_link_made() {
        let device = Device::cpu();
        let one = |x: f64| device.upload(&[x], [1].into());
        let chain = Chain(vec![Box::new(Momentum { beta: 0.5 }), Box::new(Momentum { beta: 0.25 })]);
        assert_eq!((chain.slots().len(), chain.state(&one(0.0).spec()).len()), (2, 2));
        let mut state = [one(0.0), one(0.0)];
        let mut step = |gradient: f64| chain.update(0, &mut state, one(gradient), 2.0).slice::<f64>()[0];
        assert_eq!(step(1.0), 2.0); // first link 2, second 2
        assert_eq!(step(1.0), 3.5); // first link 1 + 2, second 0.5 + 3
    }
}
