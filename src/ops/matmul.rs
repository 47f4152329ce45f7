//! Matrix products, plain and batched; operands are read as they lie.

mod gpu;
mod plan;
mod split;

pub(super) use gpu::Operand;
pub use gpu::product as gpu_product;
pub(super) use gpu::product_into as gpu_product_into;
pub use plan::Family;

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Transpose2};
use crate::device::cpu::{self, Start};
use crate::device::{Array, Spec};
use crate::float;
use crate::scalar::Float;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// `a b` over the last two dimensions; leading ones broadcast, see [`Tensor::matmul`].
#[derive(Debug)]
pub struct Matmul;

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (a, b) = (&ins[0], &ins[1]);
        if a.dtype != b.dtype || !a.dtype.computes() {
            return Err(format!("operands of types {} and {}", a.dtype, b.dtype));
        }
        if a.shape.len() < 2 || b.shape.len() < 2 || a.shape.last_size() != b.shape[b.shape.len() - 2] {
            return Err(format!("{:?} times {:?}", a.shape, b.shape));
        }
        let batch = Shape::new(a.shape.leading(2)).broadcast(&Shape::new(b.shape.leading(2)));
        let batch = batch.ok_or_else(|| format!("batches of {:?} and {:?} do not broadcast", a.shape, b.shape))?;
        let sizes = [&batch[..], &[a.shape[a.shape.len() - 2], b.shape.last_size()]].concat();
        Ok(Spec::new(a.dtype, &sizes[..]))
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => product::<T>(ins[0], ins[1], out.y, held(out.add)))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        gpu_product(ins[0], ins[1], out.y, None, out.add, None);
    }

    fn adds(&self) -> bool {
        true
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Bilinear(self)
    }
}

impl Transpose2 for Matmul {
    fn transpose(&self, i: usize, c: &Tensor, other: &Tensor, spec: &Spec) -> Tensor {
        match i {
            0 => c.matmul(&other.t()).sum_to(&spec.shape),
            _ if spec.shape.len() == 2 => other.rows().t().matmul(&c.rows()),
            _ => other.t().matmul(c).sum_to(&spec.shape),
        }
    }
}

/// Start from what the result holds, or from nothing.
pub(crate) fn held<T>(add: bool) -> Start<'static, T> {
    if add { Start::Held } else { Start::Nothing }
}

/// `y = start + a b` for arrays that fit; `y` is contiguous.
pub(crate) fn product<T: Float>(a: &Array, b: &Array, y: &mut Array, start: Start<'_, T>) {
    let (m, k, n) = (a.shape()[a.shape().len() - 2], a.shape().last_size(), b.shape().last_size());
    if let Some(rows) = rows_of(a, b) {
        let m = rows.shape()[0];
        return cpu::matmul((m, k, n), matrix::<T>(&rows, 0), matrix(b, 0), y.slice_mut(), start);
    }
    let batch = Shape::new(y.shape().leading(2));
    let offsets = |x: &Array| -> Vec<usize> {
        let lead = Shape::new(x.shape().leading(2));
        let strides = crate::shape::Strides::new(&x.strides()[..lead.len()]).broadcast(&lead, &batch);
        (0..batch.count()).map(|i| offset(i, &batch, &strides)).collect()
    };
    let (at, bt) = (offsets(a), offsets(b));
    let one = |i: usize, out: &mut [T]| {
        cpu::matmul((m, k, n), matrix(a, at[i]), matrix(b, bt[i]), out, start);
    };
    cpu::blocks_into(y.slice_mut::<T>(), (m * n).max(1), one);
}

/// All rows of `a` as one matrix, where they lie at one step and `b` is a weight shared by all batches.
fn rows_of(a: &Array, b: &Array) -> Option<Array> {
    let k = a.shape().last_size();
    if b.shape().len() == 2 && k > 0 { a.reshaped(Shape::new(&[a.count() / k, k])) } else { None }
}

/// Where batch `index` begins.
fn offset(mut index: usize, batch: &Shape, strides: &[isize]) -> usize {
    let mut at = 0;
    for axis in (0..batch.len()).rev() {
        at += (index % batch[axis]) * strides[axis] as usize;
        index /= batch[axis];
    }
    at
}

/// The last two dimensions from `offset` on.
pub(super) fn matrix<T: Float>(x: &Array, offset: usize) -> cpu::Matrix<'_, T> {
    let dims = x.shape().len();
    let data = x.raw();
    cpu::Matrix {
        data: &data[offset.min(data.len())..],
        row_step: x.strides()[dims - 2],
        col_step: x.strides()[dims - 1],
    }
}

impl Tensor {
    /// Matrix product over the last two dimensions, [.., m, k] times [.., k, n]; leading dimensions broadcast.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        Tensor::apply(Matmul, &[self, other])
    }

    /// All leading dimensions as one: [.., n] becomes [rows, n].
    #[track_caller]
    pub(crate) fn rows(&self) -> Tensor {
        // Counted, not divided: there are as many rows when each is empty.
        let rows = self.shape().iter().rev().skip(1).product();
        self.reshape([rows, self.shape().last_size()])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    vec![
        Sample::new(Matmul, [Input::normal([3, 4]), Input::normal([4, 5])]),
        Sample::new(Matmul, [Input::normal([2, 3, 4]), Input::normal([4, 2])]),
        Sample::new(Matmul, [Input::normal([2, 1, 3, 4]), Input::normal([3, 4, 2])]),
    ]
}
