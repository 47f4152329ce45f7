//! A step on a GPU. What changes from step to step lies in two small storages, so that the commands of one step, once
//! recorded, serve all: the host writes the learning rate, and the device finds norm, clipping, bias corrections and
//! whether the step is to be left out. Kernels: `shaders/optimizer.wgsl`.

use super::{Adam, Gradients, Momentum, Stepped, Turn};
use crate::device::kernel::Kernel;
use crate::device::part::unit;
use crate::device::{Array, Device, Spec, Tag, tagged};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;
use std::ops::Range;

/// Elements behind one partial sum of squares.
const PART: usize = 4096;
/// Most parameters of one dispatch: as many as its words have room for.
const MOST_NORMED: usize = 15;
const MOST_STEPPED: usize = 6;

/// What a step goes by.
pub struct Numbers {
    /// Rate, clip (0 for none).
    given: Array,
    /// Norm, loss, skip, taken, factor and two bias corrections, as bits.
    pub(super) found: Array,
}

/// What a step came to, read back.
pub struct Found {
    /// Norm, and whether the step was taken.
    pub stepped: Stepped,
    /// The loss it was given; 0 if none.
    pub loss: f64,
}

impl Numbers {
    /// For an optimizer that has taken `taken` steps.
    pub fn new(taken: u64, device: &Device) -> Numbers {
        tagged(Tag::Optimizer, || {
            let found = [0, 0, 0, u32::try_from(taken).expect("fewer than 2³² steps"), 0, 0, 0, 0];
            let given = device.alloc(Spec::new(DType::F32, [2]));
            Numbers { given, found: device.upload(&found, [8].into()) }
        })
    }

    /// Sets what the next step goes by.
    pub fn give(&mut self, rate: f64, clip: Option<f64>) {
        self.given.feed(&[rate as f32, clip.unwrap_or(0.0) as f32]);
    }

    /// Reads what the last step came to; it waits for the GPU.
    pub fn read(&self) -> Result<Found> {
        if !self.found.device().computes() {
            return Ok(Found { stepped: Stepped { norm: f64::NAN, taken: true }, loss: f64::NAN });
        }
        let found = self.found.to_host()?;
        let found = found.slice::<u32>();
        let number = |i: usize| f64::from(f32::from_bits(found[i]));
        let stepped = Stepped { norm: number(0), taken: found[2] == 0 };
        Ok(Found { stepped, loss: number(1) })
    }

    /// Steps taken, the present one included if it is: a scalar.
    pub(super) fn time(&self) -> Tensor {
        Tensor::from_array(self.found.clone()).slice(0, 3, 1).cast(DType::F32).reshape([])
    }

    /// Records: the gradient times the clip's factor.
    pub(super) fn scale(&self, gradient: &mut Array) {
        for part in gradient.parts(unit(4)) {
            let count = part.len();
            let kernel = transform("scale", true).write_part(gradient, part).read(&self.found);
            kernel.words([count, 0]).run(count.div_ceil(256));
        }
    }

    /// Records: a slot of the state gets a new value, if the step is taken.
    pub(super) fn store(&self, slot: &mut Array, value: &Array) {
        for part in slot.parts(unit(4)) {
            let count = part.len();
            let kernel = optimizer("store").write_part(slot, part.clone()).read_part(value, part).read(&self.found);
            kernel.words([count, 0]).run(count.div_ceil(256));
        }
    }

    /// Records the norm of `gradients` and all that follows from it. `decays` are those of Adam's two means.
    pub(super) fn judge(&mut self, gradients: &Gradients, decays: [f64; 2], loss: Option<&Array>) {
        let device = self.found.device().clone();
        let gradients = gradients.lengths();
        let parts = |gradient: &Array| gradient.count().div_ceil(PART);
        let all = gradients.iter().map(parts).sum();
        let mut partials = device.scratch(Spec::new(DType::F32, [usize::max(all, 1)]));
        let mut start = 0;
        let bound: Vec<_> =
            gradients.iter().flat_map(|gradient| gradient.parts(PART).map(move |part| (gradient, part))).collect();
        for bound in bound.chunks((device.bindings() - 1).min(MOST_NORMED)) {
            let mut groups = 0;
            let mut kernel = squares(bound.len()).write(&mut partials).word(start);
            for (gradient, part) in bound {
                kernel = kernel.read_part(gradient, part.clone()).words([part.len(), groups]);
                groups += part.len().div_ceil(PART);
            }
            kernel.run(groups);
            start += groups;
        }
        let loss_or_any = loss.unwrap_or(&self.given);
        let judge = kernel("optimizer", "judge").name("HAS_LOSS", loss.is_some()).name("FIRST", false);
        let kernel = judge.write(&mut self.found).read(&partials).read(&self.given).read(loss_or_any);
        // Smaller powers than e⁻⁸⁰ are none at all.
        let [b1, b2] = decays.map(|decay| decay.ln().max(-80.0));
        kernel.words([0, start]).float(b1).float(b2).run(1);
    }

    /// Records `w −= rate scale (u + decay w)`.
    pub(super) fn subtract(&self, weight: &mut Array, update: &Array, scale: f64, decay: f64) {
        for part in weight.parts(unit(4)) {
            let count = part.len();
            let kernel = optimizer("subtract").write_part(weight, part.clone()).read_part(update, part);
            let kernel = kernel.read(&self.given).read(&self.found);
            let kernel = (0..5).fold(kernel.words([count, 0]), |kernel, _| kernel.float(0.0));
            kernel.float(scale).float(decay).run(count.div_ceil(256));
        }
    }
}

/// With what `shaders/lanes.wgsl` wants: sums over whole workgroups.
fn kernel<'a>(shader: &'static str, entry: &'static str) -> Kernel<'a> {
    Kernel::new(shader, entry).name("LANES", "256u").name("LANE_STEP", "1u")
}

fn squares<'a>(gradients: usize) -> Kernel<'a> {
    kernel("squares", "squares").name("TENSORS", gradients)
}

fn optimizer<'a>(entry: &'static str) -> Kernel<'a> {
    transform(entry, false)
}

/// `first`: whether it scales the gradient by the clip's factor.
fn transform<'a>(entry: &'static str, first: bool) -> Kernel<'a> {
    kernel("optimizer", entry).name("HAS_LOSS", false).name("FIRST", first)
}

impl Adam {
    /// Update and weight in one pass, as many parameters at once as the device binds.
    pub(super) fn record_adamw(&self, numbers: &Numbers, turns: &mut [Turn<'_>]) {
        let together = ((numbers.found.device().bindings() - 2) / 4).min(MOST_STEPPED);
        let (mut whole, large): (Vec<_>, Vec<_>) = turns.iter_mut().partition(|turn| turn.weight.fits());
        whole.chunks_mut(together).for_each(|turns| {
            let gradients: Vec<Array> = turns.iter_mut().map(|turn| turn.gradient()).collect();
            self.record_together(numbers, turns, &gradients, None);
        });
        for turn in large {
            let gradient = [turn.gradient()];
            for part in turn.weight.parts(unit(4)) {
                self.record_together(numbers, &mut [&mut *turn], &gradient, Some(part));
            }
        }
    }

    /// `part`: of each of them, or else all.
    fn record_together(
        &self,
        numbers: &Numbers,
        turns: &mut [&mut Turn<'_>],
        gradients: &[Array],
        part: Option<Range<usize>>,
    ) {
        let mut kernel = self.decays_of(Kernel::new("adamw", "adamw").name("TENSORS", turns.len()));
        let mut groups = 0;
        for (turn, gradient) in turns.iter_mut().zip(gradients) {
            let part = part.clone().unwrap_or(0..turn.weight.count());
            let [m, v] = &mut turn.state[..] else { unreachable!("two slots") };
            kernel = kernel.words([part.len(), groups]).float(turn.rate).float(turn.decay);
            groups += part.len().div_ceil(4).div_ceil(256);
            kernel = kernel.write_part(turn.weight, part.clone()).write_part(m, part.clone());
            kernel = kernel.write_part(v, part.clone()).read_part(gradient, part);
        }
        kernel.read(&numbers.given).read(&numbers.found).run(groups);
    }

    pub(super) fn decays_of<'a>(&self, kernel: Kernel<'a>) -> Kernel<'a> {
        let kernel = kernel.float(self.beta1).float(self.beta2);
        kernel.float(1.0 - self.beta1).float(1.0 - self.beta2).float(self.epsilon)
    }

    pub(super) fn record(&self, numbers: &Numbers, state: &mut [Array], gradient: &mut Array, first: bool) {
        let [m, v] = state else { unreachable!("two slots") };
        for part in gradient.parts(unit(4)) {
            let count = part.len();
            let kernel = transform("adam", first).write_part(gradient, part.clone()).write_part(m, part.clone());
            let kernel = kernel.write_part(v, part).read(&numbers.found);
            self.decays_of(kernel.words([count, 0])).run(count.div_ceil(256));
        }
    }
}

impl Momentum {
    pub(super) fn record(&self, numbers: &Numbers, state: &mut [Array], gradient: &mut Array, first: bool) {
        let Some(velocity) = state.first_mut() else {
            return if first {
                numbers.scale(gradient)
            };
        };
        for part in gradient.parts(unit(4)) {
            let count = part.len();
            let kernel = transform("momentum", first).write_part(gradient, part.clone()).write_part(velocity, part);
            kernel.read(&numbers.found).words([count, 0]).float(self.beta).run(count.div_ceil(256));
        }
    }
}
