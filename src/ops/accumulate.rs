//! Sums of cotangents, in place where nothing else refers to the storage.

use super::binary::Add;
use super::elementwise;
use crate::autograd::record;
use crate::device::Array;
use crate::float;
use crate::tensor::Tensor;
use std::sync::Arc;

/// `a + b`, component by component where both move along the same directions.
pub(crate) fn sum(a: Tensor, b: Tensor) -> Tensor {
    if a.shape() != b.shape() {
        return &a + &b;
    }
    if a.is_traced() || b.is_traced() {
        let (a, b) = if a.value.owned() { (a, b) } else { (b, a) };
        let moves = a.lifted.is_some() || b.lifted.is_some();
        return if moves || !a.value.owned() { &a + &b } else { traced_sum(a, b) };
    }
    match (a.level(), b.level()) {
        (None, None) => Tensor::from_array(sum_arrays(a.value, b.value)),
        (left, right) => {
            let level = left.max(right).expect("one of them is lifted");
            let directions = [&a, &b].map(|t| t.lower(level).1.len()).into_iter().max().unwrap_or(0);
            let (a0, da) = a.into_parts(level, directions);
            let (b0, db) = b.into_parts(level, directions);
            let tangents = da.into_iter().zip(db).map(|(a, b)| match (a, b) {
                (Some(a), Some(b)) => Some(sum(a, b)),
                (a, b) => a.or(b),
            });
            let tangents = tangents.collect();
            sum(a0, b0).lift(level, tangents)
        }
    }
}

/// In the storage of `a`, and recorded as the sum that it is.
fn traced_sum(mut a: Tensor, b: Tensor) -> Tensor {
    let parents = vec![a.trace.take(), b.trace.clone()];
    add_assign(&mut a.value, &b.value);
    record(Arc::new(Add), &[&b, &b], parents, None, a, Some(Vec::new()))
}

fn sum_arrays(mut a: Array, mut b: Array) -> Array {
    if !a.owned() {
        if !b.owned() {
            return (&Tensor::from_array(a) + &Tensor::from_array(b)).value;
        }
        std::mem::swap(&mut a, &mut b);
    }
    add_assign(&mut a, &b);
    a
}

/// `y += x`; `y` must be owned, `x` of its shape.
pub fn add_assign(y: &mut Array, x: &Array) {
    if y.device().is_gpu() {
        elementwise::record_update("plus_f32", x, y);
    } else if y.device().computes() {
        float!(y.dtype(), T => elementwise::update::<T>(x, y, #[inline(always)] |y, x| y + x));
    }
}
