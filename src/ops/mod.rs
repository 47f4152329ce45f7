//! Every primitive, one file each: shape rule, CPU kernel, derivative, sample inputs.
//!
//! A user's own op implements the same [`Op`] and is applied with [`Tensor::apply`].

pub(crate) mod accumulate;
pub mod attention;
pub mod bank;
pub mod binary;
pub mod compare;
pub mod cross_entropy;
pub mod dora;
pub mod dot;
pub mod dropout;
mod elementwise;
pub mod extremum;
mod host;
pub mod index;
pub mod linear;
pub mod lora;
pub mod matmul;
pub mod movement;
pub mod norm;
pub mod project;
pub mod quantised;
pub mod reduce;
pub mod rotary;
mod rows;
mod sample;
pub mod softmax;
pub mod unary;
mod walk;

pub use sample::{Fill, Input, Sample};

use crate::autograd::{Derivative, Factors, Saved};
use crate::device::{Array, Spec};
use crate::tensor::Tensor;

/// A primitive operation on tensors. A value of this type holds its constants (axes, epsilon).
///
/// Its kernels stand side by side: `cpu` computes on the host, `gpu` names entries of the shader file of the same name.
pub trait Op: Send + Sync + std::fmt::Debug {
    /// Name in messages and tables, and of the shader file.
    fn name(&self) -> &'static str;

    /// Type and shape of the result, or what is wrong with the operands: the only place where shapes are checked.
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String>;

    /// For ops that move no data: the result as a view of the only operand.
    fn view(&self, _x: &Array) -> Option<Array> {
        None
    }

    /// Whether kernels want their operands row by row without gaps.
    fn contiguous(&self) -> bool {
        false
    }

    /// What the forward kernel keeps for the backward kernel besides operands and result.
    fn residuals(&self, _ins: &[Spec]) -> Vec<Spec> {
        Vec::new()
    }

    /// Scratch of the forward kernel.
    fn scratch(&self, _ins: &[Spec]) -> Option<Spec> {
        None
    }

    /// Whether the kernel can add to what `y` holds, as products can: it spares their tangents a sum.
    fn adds(&self) -> bool {
        false
    }

    /// Computes the result on the host.
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>);

    /// Records kernels for a GPU. On the null device it is called too, so that scratch taken here is planned. Without
    /// one of its own, an op runs on the host, and the GPU waits for it.
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        host::run(self, ins, out);
    }

    /// How the result changes with the operands.
    fn derivative(&self) -> Derivative<'_>;

    /// Where operand `i` is a weight: its gradient in factored form.
    fn factors(&self, _i: usize, _saved: &Saved, _cotangent: &Tensor) -> Option<Factors> {
        None
    }
}

/// Runs an op's forward kernel where its operands are.
pub(crate) fn run(op: &dyn Op, ins: &[&Array], out: Outputs<'_>) {
    match out.y.device().is_gpu() {
        true => op.gpu(ins, out),
        false if out.y.device().computes() => op.cpu(ins, out),
        false => {}
    }
}

/// Where a forward kernel writes. Everything is contiguous, with unspecified contents.
pub struct Outputs<'a> {
    /// The result.
    pub y: &'a mut Array,
    /// As declared by [`Op::residuals`], or empty when nothing will be differentiated.
    pub residuals: &'a mut [Array],
    /// As declared by [`Op::scratch`], on the host.
    pub scratch: Option<&'a mut Array>,
    /// Add to `y` instead of overwriting it; only where [`Op::adds`].
    pub add: bool,
}

/// Every op with operands to try it on: the list that tests and `check` loop over.
pub fn samples() -> Vec<Sample> {
    [
        attention::samples(),
        bank::samples(),
        binary::samples(),
        compare::samples(),
        cross_entropy::samples(),
        dora::samples(),
        dot::samples(),
        dropout::samples(),
        extremum::samples(),
        index::samples(),
        linear::samples(),
        lora::samples(),
        matmul::samples(),
        movement::samples(),
        norm::samples(),
        project::samples(),
        quantised::samples(),
        reduce::samples(),
        rotary::samples(),
        softmax::samples(),
        unary::samples(),
    ]
    .concat()
}
