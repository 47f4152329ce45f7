//! Ops with one part of their derivative negated: what the checker has to catch.

use eckart::autograd::{Derivative, Fused, Pull, Push, Rule, Saved, SavedArrays, Saves, Tangents, jvp, vjp};
use eckart::ops::{Op, Outputs, Sample};
use eckart::{Array, Spec, Tensor};
use std::sync::Arc;

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every cotangent.
    Reverse,
    /// The cotangent of one operand.
    Cotangent(usize),
    /// The tangent.
    Forward,
    /// The backward kernel of a fused op.
    BackwardKernel,
    /// The backward formula of a fused op.
    Formula,
    /// The tangent kernel of a fused op.
    TangentKernel,
    /// The tangent kernel of a fused op's backward pass.
    BackwardTangentKernel,
}

/// The op of `inner`, with one part negated.
#[derive(Debug)]
pub struct Flipped {
    inner: Sample,
    part: Part,
}

impl Flipped {
    /// The same sample, of the flipped op.
    pub fn of(sample: &Sample, part: Part) -> Sample {
        let op = Arc::new(Flipped { inner: sample.clone(), part });
        Sample { op, inputs: sample.inputs.clone() }
    }

    fn fused(&self) -> &dyn Fused {
        match self.inner.op.derivative() {
            Derivative::Fused(rule) => rule,
            _ => unreachable!("kernels are flipped for fused ops alone"),
        }
    }

    fn sign(&self, part: Part) -> f64 {
        if self.part == part { -1.0 } else { 1.0 }
    }
}

impl Op for Flipped {
    fn name(&self) -> &'static str {
        self.inner.op.name()
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        self.inner.op.infer(ins)
    }
    fn view(&self, x: &Array) -> Option<Array> {
        self.inner.op.view(x)
    }
    fn contiguous(&self) -> bool {
        self.inner.op.contiguous()
    }
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        self.inner.op.residuals(ins)
    }
    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        self.inner.op.scratch(ins)
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.inner.op.cpu(ins, out)
    }
    fn derivative(&self) -> Derivative<'_> {
        match (self.inner.op.derivative(), self.part) {
            (Derivative::Zero, _) => Derivative::Zero,
            (_, Part::Reverse | Part::Cotangent(_) | Part::Forward) => Derivative::Custom(self),
            _ => Derivative::Fused(self),
        }
    }
}

/// Another node for the same tensor, so that two uses of it can be told apart.
fn alias(t: &Tensor) -> Tensor {
    if t.is_traced() { t.reshape(*t.shape()) } else { t.leaf() }
}

/// The inner op's rules, whatever their class, by running it again.
impl Rule for Flipped {
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::INPUTS
    }

    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let inputs: Vec<&Tensor> = (0..needs.len()).map(|i| saved.input(i)).collect();
        let differentiable = c.is_traced() || inputs.iter().any(|t| t.is_traced());
        let x: Vec<Tensor> =
            inputs.iter().zip(needs).map(|(&t, &needed)| if needed { alias(t) } else { t.clone() }).collect();
        let wanted: Vec<&Tensor> = x.iter().zip(needs).filter(|(_, needed)| **needed).map(|(t, _)| t).collect();
        let y = self.inner.apply(&x.iter().collect::<Vec<_>>());
        let mut pulled = vjp(&y, c, &wanted, differentiable).into_iter();
        let flips = |i: usize| self.part == Part::Reverse || self.part == Part::Cotangent(i);
        let mut next = |i: usize| pulled.next().map(|g| if flips(i) { -g } else { g });
        needs.iter().enumerate().map(|(i, &needed)| if needed { next(i) } else { None }).collect()
    }

    fn jvp(&self, ins: &[Tensor], _: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let apply = |x: &[Tensor]| self.inner.apply(&x.iter().collect::<Vec<_>>());
        let tangent = jvp(apply, ins, &[tangents.to_vec()]).1.remove(0);
        Some(tangent * self.sign(Part::Forward))
    }
}

fn scale(array: &mut Array, by: f64) {
    array.slice_mut::<f64>().iter_mut().for_each(|x| *x *= by);
}

impl Fused for Flipped {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        self.fused().composition(ins)
    }
    fn saves(&self, needs: &[bool]) -> Saves {
        self.fused().saves(needs)
    }
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        self.fused().backward(saved, c, grads, scratch);
        grads.iter_mut().flatten().for_each(|grad| scale(grad, self.sign(Part::BackwardKernel)));
    }
    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        self.fused().backward_scratch(ins)
    }
    fn formula(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Option<Vec<Option<Tensor>>> {
        let sign = self.sign(Part::Formula);
        let found = self.fused().formula(saved, c, needs)?;
        Some(found.into_iter().map(|t| t.map(|t| t * sign)).collect())
    }
    fn tangents(&self) -> Option<&dyn Tangents> {
        self.fused().tangents().map(|_| self as &dyn Tangents)
    }
}

impl Tangents for Flipped {
    fn forward(&self, push: Push<'_>, out: &mut Array, scratch: Option<&mut Array>) {
        let kernels = self.fused().tangents().expect("asked only where there are kernels");
        kernels.forward(push, out, scratch);
        scale(out, self.sign(Part::TangentKernel));
    }
    fn forward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        self.fused().tangents().and_then(|kernels| kernels.forward_scratch(ins))
    }
    fn has_backward(&self) -> bool {
        self.fused().tangents().is_some_and(|kernels| kernels.has_backward())
    }
    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        let kernels = self.fused().tangents().expect("asked only where there are kernels");
        kernels.backward(pull, grads, scratch);
        grads.iter_mut().flatten().for_each(|grad| scale(grad, self.sign(Part::BackwardTangentKernel)));
    }
    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        self.fused().tangents().and_then(|kernels| kernels.backward_scratch(ins))
    }
}
