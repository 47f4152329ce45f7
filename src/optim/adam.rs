//! Adam, in one pass over weights, gradients and state.

use super::{At, ChangeBasis, Now, Slot, Transform, Turn};
use crate::device::{Array, Spec, cpu};
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;

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
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        vec![("m", *parameter), ("v", *parameter)]
    }

    /// Means of squares: from zero, the steps of what is new would be several times too long, because the correction of
    /// their start goes by the run's steps.
    fn grows_at_mean(&self) -> &'static [&'static str] {
        &["v"]
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], mut gradient: Array) -> Array {
        if let Some(numbers) = at.now.numbers {
            self.record(numbers, state, &mut gradient, at.first);
        } else if gradient.device().computes() {
            float!(gradient.dtype(), T => {
                let formula = Formula::<T>::new(self, at.now.step, at.factor());
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

    fn moves(&self) -> Option<&dyn ChangeBasis> {
        Some(self)
    }

    fn step(&self, now: &Now<'_>, turns: &mut [Turn<'_>]) {
        if let Some(numbers) = now.numbers {
            return self.record_adamw(numbers, turns);
        }
        for turns in turns.chunk_by_mut(|a, b| a.weight.dtype() == b.weight.dtype()) {
            if turns[0].weight.device().computes() {
                float!(turns[0].weight.dtype(), T => Formula::<T>::new(self, now.step, now.factor).step(turns));
            }
        }
    }
}

impl ChangeBasis for Adam {
    /// LDAdam's rule (Robert et al. 2024): the mean is moved as a vector, the variance around it with the squares of Q.
    fn change_basis(&self, at: &At<'_>, state: &mut [Array], q: &Tensor) {
        let before = at.time() - 1.0;
        let weight = |beta: f64| (&before * beta.ln().max(-80.0)).exp() * -1.0 + 1.0;
        let [m, v] = [&state[0], &state[1]].map(|slot| Tensor::from_array(slot.clone()));
        let mean = &m / weight(self.beta1);
        let total = weight(self.beta2);
        let variance = &v / &total - &mean * &mean;
        let moved = q.matmul(&mean);
        let square = ((q * q).matmul(&variance) + &moved * &moved).abs() * total;
        let first = q.matmul(&m);
        // A GPU writes slots in place.
        drop((m, v));
        at.store(&mut state[0], first);
        at.store(&mut state[1], square);
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
pub(super) struct Formula<T> {
    decays: [T; 2],
    shares: [T; 2],
    /// Corrections of both means for their start at zero: the first's, and the root of the second's.
    corrections: [T; 2],
    epsilon: T,
    /// On gradients.
    factor: T,
}

impl<T: Float> Formula<T> {
    pub fn new(adam: &Adam, step: u64, factor: f64) -> Self {
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
    pub fn update(&self, g: T, m: &mut T, v: &mut T) -> T {
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
        let gradients: Vec<Array> = turns.iter_mut().map(Turn::gradient).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::optim::{Chain, Held};
    use crate::rng::Seed;

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
                    gradient: Some(Held::Dense(array(step + 1, i))),
                    state,
                    seed: Seed(0),
                    rate: 0.1,
                    decay: 0.01 * i as f64,
                };
                let mut turns: Vec<Turn<'_>> = weights.iter_mut().zip(&mut state).enumerate().map(turn).collect();
                transform.step(&Now { step: step as u64, factor: 0.5, numbers: None }, &mut turns);
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
