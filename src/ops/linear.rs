//! A linear map applied to rows: `x W + b`, with the weight read as it lies and its gradient left in factors.

use super::{Input, Op, Outputs, Sample, matmul};
use crate::autograd::{Derivative, Factors, Rule, Saved, Saves, apply_onto};
use crate::device::cpu::{self, Start};
use crate::device::{Array, Spec};
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;
use std::sync::Arc;

/// `x W + b`, or `x Wᵀ + b`; operands are x `[.., in]`, W `[in, out]` (transposed: `[out, in]`) and, if any, b `[out]`.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    /// Whether the weight is stored as [out, in].
    pub transposed: bool,
}

impl Linear {
    fn sizes(&self, w: &Spec) -> (usize, usize) {
        if self.transposed { (w.shape[1], w.shape[0]) } else { (w.shape[0], w.shape[1]) }
    }

    fn weight(&self, w: &Array) -> Array {
        if !self.transposed {
            return w.clone();
        }
        let (shape, steps) = (w.shape(), w.strides());
        w.view(0, [shape[1], shape[0]].into(), crate::shape::Strides::new(&[steps[1], steps[0]]))
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (x, w) = (&ins[0], &ins[1]);
        if ins.iter().any(|spec| spec.dtype != x.dtype) || !x.dtype.computes() {
            return Err(format!("x of type {} and a weight of type {}", x.dtype, w.dtype));
        }
        if w.shape.len() != 2 || x.shape.is_empty() || x.shape.last_size() != self.sizes(w).0 {
            let stored = if self.transposed { "[out, in]" } else { "[in, out]" };
            return Err(format!("x of shape {:?} and a weight {stored} of shape {:?}", x.shape, w.shape));
        }
        let out = self.sizes(w).1;
        match ins.get(2) {
            Some(b) if b.shape[..] != [out] => Err(format!("a bias of shape {:?} for {out} outputs", b.shape)),
            _ => Ok(Spec { shape: x.shape.with(x.shape.len() - 1, out), ..*x }),
        }
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            let bias = ins.get(2).map(|b| b.to_contiguous());
            let start = match &bias {
                Some(bias) if out.add => {
                    add_row::<T>(bias.slice(), out.y);
                    Start::Held
                }
                Some(bias) => Start::Row(bias.slice()),
                None => matmul::held(out.add),
            };
            matmul::product::<T>(ins[0], &self.weight(ins[1]), out.y, start)
        })
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        matmul::gpu_product(ins[0], &self.weight(ins[1]), out.y, ins.get(2).copied(), out.add, None);
    }

    fn adds(&self) -> bool {
        true
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }

    fn factors(&self, i: usize, saved: &Saved, dy: &Tensor) -> Option<Factors> {
        let (x, dy) = (|| saved.input(0).rows(), dy.rows());
        match (i, self.transposed) {
            (1, false) => Some(Factors::Product { x: x(), dy }),
            (1, true) => Some(Factors::Product { x: dy, dy: x() }),
            _ => None,
        }
    }
}

/// Adds the bias to every row of `y`.
pub(super) fn add_row<T: Float>(bias: &[T], y: &mut Array) {
    cpu::rows(y.slice_mut::<T>(), bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
        }
    });
}

impl Rule for Linear {
    fn saves(&self, needs: &[bool]) -> Saves {
        match (needs[0], needs[1]) {
            (true, true) => Saves::inputs(&[0, 1]),
            (true, false) => Saves::inputs(&[1]),
            (false, true) => Saves::inputs(&[0]),
            (false, false) => Saves::NONE,
        }
    }

    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let back = Linear { transposed: !self.transposed };
        let dx = needs[0].then(|| Tensor::apply(back, &[c, saved.input(1)]));
        let dw = needs[1].then(|| {
            let (x, dy) = (saved.input(0).rows(), c.rows());
            if self.transposed { dy.t().matmul(&x) } else { x.t().matmul(&dy) }
        });
        let db = || c.rows().sum(&[0]);
        [dx, dw].into_iter().chain(needs.get(2).map(|&needed| needed.then(db))).collect()
    }

    fn vjp_op(&self, i: usize, saved: &Saved, c: &Tensor) -> Option<(Arc<dyn Op>, Vec<Tensor>)> {
        let back = || Arc::new(Linear { transposed: !self.transposed });
        (i == 0).then(|| (back() as Arc<dyn Op>, vec![c.clone(), saved.input(1).clone()]))
    }

    fn jvp(&self, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let db = tangents.get(2).cloned().flatten();
        let by_x = tangents[0].as_ref().map(|dx| match &db {
            Some(db) => Tensor::apply(*self, &[dx, &ins[1], db]),
            None => Tensor::apply(*self, &[dx, &ins[1]]),
        });
        let Some(dw) = &tangents[1] else {
            return by_x.or_else(|| db.map(|db| db.broadcast_to(*y.shape())));
        };
        Some(match (by_x, &db) {
            (Some(sum), _) => apply_onto(Arc::new(*self), &[&ins[0], dw], sum),
            (None, Some(db)) => Tensor::apply(*self, &[&ins[0], dw, db]),
            (None, None) => Tensor::apply(*self, &[&ins[0], dw]),
        })
    }
}

impl Tensor {
    /// `x W + b` over the last dimension, for a weight [in, out].
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.linear_as(Linear { transposed: false }, weight, bias)
    }

    /// `x Wᵀ + b` over the last dimension, for a weight [out, in].
    #[track_caller]
    pub fn linear_transposed(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.linear_as(Linear { transposed: true }, weight, bias)
    }

    #[track_caller]
    fn linear_as(&self, op: Linear, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match bias {
            Some(bias) => Tensor::apply(op, &[self, weight, bias]),
            None => Tensor::apply(op, &[self, weight]),
        }
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let x = || Input::normal([2, 3, 4]);
    let plain = Linear { transposed: false };
    let transposed = Linear { transposed: true };
    vec![
        Sample::new(plain, [x(), Input::normal([4, 5])]),
        Sample::new(plain, [x(), Input::normal([4, 5]), Input::normal([5])]),
        Sample::new(transposed, [x(), Input::normal([5, 4])]),
        Sample::new(transposed, [x(), Input::normal([5, 4]), Input::normal([5])]),
    ]
}
