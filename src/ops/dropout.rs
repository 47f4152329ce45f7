//! Dropout (Srivastava et al. 2014) with a mask that is a function of seed and position, never stored.

use super::walk::{CHUNK, Reader};
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Transpose};
use crate::device::kernel::{Kernel, Views};
use crate::device::{Array, Spec, cpu};
use crate::float;
use crate::rng::Seed;
use crate::scalar::Float;
use crate::tensor::Tensor;

/// Zeros some elements and scales the others, see [`Tensor::dropout`]. Given the seed it is linear, and symmetric.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    probability: f64,
    seed: Seed,
}

/// Elements that one task takes.
const TASK: usize = 16 * CHUNK;

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        if !(0.0..1.0).contains(&self.probability) {
            return Err(format!("probability {} is not in [0, 1)", self.probability));
        }
        match ins[0].dtype.computes() {
            true => Ok(ins[0]),
            false => Err(format!("no arithmetic on {}: cast to f32 first", ins[0].dtype)),
        }
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => self.drop::<T>(ins[0], out.y))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins[0], out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Dropout {
    /// Word w keeps its element if w ≥ p 2³².
    fn threshold(&self) -> u32 {
        (self.probability * 2_f64.powi(32)) as u32
    }

    fn scale(&self) -> f64 {
        1.0 / (1.0 - self.probability)
    }

    fn record(&self, x: &Array, y: &mut Array) {
        let (views, count) = (Views::new(&[x]), x.count());
        let dense = views.dense().is_some_and(|steps| steps[0] == 1);
        let kernel = Kernel::new("dropout", if dense { "dense" } else { "strided" }).write(y).read(x);
        let words = [self.seed.key()[0], self.seed.key()[1], self.threshold()].map(|word| word as usize);
        views.fill(kernel.words(words).float(self.scale()), count).run(count.div_ceil(4).div_ceil(256));
    }

    fn drop<T: Float>(&self, x: &Array, y: &mut Array) {
        let x = Reader::<T>::new(x);
        let (threshold, scale) = (self.threshold(), T::of(self.scale()));
        cpu::blocks_into(y.slice_mut::<T>(), TASK, |task, out| {
            let (mut space, mut words) = ([T::zero(); CHUNK], [[0; 4]; CHUNK / 4]);
            for (i, out) in out.chunks_mut(CHUNK).enumerate() {
                let start = task * TASK + i * CHUNK;
                let x = x.read(start, out.len(), &mut space);
                cpu::simd(
                    #[inline(always)]
                    || {
                        let first = start as u64 / 4;
                        for (block, words) in (first..).zip(&mut words) {
                            *words = self.seed.block(block);
                        }
                        for ((y, x), word) in out.iter_mut().zip(x).zip(words.as_flattened()) {
                            *y = if *word >= threshold { *x * scale } else { T::zero() };
                        }
                    },
                );
            }
        });
    }
}

impl Transpose for Dropout {
    fn transpose(&self, _: usize, c: &Tensor, _: &[Spec]) -> Tensor {
        Tensor::apply(*self, &[c])
    }
}

impl Tensor {
    /// Each element becomes 0 with this probability, else it is divided by 1 − p, so that expectations stay.
    ///
    /// Element i (row by row) is kept if word i of `seed` is at least p 2³²: the same mask on any device, in backward,
    /// and when the step is run again. Give every layer and step a seed of its own, see [`Seed::fold`].
    #[track_caller]
    pub fn dropout(&self, probability: f64, seed: Seed) -> Tensor {
        Tensor::apply(Dropout { probability, seed }, &[self])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let seed = Seed(7);
    vec![
        Sample::new(Dropout { probability: 0.3, seed }, [Input::normal([3, 7])]),
        Sample::new(Dropout { probability: 0.0, seed }, [Input::normal([5])]),
        Sample::new(Dropout { probability: 0.5, seed }, [Input::normal([9, 65])]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn the_share_of_zeros_is_the_probability() {
        let x = Tensor::new(&vec![1.0_f32; 100_000], [100_000], &Device::cpu());
        let y = x.dropout(0.2, Seed(1)).to_vec::<f32>().unwrap();
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
        assert!((dropped - 0.2).abs() < 4.0 * (0.16_f64 / 1e5).sqrt(), "{dropped}");
        assert!(y.iter().all(|&y| y == 0.0 || y == 1.25));
    }

    #[test]
    fn the_mask_is_that_of_the_position_in_row_order() {
        let x = Tensor::new(&vec![1.0_f64; 6000], [60, 100], &Device::cpu());
        let seed = Seed(2);
        let kept = |i: usize| seed.block(i as u64 / 4)[i % 4] >= 1 << 31;
        let want: Vec<f64> = (0..6000).map(|i| if kept(i) { 2.0 } else { 0.0 }).collect();
        assert_eq!(x.dropout(0.5, seed).to_vec::<f64>().unwrap(), want);
        assert_eq!(x.reshape([100, 60]).t().dropout(0.5, seed).to_vec::<f64>().unwrap(), want);
    }
}
