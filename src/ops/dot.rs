//! Sums of products, without the products.

use super::reduce::{gpu, total};
use super::{Input, Op, Outputs, Sample, elementwise};
use crate::autograd::{Derivative, Transpose2};
use crate::device::{Array, Spec};
use crate::float;
use crate::tensor::Tensor;

/// Σ a b over all elements, see [`Tensor::dot`].
#[derive(Debug)]
pub struct Dot;

impl Op for Dot {
    fn name(&self) -> &'static str {
        "dot"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (a, b) = (&ins[0], &ins[1]);
        match a.dtype.computes() {
            _ if a != b => Err(format!("{} of shape {:?} and {} of shape {:?}", a.dtype, a.shape, b.dtype, b.shape)),
            true => Ok(Spec::new(a.dtype, [])),
            false => Err(format!("no arithmetic on {}: cast to f32 first", a.dtype)),
        }
    }
    fn contiguous(&self) -> bool {
        true
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            let sum = total([ins[0].slice::<T>(), ins[1].slice::<T>()], #[inline(always)] |[a, b]| a * b);
            out.y.slice_mut::<T>()[0] = sum;
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let mut products = out.y.device().scratch(ins[0].spec());
        elementwise::record("times_f32", ins, &mut products);
        let axes: Vec<usize> = (0..products.shape().len()).collect();
        gpu::record(gpu::SUM, &products, &axes, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Bilinear(self)
    }
}

impl Transpose2 for Dot {
    fn transpose(&self, _: usize, c: &Tensor, other: &Tensor, _: &Spec) -> Tensor {
        c * other
    }
}

impl Tensor {
    /// Sum of the products of all elements of two tensors of one shape, a scalar.
    #[track_caller]
    pub fn dot(&self, other: &Tensor) -> Tensor {
        Tensor::apply(Dot, &[self, other])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let shapes: [&[usize]; 3] = [&[3, 4, 2], &[70], &[]];
    shapes.map(|shape| Sample::new(Dot, [Input::normal(shape), Input::normal(shape)])).into()
}
