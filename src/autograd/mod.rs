//! Derivatives: declared by class, walked in reverse, carried forward, replayed.
//!
//! An op says which class its derivative is of, and both modes follow. Rules are written in tensor operations, so
//! that they run on every device and can be differentiated again.

pub mod check;
mod functional;
mod fused;
mod gradient;
mod lift;
mod recompute;
mod record;
mod reverse;

pub use functional::{Direction, Hvp, gauss_newton, hvp, jvp};
pub use gradient::{Factors, Gradient};
pub use recompute::checkpoint;
pub use record::LeafId;
pub use reverse::{backward, grad, vjp};

pub(crate) use functional::Moving;
pub(crate) use lift::Lifted;
pub(crate) use record::{Trace, apply, apply_onto, record};

use crate::device::{Array, Spec};
use crate::ops::Op;
use crate::tensor::Tensor;
use std::sync::Arc;

/// How an op's result changes with its operands.
pub enum Derivative<'a> {
    /// Not at all: comparisons, indices, `detach`.
    Zero,
    /// One operand, each element for itself.
    Elementwise(&'a dyn Local),
    /// Linear in all operands together.
    Linear(&'a dyn Transpose),
    /// Linear in each of two operands.
    Bilinear(&'a dyn Transpose2),
    /// Any rule, written out for both modes.
    Custom(&'a dyn Rule),
    /// A composition of primitives with kernels of its own.
    Fused(&'a dyn Fused),
}

/// Derivative of an elementwise function.
pub trait Local {
    /// Whether the slope is computed from the result (eˣ) rather than from the operand.
    fn saves_output(&self) -> bool;
    /// The slope, in tensor operations.
    fn slope(&self, saved: &Tensor) -> Tensor;
    /// `c` times the slope; ops override it with one kernel.
    fn scale(&self, c: &Tensor, saved: &Tensor) -> Tensor {
        c * &self.slope(saved)
    }
}

/// Transpose of a linear op.
pub trait Transpose {
    /// Cotangent of operand `i` from that of the result; `specs` are those of the operands.
    fn transpose(&self, i: usize, c: &Tensor, specs: &[Spec]) -> Tensor;
    /// The result for tangent `t` of operand `i` when all other tangents are zero, where that is cheaper than zeros.
    fn partial(&self, _i: usize, _t: &Tensor, _out: &Spec) -> Option<Tensor> {
        None
    }
}

/// Transposes of a bilinear op.
pub trait Transpose2 {
    /// Cotangent of operand `i` from that of the result and the other operand; `spec` is that of operand `i`.
    fn transpose(&self, i: usize, c: &Tensor, other: &Tensor, spec: &Spec) -> Tensor;
}

/// What a rule wants kept from the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saves {
    inputs: u32,
    output: bool,
}

impl Saves {
    /// Nothing but specs.
    pub const NONE: Saves = Saves { inputs: 0, output: false };
    /// All operands.
    pub const INPUTS: Saves = Saves { inputs: u32::MAX, output: false };
    /// The result.
    pub const OUTPUT: Saves = Saves { inputs: 0, output: true };

    /// These operands.
    pub fn inputs(which: &[usize]) -> Saves {
        Saves { inputs: which.iter().fold(0, |mask, i| mask | 1 << i), output: false }
    }

    /// And the result.
    pub fn and_output(self) -> Saves {
        Saves { output: true, ..self }
    }

    /// Of the operands beyond the 32nd, which checkpointed segments have, all or none.
    pub(crate) fn input(&self, i: usize) -> bool {
        self.inputs.checked_shr(i as u32).map_or(self.inputs == u32::MAX, |rest| rest & 1 == 1)
    }
}

/// What was kept. Asking for what was not declared in [`Saves`] panics.
pub struct Saved {
    pub(crate) inputs: Vec<Option<Tensor>>,
    pub(crate) output: Option<Tensor>,
    /// `None` where the forward pass ran as the composition and has none.
    pub(crate) residuals: Option<Vec<Array>>,
    pub(crate) specs: Vec<Spec>,
}

impl Saved {
    /// Operand `i`.
    pub fn input(&self, i: usize) -> &Tensor {
        self.inputs[i].as_ref().expect("the rule declared that it saves this operand")
    }

    /// The result.
    pub fn output(&self) -> &Tensor {
        self.output.as_ref().expect("the rule declared that it saves its result")
    }

    /// Type and shape of operand `i`, kept or not.
    pub fn spec(&self, i: usize) -> &Spec {
        &self.specs[i]
    }
}

/// A derivative written out for both modes.
pub trait Rule {
    /// What [`Rule::vjp`] needs, given which operands want a cotangent.
    fn saves(&self, needs: &[bool]) -> Saves;
    /// Cotangents of the operands that need one.
    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>>;
    /// The cotangent of operand `i` as an op that can add and what it is applied to, where it is one: cotangents that an
    /// operand has from elsewhere then take no further storage.
    fn vjp_op(&self, _i: usize, _saved: &Saved, _c: &Tensor) -> Option<(Arc<dyn Op>, Vec<Tensor>)> {
        None
    }
    /// Tangent of the result.
    fn jvp(&self, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor>;
}

/// Arrays of a [`Saved`], for kernels.
pub struct SavedArrays<'a> {
    /// Operands, where saved.
    pub inputs: Vec<Option<&'a Array>>,
    /// The result, where saved.
    pub output: Option<&'a Array>,
    /// As declared by the op.
    pub residuals: &'a [Array],
}

impl SavedArrays<'_> {
    /// Operand `i`.
    pub fn input(&self, i: usize) -> &Array {
        self.inputs[i].expect("the op declared that it saves this operand")
    }

    /// The result.
    pub fn output(&self) -> &Array {
        self.output.expect("the op declared that it saves its result")
    }
}

/// An op with kernels of its own that equals a composition of primitives. The composition is its oracle, and what
/// runs where no kernel serves: differentiable gradients, tangents without [`Fused::tangents`].
pub trait Fused {
    /// The same in primitives.
    fn composition(&self, ins: &[Tensor]) -> Tensor;

    /// What [`Fused::backward`] and the replay need.
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::INPUTS
    }

    /// Writes the cotangents of those operands that have an array in `grads` (contiguous, unspecified contents).
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>);

    /// Scratch of the backward kernel.
    fn backward_scratch(&self, _ins: &[Spec]) -> Option<Spec> {
        None
    }

    /// The backward pass in tensor operations, for ops that can do better than replay.
    fn formula(&self, _saved: &Saved, _c: &Tensor, _needs: &[bool]) -> Option<Vec<Option<Tensor>>> {
        None
    }

    /// Kernels for tangents, where the composition costs too much memory or time.
    fn tangents(&self) -> Option<&dyn Tangents> {
        None
    }

    /// The backward kernel for a GPU. Without one, the composition is walked there.
    fn gpu(&self) -> Option<&dyn GpuBackward> {
        None
    }
}

/// [`Fused::backward`] for a GPU. Scratch is the kernel's own to take, on the null device too.
pub trait GpuBackward {
    /// Writes the cotangents of those operands that have an array in `grads` (contiguous, unspecified contents).
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]);
}

/// A forward pass and the tangents of its operands; none where one stays.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// Operands.
    pub ins: &'a [&'a Array],
    /// Their result.
    pub y: &'a Array,
    /// What the forward kernel kept.
    pub residuals: &'a [Array],
    /// Tangents of the operands.
    pub tangents: &'a [Option<&'a Array>],
}

/// A backward pass, and the tangents of what it is computed from; none where something stays.
#[derive(Clone, Copy)]
pub struct Pull<'a> {
    /// What the forward pass kept.
    pub saved: &'a SavedArrays<'a>,
    /// Cotangent of the result.
    pub c: &'a Array,
    /// Tangents of the operands.
    pub tangents: &'a [Option<&'a Array>],
    /// Tangent of the cotangent.
    pub dc: Option<&'a Array>,
}

/// Tangent kernels of a [`Fused`] op: the forward pass and the backward pass, differentiated along one direction.
pub trait Tangents {
    /// Tangent of the result.
    fn forward(&self, push: Push<'_>, out: &mut Array, scratch: Option<&mut Array>);

    /// Scratch of [`Tangents::forward`].
    fn forward_scratch(&self, _ins: &[Spec]) -> Option<Spec> {
        None
    }

    /// Whether there is a kernel for [`Tangents::backward`]; if not, the composition is replayed.
    fn has_backward(&self) -> bool {
        true
    }

    /// Tangents of the cotangents that have an array in `grads`.
    fn backward(&self, _pull: Pull<'_>, _grads: &mut [Option<Array>], _scratch: Option<&mut Array>) {
        unreachable!("asked only where there is a kernel")
    }

    /// Scratch of [`Tangents::backward`].
    fn backward_scratch(&self, _ins: &[Spec]) -> Option<Spec> {
        None
    }

    /// The same kernels for a GPU. Without them, the composition runs there.
    fn gpu(&self) -> Option<&dyn GpuTangents> {
        None
    }
}

/// [`Tangents`] for a GPU: both directions. Scratch is the kernels' own to take, on the null device too.
pub trait GpuTangents {
    /// As [`Tangents::forward`].
    fn forward(&self, push: Push<'_>, out: &mut Array);

    /// As [`Tangents::backward`].
    fn backward(&self, _pull: Pull<'_>, _grads: &mut [Option<Array>]) {
        unreachable!("asked only where there is a kernel")
    }
}
