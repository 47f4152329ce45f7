//! A step on a GPU. What changes from step to step lies in two small storages, so that the commands of one step, once
//! recorded, serve all: the host writes the learning rate, and the device finds norm, clipping, bias corrections and
//! whether the step is to be left out. Kernels: `shaders/optimizer.wgsl`.

use super::{Adam, Gradients, Momentum, Stepped, Turn};
use crate::device::kernel::Kernel;
use crate::device::{Array, Device, Spec, Tag, tagged};
use crate::dtype::DType;
use crate::error::Result;

/// Elements behind one partial sum of squares.
const PART: usize = 4096;

/// What a step goes by.
pub struct Numbers {
    /// Rate, clip (0 for none).
    given: Array,
    /// Norm, loss, skip, taken, factor and two bias corrections, as bits.
    found: Array,
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

    /// Steps taken so far, and the scale of the gradients; it waits for the GPU.
    pub(super) fn host(&self) -> Result<(u64, f64, bool)> {
        let found = self.found.to_host()?;
        let found = found.slice::<u32>();
        Ok((u64::from(found[3]), f64::from(f32::from_bits(found[4])), found[2] != 0))
    }

    /// Records the norm of `gradients` and all that follows from it. `decays` are those of Adam's two means.
    pub(super) fn judge(&mut self, gradients: &Gradients, decays: [f64; 2], loss: Option<&Array>) {
        let device = self.found.device().clone();
        let counts = || gradients.arrays().map(|g| g.count().div_ceil(PART));
        let mut partials = device.scratch(Spec::new(DType::F32, [counts().sum::<usize>().max(1)]));
        let mut start = 0;
        for (gradient, parts) in gradients.arrays().zip(counts()) {
            let kernel = optimizer("squares").write(&mut partials).read(gradient);
            kernel.words([gradient.count(), start]).run(parts);
            start += parts;
        }
        let loss_or_any = loss.unwrap_or(&self.given);
        let kernel = Kernel::new("optimizer", "judge").name("HAS_LOSS", loss.is_some()).name("FIRST", false);
        let kernel = kernel.write(&mut self.found).read(&partials).read(&self.given).read(loss_or_any);
        kernel.words([0, start]).float(decays[0].ln()).float(decays[1].ln()).run(1);
    }

    /// Records `w −= rate scale (u + decay w)`.
    pub(super) fn subtract(&self, weight: &mut Array, update: &Array, scale: f64, decay: f64) {
        let count = weight.count();
        let kernel = optimizer("subtract").write(weight).read(update).read(&self.given).read(&self.found);
        let kernel = (0..5).fold(kernel.words([count, 0]), |kernel, _| kernel.float(0.0));
        kernel.float(scale).float(decay).run(count.div_ceil(256));
    }
}

fn optimizer<'a>(entry: &'static str) -> Kernel<'a> {
    Kernel::new("optimizer", entry).name("HAS_LOSS", false).name("FIRST", false)
}

/// `first`: whether it scales the gradient by the clip's factor.
fn transform<'a>(entry: &'static str, first: bool) -> Kernel<'a> {
    Kernel::new("optimizer", entry).name("HAS_LOSS", false).name("FIRST", first)
}

impl Adam {
    /// Update and weight in one pass.
    pub(super) fn record_adamw(&self, numbers: &Numbers, turn: &mut Turn<'_>, gradient: &Array) {
        let count = gradient.count();
        let [m, v] = &mut turn.state[..] else { unreachable!("two slots") };
        let kernel = optimizer("adamw").write(turn.weight).write(m).write(v).read(gradient);
        let kernel = kernel.read(&numbers.given).read(&numbers.found);
        self.numbers(kernel, count).float(turn.rate).float(turn.decay).run(count.div_ceil(4).div_ceil(256));
    }

    fn numbers<'a>(&self, kernel: Kernel<'a>, count: usize) -> Kernel<'a> {
        let kernel = kernel.words([count, 0]).float(self.beta1).float(self.beta2);
        kernel.float(1.0 - self.beta1).float(1.0 - self.beta2).float(self.epsilon)
    }

    pub(super) fn record(&self, numbers: &Numbers, state: &mut [Array], gradient: &mut Array, first: bool) {
        let count = gradient.count();
        let [m, v] = state else { unreachable!("two slots") };
        let kernel = transform("adam", first).write(gradient).write(m).write(v).read(&numbers.found);
        self.numbers(kernel, count).run(count.div_ceil(256));
    }
}

impl Momentum {
    pub(super) fn record(&self, numbers: &Numbers, state: &mut [Array], gradient: &mut Array, first: bool) {
        let count = gradient.count();
        let kernel = match state.first_mut() {
            Some(velocity) => transform("momentum", first).write(gradient).write(velocity),
            None => transform("scale", first).write(gradient),
        };
        kernel.read(&numbers.found).words([count, 0]).float(self.beta).run(count.div_ceil(256));
    }
}
