//! On the host: backward goes over panels of rows, one after the other, so that no more than a panel of the wide product
//! exists at a time.

use super::Dora;
use crate::autograd::SavedArrays;
use crate::device::cpu::{self, Start, row};
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::ops::lora::cpu::{Matrices, column_sums, join, kept_sizes, outer};
use crate::ops::lora::{Sizes, stored};
use crate::scalar::Float;

/// Rows of a panel.
const PANEL: usize = 256;

/// y = y ∘ factor + bias, row by row.
pub(super) fn scale<T: Float>(y: &mut [T], factor: &[T], bias: Option<&[T]>) {
    cpu::simd(
        #[inline(always)]
        || {
            for y in y.chunks_exact_mut(factor.len()) {
                for (y, f) in y.iter_mut().zip(factor) {
                    *y = *y * *f;
                }
                if let Some(bias) = bias {
                    row::accumulate([bias], y, |[b]| b);
                }
            }
        },
    )
}

/// `sum` += the rows' a ∘ b.
fn add_products<T: Float>(a: &[T], b: &[T], sum: &mut [T]) {
    let width = sum.len();
    cpu::simd(
        #[inline(always)]
        || {
            for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
                row::accumulate([a, b], sum, |[a, b]| a * b);
            }
        },
    )
}

/// A panel of the wide product, s dz Bᵀ beside it, sums of the adapter's gradients, and Bᵀ packed.
pub(super) fn backward_scratch(dtype: DType, sizes: &Sizes) -> Spec {
    let Sizes { rows, input, output, rank } = *sizes;
    let packed = cpu::packed(dtype, output, rank);
    Spec::new(dtype, [rows.min(PANEL) * (output + rank) + (input + output) * rank + packed])
}

pub(super) fn backward<T: Float>(
    op: &Dora,
    saved: &SavedArrays<'_>,
    dy: &Array,
    grads: &mut [Option<Array>],
    scratch: &mut Array,
) {
    let sizes = kept_sizes(&op.0, saved, dy);
    let Sizes { rows, input, output, rank } = sizes;
    let dy = dy.slice::<T>();
    if let Some(Some(bias)) = grads.get_mut(5) {
        column_sums(dy, bias.slice_mut::<T>());
    }
    let [dx, dw, da, db, df, ..] = grads else { unreachable!("five operands and perhaps a bias") };
    if let Some(df) = df {
        df.slice_mut::<T>().fill(T::zero());
    }
    let x = saved.inputs[0].map(Array::slice::<T>).unwrap_or_default();
    let factor = saved.inputs[4].map(Array::slice::<T>).unwrap_or_default();
    let h = saved.residuals[0].slice::<T>();
    let scratch = scratch.slice_mut::<T>();
    let panel = rows.min(PANEL);
    let (z, rest) = scratch.split_at_mut(panel * output);
    let (hd, sums) = rest.split_at_mut(panel * rank);
    let (sums, packed) = sums.split_at_mut((input + output) * rank);
    let narrows = dx.is_some() || da.is_some();
    let matrices = Matrices::<T>::new(&op.0, sizes, [1, 2, 3].map(|i| saved.inputs[i]), false);
    let matrices = if narrows { matrices.packing_b(packed) } else { matrices };
    for first in (0..rows).step_by(panel) {
        let count = panel.min(rows - first);
        let part = |width: usize| first * width..(first + count) * width;
        let (dy, h, z) = (&dy[part(output)], &h[part(rank)], &mut z[..count * output]);
        let x = x.get(part(input)).unwrap_or_default();
        if let Some(df) = df.as_mut() {
            matrices.push(x, Start::Nothing, h, z);
            add_products(dy, z, df.slice_mut());
        }
        if [&dx, &dw, &da, &db].iter().all(|grad| grad.is_none()) {
            continue;
        }
        z.copy_from_slice(dy);
        scale(z, factor, None);
        let (sum_a, sum_b) = sums.split_at_mut(input * rank);
        let hd = &mut hd[..count * rank];
        if narrows {
            matrices.down(z, hd);
        }
        if let Some(dx) = dx.as_mut() {
            matrices.pull(z, hd, &mut dx.slice_mut()[part(input)]);
        }
        if let Some(dw) = dw.as_mut() {
            let start = if first == 0 { Start::Nothing } else { Start::Held };
            let (x, z) = (stored(x, [count, input], false), stored(z, [count, output], false));
            match op.0.transposed {
                true => cpu::matmul((output, count, input), z.t(), x, dw.slice_mut(), start),
                false => cpu::matmul((input, count, output), x.t(), z, dw.slice_mut(), start),
            }
        }
        if da.is_some() {
            outer(hd, x, sum_a, rank, first == 0);
        }
        if db.is_some() {
            outer(h, z, sum_b, rank, first == 0);
        }
    }
    let share = sums.len();
    let turned = op.0.adapter_transposed;
    join::<T>(sums, share, 0..input * rank, rank, da, !turned);
    join::<T>(sums, share, input * rank..share, rank, db, turned);
}
