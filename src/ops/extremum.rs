//! Largest and smallest elements over dimensions, where the largest lies, and the smooth form of it.

use super::reduce::{gathered, gpu as reduction, reduced};
use super::rows::Rows;
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Rule, Saved, Saves};
use crate::device::cpu::row;
use crate::device::{Array, Spec, cpu};
use crate::dtype::DType;
use crate::float;
use crate::scalar::Float;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Largest or smallest element over dimensions, which keep size 1, see [`Tensor::max`] and [`Tensor::min`].
///
/// Elements that share the extreme share its gradient equally; its tangent is the mean of theirs.
#[derive(Debug)]
pub struct Extremum {
    axes: Vec<usize>,
    largest: bool,
}

fn arithmetic(x: &Spec) -> Result<(), String> {
    match x.dtype.computes() {
        true => Ok(()),
        false => Err(format!("no arithmetic on {}: cast to f32 first", x.dtype)),
    }
}

impl Op for Extremum {
    fn name(&self) -> &'static str {
        if self.largest { "max" } else { "min" }
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        arithmetic(&ins[0])?;
        let shape = reduced(&ins[0].shape, &self.axes);
        match ins[0].shape.count() == 0 && shape.count() > 0 {
            true => Err(format!("no elements to choose from in shape {:?}", ins[0].shape)),
            false => Ok(Spec { shape, ..ins[0] }),
        }
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => match self.largest {
            true => reduce::<T>(ins[0], &self.axes, out.y, row::largest),
            false => reduce::<T>(ins[0], &self.axes, out.y, row::smallest),
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let join = if self.largest { reduction::LARGEST } else { reduction::SMALLEST };
        reduction::record(join, ins[0], &self.axes, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }
}

fn reduce<T: Float>(x: &Array, axes: &[usize], y: &mut Array, f: impl Fn(&[T]) -> T + Sync + Send) {
    let count = x.count() / y.count();
    let x = gathered(x, axes);
    let x = x.slice::<T>();
    let group = cpu::rows_per_piece(count);
    cpu::blocks_into(y.slice_mut::<T>(), group, |i, y| {
        let rows = x[i * group * count..].chunks_exact(count);
        cpu::simd(
            #[inline(always)]
            || {
                for (y, row) in y.iter_mut().zip(rows) {
                    *y = f(row);
                }
            },
        )
    });
}

/// For each element its share in the extreme: 1/n if it is one of n, else 0.
fn shares(x: &Tensor, y: &Tensor, axes: &[usize]) -> Tensor {
    let (x, y) = (x.detach(), y.detach());
    let chosen = x.equal(&y).cast(x.dtype());
    let axes: Vec<isize> = axes.iter().map(|&axis| axis as isize).collect();
    &chosen / &chosen.sum_keep(&axes)
}

impl Rule for Extremum {
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::INPUTS.and_output()
    }
    fn vjp(&self, saved: &Saved, c: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(c * &shares(saved.input(0), saved.output(), &self.axes))]
    }
    fn jvp(&self, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let axes: Vec<isize> = self.axes.iter().map(|&axis| axis as isize).collect();
        Some((tangents[0].as_ref()? * &shares(&ins[0], y, &self.axes)).sum_keep(&axes))
    }
}

/// Index of the largest element along the last dimension, see [`Tensor::argmax`].
#[derive(Debug)]
pub struct Argmax;

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        arithmetic(&ins[0])?;
        match ins[0].shape.last() {
            None | Some(0) => Err(format!("no elements to choose from in shape {:?}", ins[0].shape)),
            Some(_) => Ok(Spec { dtype: DType::U32, shape: Shape::new(ins[0].shape.leading(1)) }),
        }
    }
    fn contiguous(&self) -> bool {
        true
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => argmax::<T>(ins[0], out.y))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let rows = Rows::new(ins[0], &[]);
        let kernel = rows.kernel("extremum", "argmax").write(out.y).read(ins[0]);
        kernel.word(rows.place(ins[0])).float(f64::NEG_INFINITY).run(rows.groups());
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Zero
    }
}

fn argmax<T: Float>(x: &Array, y: &mut Array) {
    let width = x.shape().last_size();
    let x = x.slice::<T>();
    let group = cpu::rows_per_piece(width);
    cpu::blocks_into(y.slice_mut::<u32>(), group, |i, y| {
        let rows = x[i * group * width..].chunks_exact(width);
        cpu::simd(
            #[inline(always)]
            || {
                for (y, row) in y.iter_mut().zip(rows) {
                    let largest = row::largest(row);
                    *y = row.iter().position(|&x| x == largest).unwrap_or(0) as u32;
                }
            },
        )
    });
}

impl Tensor {
    fn extremum(&self, axes: &[isize], largest: bool) -> Tensor {
        let axes = axes.iter().map(|&axis| self.shape().axis(axis)).collect();
        Tensor::apply(Extremum { axes, largest }, &[self])
    }

    /// Largest element over `axes` (negative counts from the end), which keep size 1. NaN is passed over.
    #[track_caller]
    pub fn max_keep(&self, axes: &[isize]) -> Tensor {
        self.extremum(axes, true)
    }

    /// Largest element over `axes` (negative counts from the end), which vanish. NaN is passed over; elements that
    /// are equally large share the gradient.
    #[track_caller]
    pub fn max(&self, axes: &[isize]) -> Tensor {
        self.max_keep(axes).without(axes)
    }

    /// Smallest element over `axes` (negative counts from the end), which vanish. NaN is passed over; elements that
    /// are equally small share the gradient.
    #[track_caller]
    pub fn min(&self, axes: &[isize]) -> Tensor {
        self.extremum(axes, false).without(axes)
    }

    /// Index (u32) of the largest element along `axis` (negative counts from the end), which vanishes; of the first
    /// of several.
    #[track_caller]
    pub fn argmax(&self, axis: isize) -> Tensor {
        let mut order: Vec<usize> = (0..self.shape().len()).collect();
        let axis = order.remove(self.shape().axis(axis));
        order.push(axis);
        Tensor::apply(Argmax, &[&self.permute(&order)])
    }

    /// ln Σ eˣ over `axes` (negative counts from the end), which vanish; shifted by the largest element, so that
    /// nothing overflows.
    #[track_caller]
    pub fn logsumexp(&self, axes: &[isize]) -> Tensor {
        let largest = self.max_keep(axes).detach();
        ((self - &largest).exp().sum_keep(axes).log() + largest).without(axes)
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let over = |axes: &[usize], largest| Extremum { axes: axes.to_vec(), largest };
    let x = || [Input::distinct([3, 4, 2], 0.1)];
    vec![
        Sample::new(over(&[0], true), x()),
        Sample::new(over(&[0, 2], true), x()),
        Sample::new(over(&[1], true), [Input::distinct([2, 33], 0.1)]),
        Sample::new(over(&[1, 2], false), x()),
        Sample::new(over(&[1], false), [Input::distinct([2, 131], 0.1)]),
        Sample::new(Argmax, [Input::distinct([3, 33], 0.1)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::grad;
    use crate::device::Device;

    fn matrix(values: &[f64]) -> Tensor {
        Tensor::new(values, [2, values.len() / 2], &Device::cpu())
    }

    #[test]
    fn ties_share_the_gradient() {
        let x = matrix(&[1.0, 3.0, 3.0, 2.0, 0.0, -1.0]).leaf();
        let dx = &grad(&x.max(&[1]).sum_all(), &[&x], false)[0];
        assert_eq!(dx.to_vec::<f64>().unwrap(), [0.0, 0.5, 0.5, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn argmax_names_the_first() {
        let x = matrix(&[1.0, 3.0, 3.0, 2.0, 0.0, 4.0]);
        assert_eq!(x.argmax(1).to_vec::<u32>().unwrap(), [1, 2]);
        assert_eq!(x.argmax(0).to_vec::<u32>().unwrap(), [1, 0, 1]);
    }

    #[test]
    fn logsumexp_does_not_overflow() {
        let y = matrix(&[1000.0, 1000.0, -1000.0, -3e38]).logsumexp(&[-1]).to_vec::<f64>().unwrap();
        assert_eq!(y, [1000.0 + 2_f64.ln(), -1000.0]);
    }
}
