//! Products with one pair of factors per example, taken from a bank of them where they lie: adapters of several tasks or
//! users in one batch, trained or applied together.

mod cpu;
mod gpu;

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Fused, GpuBackward, Saved, SavedArrays, Saves, apply_onto};
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::float;
use crate::tensor::Tensor;
use std::sync::Arc;

/// `s (x_e A[id_e]) B[id_e]` for each example e, see [`Tensor::add_adapters`]. Operands are x [batch, time, in],
/// A [adapters, in, rank], B [adapters, rank, out] and ids `[batch]` (u32).
#[derive(Clone, Copy, Debug)]
pub struct Bank {
    /// s.
    pub scale: f64,
}

/// Sizes of the operands.
#[derive(Clone, Copy)]
struct Sizes {
    time: usize,
    adapters: usize,
    inputs: usize,
    rank: usize,
    outputs: usize,
}

impl Sizes {
    /// Of x or y, A and B.
    fn new(x: &Array, a: &Array, b: &Array) -> Sizes {
        let ([_, time, _], [adapters, inputs, rank]) = (sizes(x), sizes(a));
        Sizes { time, adapters, inputs, rank, outputs: sizes(b)[2] }
    }
}

fn sizes(x: &Array) -> [usize; 3] {
    [x.shape()[0], x.shape()[1], x.shape()[2]]
}

impl Op for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let [x, a, b, ids] = ins else { return Err(format!("{} operands of 4", ins.len())) };
        if [a, b].iter().any(|spec| spec.dtype != x.dtype) || !x.dtype.computes() || ids.dtype != DType::U32 {
            let types = [x, a, b, ids].map(|spec| spec.dtype);
            return Err(format!("x, A and B are of one type, f32 or f64, and ids u32, not {types:?}"));
        }
        let fits = x.shape.len() == 3 && a.shape.len() == 3 && b.shape.len() == 3 && ids.shape[..] == x.shape[..1];
        if !fits || a.shape[..2] != [b.shape[0], x.shape[2]] || a.shape[2] != b.shape[1] {
            return Err(format!(
                "x {:?}, A {:?}, B {:?} and ids {:?}, not [batch, time, in], [adapters, in, rank], [adapters, rank, out] \
                 and [batch]",
                x.shape, a.shape, b.shape, ids.shape
            ));
        }
        Ok(Spec { shape: x.shape.with(2, b.shape[2]), ..*x })
    }

    fn contiguous(&self) -> bool {
        true
    }

    /// s x A, [batch, time, rank].
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        vec![inner(ins)]
    }

    /// The same where nothing is kept.
    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(inner(ins))
    }

    fn adds(&self) -> bool {
        true
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let inner = out.residuals.first_mut().or(out.scratch).expect("declared");
        float!(ins[0].dtype(), T => self.forward::<T>(ins, inner, out.y, out.add))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

/// x A, and what comes back to it.
fn inner(ins: &[Spec]) -> Spec {
    Spec { shape: ins[0].shape.with(2, ins[1].shape[2]), ..ins[0] }
}

impl Fused for Bank {
    /// With copies of each example's factors.
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let [a, b] = [1, 2].map(|i| ins[i].gather(&ins[3]));
        (ins[0].matmul(&a) * self.scale).matmul(&b)
    }

    fn saves(&self, needs: &[bool]) -> Saves {
        // x is kept for the factors' gradients alone.
        if needs[1] || needs[2] { Saves::INPUTS } else { Saves::inputs(&[1, 2, 3]) }
    }

    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(inner(ins))
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        let scratch = scratch.expect("declared");
        float!(c.dtype(), T => self.pull::<T>(saved, c, grads, scratch))
    }

    fn formula(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Option<Vec<Option<Tensor>>> {
        let ids = saved.input(3);
        let [a, b] = [1, 2].map(|i| saved.input(i).gather(ids));
        let dh = c.matmul(&b.t()) * self.scale;
        let collected = |x: Tensor, i: usize| {
            let rows = x.reshape([x.shape()[0], x.shape()[1] * x.shape()[2]]);
            rows.scatter_add(ids, saved.spec(i).shape[0]).reshape(saved.spec(i).shape)
        };
        let dx = needs[0].then(|| dh.matmul(&a.t()));
        let da = needs[1].then(|| collected(saved.input(0).t().matmul(&dh), 1));
        let db = needs[2].then(|| {
            let h = saved.input(0).matmul(&a) * self.scale;
            collected(h.t().matmul(c), 2)
        });
        Some(vec![dx, da, db, None])
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

impl Tensor {
    /// `y_e + s (x_e A[id_e]) B[id_e]` for each example e of a batch, where y is this tensor [batch, .., out]: low-rank
    /// adapters (Hu et al., 2106.09685), one for each example, out of the bank A [adapters, in, rank] and
    /// B [adapters, rank, out]; x is [batch, .., in], ids are `[batch]` (u32) below the number of adapters.
    ///
    /// Factors are read where they lie, and gradients are those of each adapter: zero for one that no example uses,
    /// summed in the order of the examples for others. Kept for backward are x and what is `rank` wide. The sum takes
    /// no storage of its own if nothing else refers to this tensor's, as to a fresh product's.
    #[track_caller]
    pub fn add_adapters(self, x: &Tensor, a: &Tensor, b: &Tensor, ids: &Tensor, scale: f64) -> Tensor {
        let rows = |x: &Tensor| {
            let sizes = [x.shape()[0], x.shape()[1..x.shape().len() - 1].iter().product(), x.shape().last_size()];
            x.reshape(sizes)
        };
        let (shape, x, y) = (*self.shape(), rows(x), rows(&self));
        drop(self);
        let ins = [&x, a, b, ids].map(Tensor::contiguous);
        apply_onto(Arc::new(Bank { scale }), &ins.each_ref(), y).reshape(shape)
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |scale, [batch, time, adapters]: [usize; 3], [inputs, rank, outputs]: [usize; 3], ids: &[u32]| {
        let factors = [Input::normal([adapters, inputs, rank]), Input::normal([adapters, rank, outputs])];
        let [a, b] = factors;
        Sample::new(Bank { scale }, [Input::normal([batch, time, inputs]), a, b, Input::indices([batch], ids)])
    };
    vec![
        // An adapter twice in a row, one that comes back, and one that nobody uses.
        sample(1.0, [4, 3, 3], [5, 2, 4], &[2, 0, 0, 2]),
        sample(0.5, [1, 1, 1], [3, 1, 2], &[0]),
        sample(2.0, [2, 1, 2], [4, 3, 3], &[1, 0]),
    ]
}
