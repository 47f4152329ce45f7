//! Sums over any dimensions; what else reduces is written with them or in files of its own.

pub(super) mod gpu;

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Transpose};
use crate::device::cpu::row;
use crate::device::{Array, Spec, cpu};
use crate::float;
use crate::scalar::Float;
use crate::shape::{Shape, Strides};
use crate::tensor::Tensor;

/// Sum over dimensions, which keep size 1, see [`Tensor::sum`].
#[derive(Debug)]
pub struct Sum {
    axes: Vec<usize>,
}

/// `shape` with the `axes` reduced to size 1.
pub(crate) fn reduced(shape: &Shape, axes: &[usize]) -> Shape {
    axes.iter().fold(*shape, |shape, &axis| shape.with(axis, 1))
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        match ins[0].dtype.computes() {
            true => Ok(Spec { shape: reduced(&ins[0].shape, &self.axes), ..ins[0] }),
            false => Err(format!("no arithmetic on {}: cast to f32 first", ins[0].dtype)),
        }
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => sum::<T>(ins[0], &self.axes, out.y))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        gpu::record(gpu::SUM, ins[0], &self.axes, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Sum {
    fn transpose(&self, _: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        c.broadcast_to(specs[0].shape)
    }
}

/// Moves the reduced dimensions to one end: kept ones first, then adds up rows; or, where the innermost dimension is
/// kept and lies side by side, adds whole rows, which vectorises.
fn sum<T: Float>(x: &Array, axes: &[usize], y: &mut Array) {
    let kept: Vec<usize> = (0..x.shape().len()).filter(|axis| !axes.contains(axis)).collect();
    let width = x.shape().last_size();
    let count = x.count() / y.count().max(1);
    if x.count() == 0 {
        return y.slice_mut::<T>().fill(T::zero());
    }
    let columns = kept.iter().all(|&axis| x.shape()[axis] == 1 || axis + 1 == x.shape().len());
    if columns && kept.last().is_some_and(|&axis| axis + 1 == x.shape().len()) && x.contiguous() {
        let x = x.slice::<T>();
        return cpu::sum_rows(count, y.slice_mut::<T>(), |first, last, sum| {
            add_rows(&x[first * width..last * width], sum)
        });
    }
    let x = gathered(x, axes);
    let x = x.slice::<T>();
    let out = y.slice_mut::<T>();
    if out.len() == 1 {
        out[0] = total(
            [x],
            #[inline(always)]
            |[x]| x,
        );
        return;
    }
    let task = (32 * 1024 / count.max(1)).max(1);
    cpu::blocks_into(out, task, |i, out| {
        for (j, y) in out.iter_mut().enumerate() {
            *y = add_up(&x[(i * task + j) * count..][..count]);
        }
    });
}

/// The elements with the `axes` innermost, row by row: what one result is made of lies side by side.
pub(super) fn gathered(x: &Array, axes: &[usize]) -> Array {
    let kept = (0..x.shape().len()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let sizes: Vec<usize> = order.iter().map(|&axis| x.shape()[axis]).collect();
    let steps: Vec<isize> = order.iter().map(|&axis| x.strides()[axis]).collect();
    x.view(0, Shape::new(&sizes), Strides::new(&steps)).to_contiguous()
}

#[inline]
fn add_rows<T: Float>(rows: &[T], sum: &mut [T]) {
    cpu::simd(
        #[inline(always)]
        || {
            for row in rows.chunks_exact(sum.len()) {
                for (s, x) in sum.iter_mut().zip(row) {
                    *s += *x;
                }
            }
        },
    );
}

/// Sum in a fixed order, on one thread.
pub(crate) fn add_up<T: Float>(x: &[T]) -> T {
    cpu::simd(
        #[inline(always)]
        || {
            row::sum(
                [x],
                #[inline(always)]
                |[x]| x,
            )
        },
    )
}

/// Sum of a term of everything, in parallel pieces.
pub(super) fn total<const N: usize, T: Float>(ins: [&[T]; N], term: impl Fn([T; N]) -> T + Copy + Sync) -> T {
    const PIECE: usize = 64 * 1024;
    let count = ins[0].len();
    let mut partial = vec![T::zero(); count.div_ceil(PIECE)];
    cpu::blocks_into(&mut partial, 1, |i, sum| {
        let piece = ins.map(|x| &x[i * PIECE..((i + 1) * PIECE).min(count)]);
        sum[0] = cpu::simd(
            #[inline(always)]
            || row::sum(piece, term),
        );
    });
    add_up(&partial)
}

impl Tensor {
    /// Sum over `axes` (negative counts from the end), which keep size 1.
    #[track_caller]
    pub fn sum_keep(&self, axes: &[isize]) -> Tensor {
        let axes = axes.iter().map(|&axis| self.shape().axis(axis)).collect();
        Tensor::apply(Sum { axes }, &[self])
    }

    /// Sum over `axes` (negative counts from the end), which vanish.
    #[track_caller]
    pub fn sum(&self, axes: &[isize]) -> Tensor {
        self.sum_keep(axes).without(axes)
    }

    /// Sum of all elements, a scalar.
    #[track_caller]
    pub fn sum_all(&self) -> Tensor {
        let axes: Vec<isize> = (0..self.shape().len() as isize).collect();
        self.sum(&axes)
    }

    /// Mean over `axes` (negative counts from the end), which vanish.
    #[track_caller]
    pub fn mean(&self, axes: &[isize]) -> Tensor {
        let count: usize = axes.iter().map(|&axis| self.shape()[self.shape().axis(axis)]).product();
        self.sum(axes) * (1.0 / count as f64)
    }

    /// Mean of all elements, a scalar.
    #[track_caller]
    pub fn mean_all(&self) -> Tensor {
        self.sum_all() * (1.0 / self.count() as f64)
    }

    /// Removes dimensions of size 1.
    #[track_caller]
    pub(crate) fn without(&self, axes: &[isize]) -> Tensor {
        let gone: Vec<usize> = axes.iter().map(|&axis| self.shape().axis(axis)).collect();
        let sizes: Vec<usize> =
            (0..self.shape().len()).filter(|axis| !gone.contains(axis)).map(|axis| self.shape()[axis]).collect();
        self.reshape(&sizes[..])
    }

    /// Sums what broadcasting from `shape` repeated: the transpose of [`Tensor::broadcast_to`].
    #[track_caller]
    pub fn sum_to(&self, shape: &Shape) -> Tensor {
        if self.shape() == shape {
            return self.clone();
        }
        let lead = self.shape().len() - shape.len();
        let stretched = |axis: usize| axis < lead || (shape[axis - lead] == 1 && self.shape()[axis] != 1);
        let axes: Vec<isize> =
            (0..self.shape().len()).filter(|&axis| stretched(axis)).map(|axis| axis as isize).collect();
        self.sum_keep(&axes).reshape(*shape)
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let x = || [Input::normal([3, 4, 2])];
    vec![
        Sample::new(Sum { axes: vec![0] }, x()),
        Sample::new(Sum { axes: vec![0, 1] }, x()),
        Sample::new(Sum { axes: vec![1, 2] }, x()),
    ]
}
