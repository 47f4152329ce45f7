//! A product added to something: `z + s a b`, in one pass over the result.

use super::elementwise::{self, record_copy};
use super::linear::Linear;
use super::matmul::gpu_product;
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Rule, Saved, Saves};
use crate::device::cpu::{self, Matrix, Start};
use crate::device::{Array, Spec, Tag, tagged};
use crate::float;
use crate::scalar::Float;
use crate::shape::Strides;
use crate::tensor::Tensor;

/// `z + s a b`; operands are z `[.., out]`, a `[.., inner]`, b `[inner, out]` (transposed: `[out, inner]`).
#[derive(Debug, Clone, Copy)]
pub struct AddProduct {
    /// Factor s on the product.
    pub factor: f64,
    /// Whether b is stored as [out, inner].
    pub transposed: bool,
}

/// Rows that one task takes.
const ROWS: usize = 256;

impl AddProduct {
    /// `inner` and `out`.
    fn sizes(&self, b: &Spec) -> (usize, usize) {
        if self.transposed { (b.shape[1], b.shape[0]) } else { (b.shape[0], b.shape[1]) }
    }
}

impl Op for AddProduct {
    fn name(&self) -> &'static str {
        "add_product"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let [z, a, b] = [&ins[0], &ins[1], &ins[2]];
        if ins.iter().any(|spec| spec.dtype != z.dtype) || !z.dtype.computes() {
            return Err(format!("operands of types {}, {} and {}", z.dtype, a.dtype, b.dtype));
        }
        let fits = !z.shape.is_empty() && a.shape.len() == z.shape.len() && b.shape.len() == 2;
        let (inner, out) = if fits { self.sizes(b) } else { (0, 0) };
        if !fits || a.shape != z.shape.with(z.shape.len() - 1, inner) || z.shape.last_size() != out {
            let stored = if self.transposed { "[out, inner]" } else { "[inner, out]" };
            return Err(format!("{:?} plus {:?} times a matrix {stored} of {:?}", z.shape, a.shape, b.shape));
        }
        Ok(*z)
    }

    fn contiguous(&self) -> bool {
        true
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => self.add::<T>(ins, out.y))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        record_copy(ins[0], out.y);
        let b = scaled(ins[2], self.factor);
        gpu_product(ins[1], &turned(&b, self.transposed), out.y, None, true, None);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }
}

impl AddProduct {
    fn add<T: Float>(&self, ins: &[&Array], y: &mut Array) {
        let (inner, out) = self.sizes(&ins[2].spec());
        let (z, a) = (ins[0].slice::<T>(), ins[1].slice::<T>());
        let b = stored(ins[2].slice(), [inner, out], self.transposed);
        cpu::blocks_into(y.slice_mut::<T>(), ROWS * out, |task, y| {
            let (first, rows) = (task * ROWS, y.len() / out);
            y.copy_from_slice(&z[first * out..][..rows * out]);
            let a = stored(&a[first * inner..], [rows, inner], false);
            cpu::matmul_alone((rows, inner, out), a, b, y, Start::Held, T::of(self.factor));
        });
    }

    /// `sum` plus the term of these operands.
    fn term(&self, sum: Option<Tensor>, a: &Tensor, b: &Tensor) -> Tensor {
        match sum {
            Some(sum) => Tensor::apply(*self, &[&sum, a, b]),
            None => Tensor::apply(Linear { transposed: self.transposed }, &[a, b]) * self.factor,
        }
    }
}

impl Rule for AddProduct {
    fn saves(&self, needs: &[bool]) -> Saves {
        let which: Vec<usize> = [(1, needs[2]), (2, needs[1])].iter().filter(|(_, on)| *on).map(|(i, _)| *i).collect();
        Saves::inputs(&which)
    }

    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let back = Linear { transposed: !self.transposed };
        let da = needs[1].then(|| Tensor::apply(back, &[c, saved.input(2)]) * self.factor);
        let db = needs[2].then(|| {
            let (a, c) = (saved.input(1).rows(), c.rows());
            (if self.transposed { c.t().matmul(&a) } else { a.t().matmul(&c) }) * self.factor
        });
        vec![needs[0].then(|| c.clone()), da, db]
    }

    fn jvp(&self, ins: &[Tensor], _: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let along_a = match &tangents[1] {
            Some(da) => Some(self.term(tangents[0].clone(), da, &ins[2])),
            None => tangents[0].clone(),
        };
        match &tangents[2] {
            Some(db) => Some(self.term(along_a, &ins[1], db)),
            None => along_a,
        }
    }
}

/// A matrix [rows, columns] in a slice, perhaps stored as [columns, rows].
pub(super) fn stored<T>(data: &[T], [rows, columns]: [usize; 2], transposed: bool) -> Matrix<'_, T> {
    match transposed {
        true => Matrix { data, row_step: 1, col_step: rows as isize },
        false => Matrix { data, row_step: columns as isize, col_step: 1 },
    }
}

/// A matrix, or its transpose.
pub(super) fn turned(matrix: &Array, transposed: bool) -> Array {
    let (shape, steps) = (matrix.shape(), matrix.strides());
    match transposed {
        true => matrix.view(0, [shape[1], shape[0]].into(), Strides::new(&[steps[1], steps[0]])),
        false => matrix.clone(),
    }
}

/// A small matrix times a number, on a GPU.
pub(super) fn scaled(matrix: &Array, factor: f64) -> Array {
    if factor == 1.0 {
        return matrix.clone();
    }
    let device = matrix.device();
    let mut product = device.scratch(matrix.spec());
    if product.count() > 0 {
        let factor = tagged(Tag::Workspace, || device.constant(factor as f32));
        elementwise::record("times_f32", &[matrix, &factor], &mut product);
    }
    product
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |factor, transposed, b: [usize; 2]| {
        let ins = [Input::normal([2, 3, 5]), Input::normal([2, 3, 4]), Input::normal(b)];
        Sample::new(AddProduct { factor, transposed }, ins)
    };
    vec![
        sample(1.0, false, [4, 5]),
        sample(-0.7, true, [5, 4]),
        Sample::new(
            AddProduct { factor: 2.0, transposed: false },
            [Input::normal([300, 3]), Input::normal([300, 1]), Input::normal([1, 3])],
        ),
    ]
}
