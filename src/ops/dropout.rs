//! Dropout (Srivastava et al. 2014) with a mask that is a function of seed and position, never stored.

use super::walk::CHUNK;
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Rule, Saved, Saves};
use crate::device::kernel::Kernel;
use crate::device::{Array, Device, Spec, cpu};
use crate::dtype::DType;
use crate::float;
use crate::rng::Seed;
use crate::scalar::Float;
use crate::tensor::Tensor;

/// Which elements dropout keeps: a seed on a device, and the numbers to be folded into it there. A kernel reads the seed
/// when it runs, so that a recorded step can be given another one each time it is replayed.
#[derive(Clone, Debug)]
pub struct Mask {
    /// Low and high word, `[2]`.
    seed: Tensor,
    folds: Folds,
}

/// What [`Seed::fold`] is called with, one after the other.
type Folds = [Option<u64>; 2];

impl Mask {
    /// Uploads a seed.
    pub fn new(seed: Seed, device: &Device) -> Mask {
        Mask { seed: Tensor::new(&seed.key(), [2], device), folds: [None; 2] }
    }

    /// The mask of [`Seed::fold`]: one of its own for item `n`, such as a layer. Panics beyond the second.
    #[track_caller]
    pub fn fold(&self, n: u64) -> Mask {
        let mut mask = self.clone();
        let free = mask.folds.iter_mut().find(|fold| fold.is_none());
        *free.expect("a mask has room for two folds: fold others into the seed") = Some(n);
        mask
    }

    /// Takes another seed for all that is recorded or replayed from now on.
    pub(crate) fn feed(&mut self, seed: Seed) {
        self.seed.value.feed(&seed.key());
    }
}

/// Zeros some elements of x and scales the others, by a seed `[2]` (u32), see [`Tensor::dropout`]. Given the seed it is
/// linear in x, and symmetric.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    probability: f64,
    folds: Folds,
}

/// Elements that a GPU's thread takes, in fours.
const DRAWS: usize = 4;

/// Elements that one task takes.
const TASK: usize = 16 * CHUNK;

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (x, seed) = (&ins[0], &ins[1]);
        if !(0.0..1.0).contains(&self.probability) {
            return Err(format!("probability {} is not in [0, 1)", self.probability));
        }
        if *seed != Spec::new(DType::U32, [2]) {
            return Err(format!("a seed is u32 [2], not {} {:?}", seed.dtype, seed.shape));
        }
        match x.dtype.computes() {
            true => Ok(*x),
            false => Err(format!("no arithmetic on {}: cast to f32 first", x.dtype)),
        }
    }
    fn contiguous(&self) -> bool {
        true
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let words = ins[1].slice();
        let seed = Seed::of_key([words[0], words[1]]);
        let seed = self.folds.iter().flatten().fold(seed, |seed, n| seed.fold(*n));
        float!(ins[0].dtype(), T => self.drop::<T>(ins[0].slice(), seed, out.y))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins[0], ins[1], out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
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

    fn record(&self, x: &Array, seed: &Array, y: &mut Array) {
        let (count, start) = (x.count(), x.offset());
        let (entry, start) = if start.is_multiple_of(4) { ("fours", start / 4) } else { ("ones", start) };
        let kernel = Kernel::new("dropout", entry).name("DRAWS", format!("{DRAWS}u")).write(y).read(x).read(seed);
        let kernel = kernel.words([count, start, seed.offset(), self.threshold() as usize]).float(self.scale());
        let kernel = kernel.word(self.folds.iter().flatten().count());
        let halves = self.folds.iter().flat_map(|fold| Seed(fold.unwrap_or_default()).key());
        kernel.words(halves.map(|half| half as usize)).run(count.div_ceil(4).div_ceil(256 * DRAWS));
    }

    fn drop<T: Float>(&self, x: &[T], seed: Seed, y: &mut Array) {
        let (threshold, scale) = (self.threshold(), T::of(self.scale()));
        cpu::blocks_into(y.slice_mut::<T>(), TASK, |task, out| {
            let mut words = [[0; 4]; CHUNK / 4];
            let starts = (task * TASK..).step_by(CHUNK);
            for (start, out) in starts.zip(out.chunks_mut(CHUNK)) {
                let x = &x[start..start + out.len()];
                cpu::simd(
                    #[inline(always)]
                    || {
                        let first = start as u64 / 4;
                        for (block, words) in (first..).zip(&mut words) {
                            *words = seed.block(block);
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

/// Linear in x for a seed, which nothing flows to.
impl Rule for Dropout {
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::inputs(&[1])
    }
    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        vec![needs[0].then(|| Tensor::apply(*self, &[c, saved.input(1)])), None]
    }
    fn jvp(&self, ins: &[Tensor], _: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        tangents[0].as_ref().map(|t| Tensor::apply(*self, &[t, &ins[1]]))
    }
}

impl Tensor {
    /// Each element becomes 0 with this probability, else it is divided by 1 − p, so that expectations stay.
    ///
    /// Element i (row by row) is kept if word i of `seed` is at least p 2³²: the same mask on any device, in backward,
    /// and when the step is run again. Give every layer and step a seed of its own, see [`Seed::fold`].
    #[track_caller]
    pub fn dropout(&self, probability: f64, seed: Seed) -> Tensor {
        self.dropout_by(probability, &Mask::new(seed, self.device()))
    }

    /// [`Tensor::dropout`] by a seed that lies on the device.
    #[track_caller]
    pub fn dropout_by(&self, probability: f64, mask: &Mask) -> Tensor {
        Tensor::apply(Dropout { probability, folds: mask.folds }, &[self, &mask.seed])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |probability, folds: Folds, sizes: &[usize]| {
        let inputs = [Input::normal(sizes), Input::index([2], u32::MAX)];
        Sample::new(Dropout { probability, folds }, inputs)
    };
    vec![
        sample(0.3, [None; 2], &[3, 7]),
        sample(0.0, [Some(0), None], &[5]),
        sample(0.5, [Some(3), Some(1)], &[9, 65]),
        sample(0.2, [Some(u64::MAX), None], &[1]),
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

    #[test]
    fn folds_of_a_mask_are_those_of_its_seed() {
        let device = Device::cpu();
        let x = Tensor::new(&[1.0_f64; 100], [100], &device);
        let (seed, mask) = (Seed(3), Mask::new(Seed(3), &device));
        let same = |mask: &Mask, seed| {
            let [by_mask, by_seed] =
                [x.dropout_by(0.5, mask), x.dropout(0.5, seed)].map(|y| y.to_vec::<f64>().unwrap());
            assert_eq!(by_mask, by_seed);
        };
        same(&mask, seed);
        same(&mask.fold(u64::MAX), seed.fold(u64::MAX));
        same(&mask.fold(1 << 40).fold(0), seed.fold(1 << 40).fold(0));
    }

    #[test]
    #[should_panic(expected = "room for two folds")]
    fn a_third_fold_is_refused() {
        Mask::new(Seed(0), &Device::null()).fold(0).fold(1).fold(2);
    }
}
