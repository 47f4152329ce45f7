//! Gradient checkpointing: a segment keeps its operands alone and is run again when backward comes to it
//! (Chen et al., "Training deep nets with sublinear memory cost", 2016).

use super::record::record;
use super::{Derivative, Fused, SavedArrays};
use crate::device::{Array, Spec};
use crate::ops::{Op, Outputs};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `f(ins)`, of which only `ins` are kept. `f` must depend on traced tensors through `ins` alone, and give the same
/// result every time.
#[track_caller]
pub fn checkpoint(f: impl Fn(&[Tensor]) -> Tensor + Send + Sync + 'static, ins: &[&Tensor]) -> Tensor {
    let level = ins.iter().filter_map(|t| t.level()).max();
    let under =
        |t: &Tensor| t.is_traced() && level.is_some_and(|level| t.level() != Some(level) && !t.traced_above(level));
    if ins.iter().any(|t| under(t)) {
        // Reverse over forward: the trace lies below the tangents, where the ops of `f` have to record it.
        return f(&ins.iter().map(|&t| t.clone()).collect::<Vec<_>>());
    }
    let values: Vec<Tensor> = ins.iter().map(|t| t.untraced()).collect();
    let y = f(&values);
    if ins.iter().all(|t| t.trace.is_none()) {
        return y;
    }
    let traces = ins.iter().map(|t| t.trace.clone()).collect();
    record(Arc::new(Segment(f)), ins, traces, None, y, None)
}

/// A segment in the graph: a fused op with no kernel of its own, so that backward always replays it.
struct Segment<F>(F);

impl<F> std::fmt::Debug for Segment<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Segment")
    }
}

impl<F: Fn(&[Tensor]) -> Tensor + Send + Sync> Op for Segment<F> {
    fn name(&self) -> &'static str {
        "checkpoint"
    }
    fn infer(&self, _: &[Spec]) -> Result<Spec, String> {
        unreachable!("a segment is recorded after it ran, never applied")
    }
    fn cpu(&self, _: &[&Array], _: Outputs<'_>) {
        unreachable!("a segment has no kernel")
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

impl<F: Fn(&[Tensor]) -> Tensor + Send + Sync> Fused for Segment<F> {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        (self.0)(ins)
    }
    fn backward(&self, _: &SavedArrays<'_>, _: &Array, _: &mut [Option<Array>], _: Option<&mut Array>) {
        unreachable!("a segment has no kernel")
    }
}
