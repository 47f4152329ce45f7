//! Softmax and its logarithm over one dimension.

use super::rows::Rows;
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Fused, GpuBackward, GpuTangents, Push, Saved, SavedArrays, Saves, Tangents};
use crate::device::cpu::row;
use crate::device::{Array, Spec, cpu};
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;

/// Softmax over the last dimension, or its logarithm, see [`Tensor::softmax`] and [`Tensor::log_softmax`].
///
/// Of everything it needs for its derivatives it keeps the result alone.
#[derive(Debug)]
pub struct Softmax {
    log: bool,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        match ins[0].dtype.computes() {
            true => Ok(ins[0]),
            false => Err(format!("no arithmetic on {}: cast to f32 first", ins[0].dtype)),
        }
    }
    fn contiguous(&self) -> bool {
        true
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => match self.log {
            false => by_rows([ins[0]], out.y, #[inline(always)] |[x], y: &mut [T]| softmax(x, y)),
            true => by_rows([ins[0]], out.y, #[inline(always)] |[x], y: &mut [T]| log_softmax(x, y)),
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        record(self.name(), ins, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

/// An entry of `shaders/softmax.wgsl`.
fn record(entry: &'static str, ins: &[&Array], y: &mut Array) {
    let rows = Rows::new(ins[0], &ins[1..]);
    let kernel = ins.iter().fold(rows.kernel("softmax", entry).write(y), |kernel, x| kernel.read(x));
    kernel.words(ins.iter().map(|x| rows.place(x))).run(rows.groups());
}

/// Calls `f(rows, row of y)` for every row, in parallel, compiled for SIMD.
fn by_rows<const N: usize, T: Float>(ins: [&Array; N], y: &mut Array, f: impl Fn([&[T]; N], &mut [T]) + Sync + Send) {
    let width = y.shape().last_size();
    let ins = ins.map(|x| x.slice::<T>());
    cpu::rows(y.slice_mut::<T>(), width, |first, out| {
        cpu::simd(
            #[inline(always)]
            || {
                for (i, y) in out.chunks_exact_mut(width).enumerate() {
                    f(ins.map(|x| &x[(first + i) * width..][..width]), y);
                }
            },
        )
    });
}

#[inline(always)]
fn softmax<T: Float>(x: &[T], y: &mut [T]) {
    let largest = row::largest(x);
    row::map(
        [x],
        y,
        #[inline(always)]
        |[x]| (x - largest).exp(),
    );
    let scale = T::one()
        / row::sum(
            [&*y],
            #[inline(always)]
            |[e]| e,
        );
    for y in y {
        *y = *y * scale;
    }
}

#[inline(always)]
fn log_softmax<T: Float>(x: &[T], y: &mut [T]) {
    let log = log_sum_exp(x);
    row::map(
        [x],
        y,
        #[inline(always)]
        |[x]| x - log,
    );
}

/// ln Σ eˣ of a row, shifted by its largest element.
#[inline(always)]
pub(super) fn log_sum_exp<T: Float>(x: &[T]) -> T {
    let largest = row::largest(x);
    let sum: T = row::sum(
        [x],
        #[inline(always)]
        |[x]| (x - largest).exp(),
    );
    largest + sum.ln()
}

/// (diag y − y yᵀ) t, the derivative of softmax, which is its own transpose.
#[inline(always)]
fn project<T: Float>([y, t]: [&[T]; 2], out: &mut [T]) {
    let mean: T = row::sum(
        [y, t],
        #[inline(always)]
        |[y, t]| y * t,
    );
    row::map(
        [y, t],
        out,
        #[inline(always)]
        |[y, t]| y * (t - mean),
    );
}

/// t − Σ eʸ t, the derivative of log-softmax.
#[inline(always)]
fn log_push<T: Float>([y, t]: [&[T]; 2], out: &mut [T]) {
    let mean: T = row::sum(
        [y, t],
        #[inline(always)]
        |[y, t]| y.exp() * t,
    );
    row::map(
        [t],
        out,
        #[inline(always)]
        |[t]| t - mean,
    );
}

/// c − eʸ Σ c, its transpose.
#[inline(always)]
fn log_pull<T: Float>([y, c]: [&[T]; 2], out: &mut [T]) {
    let total: T = row::sum(
        [c],
        #[inline(always)]
        |[c]| c,
    );
    row::map(
        [y, c],
        out,
        #[inline(always)]
        |[y, c]| c - y.exp() * total,
    );
}

impl Fused for Softmax {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let shifted = &ins[0] - &ins[0].max_keep(&[-1]).detach();
        let e = shifted.exp();
        let sum = e.sum_keep(&[-1]);
        if self.log { shifted - sum.log() } else { e / sum }
    }

    fn saves(&self, _: &[bool]) -> Saves {
        Saves::OUTPUT
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], _: Option<&mut Array>) {
        let Some(dx) = &mut grads[0] else { return };
        let ins = [saved.output(), c];
        float!(c.dtype(), T => match self.log {
            false => by_rows(ins, dx, #[inline(always)] |ins, dx: &mut [T]| project(ins, dx)),
            true => by_rows(ins, dx, #[inline(always)] |ins, dx: &mut [T]| log_pull(ins, dx)),
        })
    }

    fn formula(&self, saved: &Saved, c: &Tensor, _: &[bool]) -> Option<Vec<Option<Tensor>>> {
        let y = saved.output();
        let dx = match self.log {
            false => y * &(c - &(c * y).sum_keep(&[-1])),
            true => c - &(y.exp() * c.sum_keep(&[-1])),
        };
        Some(vec![Some(dx)])
    }

    fn tangents(&self) -> Option<&dyn Tangents> {
        Some(self)
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

impl GpuBackward for Softmax {
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]) {
        if let Some(dx) = &mut grads[0] {
            record(if self.log { "log_pull" } else { "project" }, &[saved.output(), c], dx);
        }
    }
}

impl Tangents for Softmax {
    fn forward(&self, push: Push<'_>, out: &mut Array, _: Option<&mut Array>) {
        let Push { y, tangents, .. } = push;
        let ins = [y, tangents[0].expect("the only operand moves")];
        float!(y.dtype(), T => match self.log {
            false => by_rows(ins, out, #[inline(always)] |ins, out: &mut [T]| project(ins, out)),
            true => by_rows(ins, out, #[inline(always)] |ins, out: &mut [T]| log_push(ins, out)),
        })
    }

    /// The formula costs as little, and only the result is kept.
    fn has_backward(&self) -> bool {
        false
    }

    fn gpu(&self) -> Option<&dyn GpuTangents> {
        Some(self)
    }
}

impl GpuTangents for Softmax {
    fn forward(&self, push: Push<'_>, out: &mut Array) {
        let Push { y, tangents, .. } = push;
        let along = tangents[0].expect("the only operand moves");
        record(if self.log { "log_push" } else { "project" }, &[y, along], out);
    }
}

impl Tensor {
    /// yᵢ = e^(xᵢ) / Σⱼ e^(xⱼ) along dimension `axis` (negative counts from the end).
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Tensor {
        self.along_last(axis, |x| Tensor::apply(Softmax { log: false }, &[x]))
    }

    /// yᵢ = xᵢ − ln Σⱼ e^(xⱼ) along dimension `axis` (negative counts from the end).
    #[track_caller]
    pub fn log_softmax(&self, axis: isize) -> Tensor {
        self.along_last(axis, |x| Tensor::apply(Softmax { log: true }, &[x]))
    }

    /// Applies what works on the last dimension to another one.
    #[track_caller]
    fn along_last(&self, axis: isize, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
        match self.shape().axis(axis) {
            axis if axis + 1 == self.shape().len() => f(self),
            axis => f(&self.transpose(axis as isize, -1)).transpose(axis as isize, -1),
        }
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let shapes = [[3, 5], [2, 1], [2, 7], [2, 33], [1, 65], [2, 131]];
    let both = [false, true].into_iter().flat_map(|log| shapes.map(|shape| (log, shape)));
    both.map(|(log, shape)| Sample::new(Softmax { log }, [Input::normal(shape)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn masked_and_extreme_logits_give_probabilities() {
        let x = Tensor::new(&[-3.4e38_f32, 1e4, 1e4, -3.4e38, -3.4e38, -3.4e38], [2, 3], &Device::cpu());
        let third = 1.0 / 3.0;
        assert_eq!(x.softmax(-1).to_vec::<f32>().unwrap(), [0.0, 0.5, 0.5, third, third, third]);
        let log = x.log_softmax(1).to_vec::<f32>().unwrap();
        assert!((log[1] + 2_f32.ln()).abs() < 1e-3 && log.iter().all(|y| y.is_finite()), "{log:?}");
    }

    #[test]
    fn other_dimensions_are_reached() {
        let x = Tensor::new(&[0.0, 1.0, 0.5, 3.0_f64.ln(), 1.0, 0.5], [2, 3], &Device::cpu());
        let y = x.softmax(0).to_vec::<f64>().unwrap();
        let want = [0.25, 0.5, 0.5, 0.75, 0.5, 0.5];
        assert!(y.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-15), "{y:?}");
    }
}
