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

    /// The step of all parameters, with `factor` on their gradients: each in turn by its update. A transform with a
    /// kernel that goes over weight, gradient and state at once overrides it.
    fn step(&self, step: u64, factor: f64, turns: &mut [Turn<'_>]) {
        for turn in turns {
            let gradient = turn.gradient.take().expect("one step for a gradient");
            let update = self.update(step, turn.state, gradient, factor);
            subtract(turn.weight, &update, turn.rate, turn.decay);
        }
    }

    /// Records the same for a GPU; rates of `turns` are factors on the one that the device is given.
    fn record_step(&self, numbers: &Numbers, turns: &mut [Turn<'_>]) {
        for turn in turns {
            let gradient = turn.gradient.take().expect("one step for a gradient");
            let update = self.record(numbers, turn.state, gradient, true);
            numbers.subtract(turn.weight, &update, turn.rate, turn.decay);
        }
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

/// A parameter in a step.
pub struct Turn<'a> {
    /// Its value, which nothing else refers to.
    pub weight: &'a mut Array,
    /// Used up by the step.
    pub gradient: Option<Array>,
    /// As declared by [`Transform::state`].
    pub state: &'a mut Vec<Array>,
    /// Learning rate of its group.
    pub rate: f64,
    /// Decoupled weight decay of its group.
    pub decay: f64,
}

/// `w -= rate (u + decay w)`.
fn subtract(weight: &mut Array, update: &Array, rate: f64, decay: f64) {
    if weight.device().computes() {
        float!(weight.dtype(), T => subtract_as::<T>(weight, update, rate, decay));
    }
}

fn subtract_as<T: Float>(weight: &mut Array, update: &Array, rate: f64, decay: f64) {
    let (keep, rate) = (<T as Real>::of(1.0 - rate * decay), <T as Real>::of(rate));
    let update = update.slice::<T>();
    cpu::rows(weight.slice_mut::<T>(), 1, |first, w| {
        let u = &update[first..first + w.len()];
        cpu::simd(
            #[inline(always)]
            || {
                for (w, u) in w.iter_mut().zip(u) {
                    *w = *w * keep - rate * *u;
                }
            },
        );
    });
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
            float!(gradient.dtype(), T => {
                let formula = Formula::<T>::new(self, step, factor);
                let [m, v] = state else { unreachable!("two slots") };
                let pieces = pieces([gradient.slice_mut(), m.slice_mut(), v.slice_mut()]);
                cpu::each(pieces.collect(), |[g, m, v]| formula.write([m, v], g));
            });
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

    fn step(&self, step: u64, factor: f64, turns: &mut [Turn<'_>]) {
        for turns in turns.chunk_by_mut(|a, b| a.weight.dtype() == b.weight.dtype()) {
            if turns[0].weight.device().computes() {
                float!(turns[0].weight.dtype(), T => Formula::<T>::new(self, step, factor).step(turns));
            }
        }
    }

    fn record_step(&self, numbers: &Numbers, turns: &mut [Turn<'_>]) {
        self.record_adamw(numbers, turns);
    }
}

/// Corresponding pieces of arrays, small enough to share the work out well.
fn pieces<const N: usize, T>(arrays: [&mut [T]; N]) -> impl Iterator<Item = [&mut [T]; N]> {
    let mut rest = arrays;
    std::iter::from_fn(move || {
        let size = cpu::rows_per_piece(1).min(rest[0].len());
        let piece = rest.each_mut().map(|rest| rest.split_off_mut(..size).expect("all of one length"));
        (size > 0).then_some(piece)
    })
}

/// Adam's constants at one step.
struct Formula<T> {
    decays: [T; 2],
    shares: [T; 2],
    /// Corrections of both means for their start at zero: the first's, and the root of the second's.
    corrections: [T; 2],
    epsilon: T,
    /// On gradients.
    factor: T,
}

impl<T: Float> Formula<T> {
    fn new(adam: &Adam, step: u64, factor: f64) -> Self {
        let t = step as i32 + 1;
        let betas = [adam.beta1, adam.beta2];
        let [first, second] = betas.map(|beta| 1.0 / (1.0 - beta.powi(t)));
        Formula {
            decays: betas.map(T::of),
            shares: betas.map(|beta| T::of(1.0 - beta)),
            corrections: [T::of(first), T::of(second.sqrt())],
            epsilon: T::of(adam.epsilon),
            factor: T::of(factor),
        }
    }

    /// The update of one number; moves its means.
    #[inline(always)]
    fn update(&self, g: T, m: &mut T, v: &mut T) -> T {
        let scaled = g * self.factor;
        *m = self.decays[0] * *m + self.shares[0] * scaled;
        *v = self.decays[1] * *v + self.shares[1] * scaled * scaled;
        *m * self.corrections[0] / (v.sqrt() * self.corrections[1] + self.epsilon)
    }

    /// Writes updates over gradients.
    fn write(&self, [m, v]: [&mut [T]; 2], g: &mut [T]) {
        cpu::simd(
            #[inline(always)]
            || {
                for ((g, m), v) in g.iter_mut().zip(m).zip(v) {
                    *g = self.update(*g, m, v);
                }
            },
        );
    }

    /// Takes the step of all parameters: one pass, in pieces that go to any thread.
    fn step(&self, turns: &mut [Turn<'_>]) {
        let gradients: Vec<Array> = turns.iter_mut().filter_map(|turn| turn.gradient.take()).collect();
        let mut all = Vec::new();
        for (turn, gradient) in turns.iter_mut().zip(&gradients) {
            let [m, v] = &mut turn.state[..] else { unreachable!("two slots") };
            let size = cpu::rows_per_piece(1);
            let arrays = pieces([turn.weight.slice_mut(), m.slice_mut(), v.slice_mut()]);
            let (keep, rate) = (T::of(1.0 - turn.rate * turn.decay), T::of(turn.rate));
            all.extend(arrays.zip(gradient.slice::<T>().chunks(size)).map(|(arrays, g)| (arrays, g, keep, rate)));
        }
        cpu::each(all, |([w, m, v], g, keep, rate)| {
            cpu::simd(
                #[inline(always)]
                || {
                    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
                        *w = *w * keep - rate * self.update(*g, m, v);
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

    /// Adam's own step, over all parameters at once, gives the bits of update and subtraction one after the other.
    #[test]
    fn adam_in_one_pass_is_adam_in_two() {
        let device = Device::cpu();
        let sizes = [3, 1, 40_000, 0, 17];
        let array = |k: usize, i: usize| {
            let values: Vec<f32> = (0..sizes[i]).map(|j| ((j * 7 + k * 13 + i) % 101) as f32 / 50.0 - 1.0).collect();
            device.upload(&values, [sizes[i]].into())
        };
        let run = |transform: &dyn Transform| {
            let mut weights: Vec<Array> = (0..sizes.len()).map(|i| array(0, i)).collect();
            let mut state: Vec<Vec<Array>> = (0..sizes.len()).map(|i| vec![zeros(sizes[i]), zeros(sizes[i])]).collect();
            for step in 0..3 {
                let turn = |(i, (weight, state))| Turn {
                    weight,
                    gradient: Some(array(step + 1, i)),
                    state,
                    rate: 0.1,
                    decay: 0.01 * i as f64,
                };
                let mut turns: Vec<Turn<'_>> = weights.iter_mut().zip(&mut state).enumerate().map(turn).collect();
                transform.step(step as u64, 0.5, &mut turns);
            }
            weights.iter().chain(state.iter().flatten()).flat_map(|x| x.slice::<f32>().to_vec()).collect::<Vec<f32>>()
        };
        let at_once = run(&Adam::default());
        assert_eq!(at_once, run(&Chain(vec![Box::new(Adam::default())])));
        assert_eq!(at_once.len(), 3 * sizes.iter().sum::<usize>());
        assert_ne!(at_once[0], array(0, 0).slice::<f32>()[0]);
    }

    fn zeros(count: usize) -> Array {
        Device::cpu().upload(&vec![0.0_f32; count], [count].into())
    }
}
