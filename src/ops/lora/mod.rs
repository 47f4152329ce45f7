//! A linear map with a low-rank adapter beside it (Hu et al., "LoRA", 2021, equation 3): `x W + b + s (x A) B`.
//!
//! Kept for backward are x, which is the base's own storage, and the product of width r alone; the weights' own
//! gradient exists only where the base trains.

pub(super) mod cpu;
pub(super) mod gpu;
mod tangent;

use super::linear::Linear;
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Factors, Fused, GpuBackward, Saved, SavedArrays, Saves, Tangents, apply_onto};
use crate::device::cpu::{Matrix, Start};
use crate::device::{Array, Spec};
use crate::float;
use crate::shape::Strides;
use crate::tensor::Tensor;
use std::sync::Arc;

/// `x W + b + s (x A) B`; operands are x `[.., in]`, W `[in, out]` (transposed: `[out, in]`), A `[in, r]` and B
/// `[r, out]` (adapter transposed: `[r, in]` and `[out, r]`), and, if any, b `[out]`.
#[derive(Clone, Copy, Debug)]
pub struct Lora {
    /// Factor s on the adapter's product.
    pub scale: f64,
    /// Whether W is stored as [out, in].
    pub transposed: bool,
    /// Whether A and B are stored so too.
    pub adapter_transposed: bool,
}

/// Rows of x, and the sides of the matrices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub rows: usize,
    pub input: usize,
    pub output: usize,
    pub rank: usize,
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

/// Rows and columns of a matrix, perhaps stored the other way.
fn sides(matrix: &Spec, transposed: bool) -> [usize; 2] {
    if transposed { [matrix.shape[1], matrix.shape[0]] } else { [matrix.shape[0], matrix.shape[1]] }
}

impl Lora {
    /// Of operands that were found to fit.
    pub(super) fn sizes(&self, ins: &[Spec]) -> Sizes {
        let [input, output] = sides(&ins[1], self.transposed);
        let rank = sides(&ins[2], self.adapter_transposed)[1];
        Sizes { rows: ins[0].shape.leading(1).iter().product(), input, output, rank }
    }

    /// Type and shape of x, W, A and B's result, or what is wrong.
    pub(super) fn result(&self, ins: &[Spec]) -> Result<Spec, String> {
        let [x, w, a, b] = [&ins[0], &ins[1], &ins[2], &ins[3]];
        if ins.iter().any(|spec| spec.dtype != x.dtype) || !x.dtype.computes() {
            let types: Vec<_> = ins.iter().map(|spec| spec.dtype.to_string()).collect();
            return Err(format!("operands of types {}", types.join(", ")));
        }
        if x.shape.is_empty() || [w, a, b].iter().any(|matrix| matrix.shape.len() != 2) {
            return Err(format!("x {:?}, W {:?}, A {:?}, B {:?}", x.shape, w.shape, a.shape, b.shape));
        }
        let Sizes { input, output, rank, .. } = self.sizes(ins);
        let [a_sides, b_sides] = [a, b].map(|matrix| sides(matrix, self.adapter_transposed));
        if x.shape.last_size() != input || a_sides != [input, rank] || b_sides != [rank, output] {
            let stored = if self.transposed { "[out, in]" } else { "[in, out]" };
            let adapter = if self.adapter_transposed { "[r, in] and [out, r]" } else { "[in, r] and [r, out]" };
            return Err(format!(
                "x of shape {:?}, a weight {stored} of shape {:?}, and an adapter {adapter} of shapes {:?} and {:?}",
                x.shape, w.shape, a.shape, b.shape
            ));
        }
        Ok(Spec { shape: x.shape.with(x.shape.len() - 1, output), ..*x })
    }

    /// The rows of width r between A and B.
    pub(super) fn narrow(&self, ins: &[Spec]) -> Spec {
        let x = &ins[0];
        Spec { shape: x.shape.with(x.shape.len() - 1, self.sizes(ins).rank), ..*x }
    }

    /// `s x A`.
    pub(super) fn down(&self, x: &Tensor, a: &Tensor) -> Tensor {
        Tensor::apply(Linear { transposed: self.adapter_transposed }, &[x, a]) * self.scale
    }

    /// `xᵀ c` for a matrix stored as the adapter's are.
    fn outer(&self, transposed: bool, x: &Tensor, c: &Tensor) -> Tensor {
        let (x, c) = (x.rows(), c.rows());
        if transposed { c.t().matmul(&x) } else { x.t().matmul(&c) }
    }
}

impl Op for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let result = self.result(ins)?;
        match ins.get(4) {
            Some(b) if b.shape[..] != [result.shape.last_size()] => {
                Err(format!("a bias of shape {:?} for {} outputs", b.shape, result.shape.last_size()))
            }
            _ => Ok(result),
        }
    }

    fn contiguous(&self) -> bool {
        true
    }

    /// `s x A`.
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        vec![self.narrow(ins)]
    }

    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(cpu::forward_scratch(ins[0].dtype, &self.sizes(ins)))
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            let start = ins.get(4).map_or(Start::Nothing, |bias| Start::Row(bias.slice::<T>()));
            cpu::forward::<T>(self, ins, start, out, |_| {})
        })
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }

    fn factors(&self, i: usize, saved: &Saved, dy: &Tensor) -> Option<Factors> {
        Linear { transposed: self.transposed }.factors(i, saved, dy)
    }
}

impl Fused for Lora {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let base = Linear { transposed: self.transposed };
        let z = match ins.get(4) {
            Some(bias) => Tensor::apply(base, &[&ins[0], &ins[1], bias]),
            None => Tensor::apply(base, &[&ins[0], &ins[1]]),
        };
        let up = Linear { transposed: self.adapter_transposed };
        apply_onto(Arc::new(up), &[&self.down(&ins[0], &ins[2]), &ins[3]], z)
    }

    /// A and B are parameters, so that keeping them costs nothing; x is kept only for gradients of weights.
    fn saves(&self, needs: &[bool]) -> Saves {
        let wanted = [needs[1] || needs[2] || needs[3], needs[0], needs[0] || needs[3], needs[0] || needs[2]];
        let which: Vec<usize> = (0..4).filter(|&i| wanted[i]).collect();
        Saves::inputs(&which)
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        float!(c.dtype(), T => cpu::backward::<T>(self, saved, c, grads, scratch.expect("declared")))
    }

    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(cpu::backward_scratch(ins[0].dtype, &self.sizes(ins)))
    }

    /// The composition would keep its own intermediate results; this works with what is kept anyway.
    fn formula(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Option<Vec<Option<Tensor>>> {
        let turned = self.adapter_transposed;
        let back = Linear { transposed: !turned };
        let hd = (needs[0] || needs[2]).then(|| Tensor::apply(back, &[c, saved.input(3)]) * self.scale);
        let hd = || hd.as_ref().expect("made where it is needed");
        let dx = needs[0].then(|| {
            let by_base = Tensor::apply(Linear { transposed: !self.transposed }, &[c, saved.input(1)]);
            apply_onto(Arc::new(back), &[hd(), saved.input(2)], by_base)
        });
        let dw = needs[1].then(|| self.outer(self.transposed, saved.input(0), c));
        let da = needs[2].then(|| self.outer(turned, saved.input(0), hd()));
        let db = needs[3].then(|| self.outer(turned, &self.down(saved.input(0), saved.input(2)), c));
        let bias = || c.rows().sum(&[0]);
        Some([dx, dw, da, db].into_iter().chain(needs.get(4).map(|&needed| needed.then(bias))).collect())
    }

    fn tangents(&self) -> Option<&dyn Tangents> {
        Some(self)
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

impl Tensor {
    /// `x W + b + s (x A) B` over the last dimension, for a weight [in, out] and an adapter [in, r], [r, out].
    #[track_caller]
    pub fn lora(&self, weight: &Tensor, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, scale: f64) -> Tensor {
        let op = Lora { scale, transposed: false, adapter_transposed: false };
        let ins = [Some(self), Some(weight), Some(a), Some(b), bias];
        Tensor::apply(op, &ins.into_iter().flatten().collect::<Vec<_>>())
    }
}

/// Operands x, W, A and B of these sides.
pub(super) fn operands(op: &Lora, lead: &[usize], [input, output, rank]: [usize; 3]) -> Vec<Input> {
    let stored =
        |rows, columns, turned| if turned { Input::normal([columns, rows]) } else { Input::normal([rows, columns]) };
    vec![
        Input::normal(&[lead, &[input]].concat()[..]),
        stored(input, output, op.transposed),
        stored(input, rank, op.adapter_transposed),
        stored(rank, output, op.adapter_transposed),
    ]
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |transposed, adapter_transposed, lead: &[usize], sides: [usize; 3], bias: bool| {
        let op = Lora { scale: 0.7, transposed, adapter_transposed };
        let mut ins = operands(&op, lead, sides);
        ins.extend(bias.then(|| Input::normal([sides[1]])));
        Sample::new(op, ins)
    };
    vec![
        sample(false, false, &[2, 3], [4, 5, 2], false),
        sample(true, false, &[2, 3], [4, 5, 2], true),
        sample(false, true, &[3], [4, 5, 1], true),
        sample(true, true, &[2, 2], [3, 6, 3], false),
        // More pieces than one.
        sample(false, false, &[70], [2, 3, 1], true),
    ]
}
