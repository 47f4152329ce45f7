//! Scaled dot-product attention on packed queries, keys and values (Vaswani et al. 2017, equation 1), without ever
//! keeping a matrix of time × time: backward recomputes probabilities from the log-sum-exp of each row (Dao et al.
//! 2022, "FlashAttention"), a block of queries at a time.

mod backward;
mod forward;
mod gpu;
mod operand;
mod result;
mod row;
mod sizes;
mod tangent;
mod tile;

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Fused, GpuBackward, GpuTangents, Pull, Push, SavedArrays, Saves, Tangents};
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::float;
use crate::shape::Shape;
use crate::tensor::Tensor;
use sizes::Sizes;

/// How [`Tensor::attention`] looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`: query head h uses key head ⌊h kv_heads / heads⌋.
    pub kv_heads: usize,
    /// Whether query i sees keys 0..=i alone.
    pub causal: bool,
    /// What scores are multiplied by; `None` is 1/√dim.
    pub scale: Option<f64>,
}

impl Attention {
    /// As many key heads as query heads, scores divided by √dim.
    pub fn new(heads: usize, causal: bool) -> Attention {
        Attention { heads, kv_heads: heads, causal, scale: None }
    }

    fn scale_for(&self, dim: usize) -> f64 {
        self.scale.unwrap_or(1.0 / (dim as f64).sqrt())
    }

    /// Wrong sizes of the packed operand or the mask, in words.
    fn problem(&self, ins: &[Spec]) -> Option<String> {
        let (shape, slots) = (&ins[0].shape, self.heads + 2 * self.kv_heads);
        if self.kv_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Some(format!("{} query heads cannot share {} key heads", self.heads, self.kv_heads));
        }
        if !ins[0].dtype.computes() || shape.len() != 4 || shape[2] != slots || shape[3] == 0 {
            return Some(format!("[batch, time, {slots}, dim] needed, not {} {shape:?}", ins[0].dtype));
        }
        let full = Shape::new(&[shape[0], self.heads, shape[1], shape[1]]);
        let mask = ins.get(1)?;
        let fits = mask.dtype == DType::U32 && full.broadcast(&mask.shape) == Some(full);
        (!fits).then(|| format!("a mask is u32 and broadcasts to {full:?}, not {} {:?}", mask.dtype, mask.shape))
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        match self.problem(ins) {
            Some(problem) => Err(problem),
            None => Ok(Spec { shape: ins[0].shape.with(2, self.heads), ..ins[0] }),
        }
    }

    /// Log-sum-exp of each row of scores: [batch, heads, time].
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        let shape = &ins[0].shape;
        vec![Spec::new(ins[0].dtype, [shape[0], self.heads, shape[1]])]
    }

    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Spec::new(ins[0].dtype, forward::scratch(&Sizes::new(self, &ins[0].shape))))
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => forward::run::<T>(self, ins, out))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        gpu::forward(self, ins, out);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

impl Fused for Attention {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let [batch, time, _, dim] = ins[0].shape()[..] else { unreachable!("checked by `infer`") };
        let group = self.heads / self.kv_heads;
        let heads = |first, count| ins[0].slice(2, first, count).permute(&[0, 2, 1, 3]);
        let repeated = |x: Tensor| {
            let x = x.unsqueeze(2).broadcast_to([batch, self.kv_heads, group, time, dim]);
            x.reshape([batch, self.heads, time, dim])
        };
        let keys = repeated(heads(self.heads, self.kv_heads));
        let values = repeated(heads(self.heads + self.kv_heads, self.kv_heads));
        let scores = heads(0, self.heads).matmul(&keys.t()) * self.scale_for(dim);
        softmax(&scores, &self.visible(&ins[0], ins.get(1))).matmul(&values).permute(&[0, 2, 1, 3])
    }

    /// The result too: a GPU takes rowsum(c ∘ y) for the mean of each row. What follows attention keeps it anyway.
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::INPUTS.and_output()
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        let (Some(grad), Some(scratch)) = (&mut grads[0], scratch) else { return };
        float!(c.dtype(), T => backward::run::<T>(self, saved, c, grad, scratch))
    }

    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Spec::new(ins[0].dtype, backward::scratch(&Sizes::new(self, &ins[0].shape))))
    }

    fn tangents(&self) -> Option<&dyn Tangents> {
        Some(self)
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

impl Tangents for Attention {
    fn forward(&self, push: Push<'_>, out: &mut Array, scratch: Option<&mut Array>) {
        let Push { ins, residuals: lse, tangents, .. } = push;
        let dqkv = tangents[0].expect("a mask does not move");
        float!(dqkv.dtype(), T => tangent::forward::<T>(self, ins, &lse[0], dqkv, out, scratch.expect("declared")))
    }

    fn forward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Spec::new(ins[0].dtype, tangent::forward_scratch(&Sizes::new(self, &ins[0].shape))))
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        let Pull { saved, c, tangents, dc } = pull;
        let (Some(grad), Some(scratch)) = (&mut grads[0], scratch) else { return };
        let (no_dqkv, no_dc) = (zeros(saved.input(0)), zeros(c));
        let (dqkv, dc) = (tangents[0].unwrap_or(&no_dqkv), dc.unwrap_or(&no_dc));
        let along = tangent::Direction { saved, c, dqkv, dc };
        float!(c.dtype(), T => tangent::backward::<T>(self, &along, grad, scratch))
    }

    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Spec::new(ins[0].dtype, tangent::backward_scratch(&Sizes::new(self, &ins[0].shape))))
    }

    fn gpu(&self) -> Option<&dyn GpuTangents> {
        Some(self)
    }
}

/// Zeros like `x`, stored once: kernels walk operands by their strides.
fn zeros(x: &Array) -> Array {
    Tensor::zeros(*x.shape(), x.dtype(), x.device()).into_array()
}

impl Attention {
    /// Mask of what a query sees, of a shape that broadcasts to [batch, heads, time, time].
    fn visible(&self, qkv: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let time = qkv.shape()[1];
        let sees = |i: usize| if self.causal { i % time <= i / time } else { true };
        let causal: Vec<u32> = (0..time * time).map(|i| sees(i) as u32).collect();
        let causal = Tensor::new(&causal, [time, time], qkv.device());
        let nothing = causal.zeros_like();
        mask.map_or(causal.clone(), |mask| mask.select(&causal, &nothing))
    }
}

/// Softmax over the last dimension of what is visible; zeros where nothing is. It does not depend on what scores are
/// shifted by, so their largest is a constant.
fn softmax(scores: &Tensor, visible: &Tensor) -> Tensor {
    let shown = visible.select(scores, &scores.constant_like(-3.4e38));
    let shifted = &shown - &shown.detach().max_keep(&[-1]);
    let e = visible.select(&shifted.exp(), &scores.constant_like(0.0));
    let sum = e.sum_keep(&[-1]);
    let empty = sum.equal(&sum.constant_like(0.0));
    &e / &empty.select(&sum.constant_like(1.0), &sum)
}

impl Tensor {
    /// Attention on packed heads [batch, time, heads + 2 kv_heads, dim], queries first, then keys, then values; gives
    /// [batch, time, heads, dim]. A `mask` (u32) that broadcasts to [batch, heads, time, time] hides keys where it is
    /// 0; a query that sees no key gives zeros.
    #[track_caller]
    pub fn attention(&self, how: Attention, mask: Option<&Tensor>) -> Tensor {
        let ins: Vec<&Tensor> = std::iter::once(self).chain(mask).collect();
        Tensor::apply(how, &ins)
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let grouped = Attention { kv_heads: 2, ..Attention::new(4, true) };
    let scaled = Attention { scale: Some(0.3), ..Attention::new(1, false) };
    // Query 1 sees nothing.
    let mask = Input::indices([1, 1, 3, 3], [1, 0, 1, 0, 0, 0, 1, 1, 0]);
    vec![
        Sample::new(Attention::new(2, true), [Input::normal([2, 5, 6, 3])]),
        Sample::new(Attention::new(1, false), [Input::normal([1, 3, 3, 8])]),
        Sample::new(grouped, [Input::normal([1, 3, 8, 2])]),
        Sample::new(Attention::new(1, true), [Input::normal([2, 1, 3, 2])]),
        Sample::new(scaled, [Input::normal([2, 3, 3, 2]), mask.clone()]),
        Sample::new(
            Attention::new(2, true),
            [Input::normal([1, 3, 6, 2]), Input::indices([2, 1, 3], [1, 1, 0, 0, 1, 1])],
        ),
        Sample::new(Attention::new(1, true), [Input::normal([1, 70, 3, 1])]),
    ]
}

#[cfg(test)]
mod tests;
