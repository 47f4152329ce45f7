//! On a GPU: the kernels of matrix products, the thin ones added to the wide ones in place.

use super::super::matmul::gpu_product;
use super::super::{elementwise, reduce};
use super::{Lora, turned};
use crate::autograd::{GpuBackward, SavedArrays};
use crate::device::{Array, Spec, Tag, tagged};
use crate::ops::Outputs;

/// All rows as one matrix.
pub(in crate::ops) fn rows(x: &Array) -> Array {
    let (count, width) = (x.shape().leading(1).iter().product(), x.shape().last_size());
    x.reshaped([count, width].into()).expect("operands are contiguous")
}

/// `y = xᵀ z`, or its transpose.
pub(in crate::ops) fn outer(x: &Array, z: &Array, y: &mut Array, transposed: bool, add: bool) {
    let (left, right) = if transposed { (z, x) } else { (x, z) };
    gpu_product(&turned(left, true), right, y, None, add, None);
}

/// A small matrix times a number.
pub(in crate::ops) fn scaled(matrix: &Array, factor: f64) -> Array {
    if factor == 1.0 {
        return matrix.clone();
    }
    let device = matrix.device();
    let mut product = device.scratch(matrix.spec());
    if product.count() > 0 {
        let factor = tagged(Tag::Workspace, || device.constant(factor as f32));
        elementwise::record("times_f32", &[matrix, &factor], &mut product);
    }
    product
}

impl Lora {
    /// Operands are x, W, A, B and, if any, the bias.
    pub(in crate::ops) fn record(&self, ins: &[&Array], out: Outputs<'_>) {
        let (x, w, a, b) = (ins[0], ins[1], ins[2], ins[3]);
        let mut own = None;
        let h = match out.residuals {
            [h] => h,
            _ => own.insert(x.device().scratch(self.narrow(&[x, w, a, b].map(Array::spec)))),
        };
        if h.count() > 0 {
            gpu_product(x, &turned(&scaled(a, self.scale), self.adapter_transposed), h, None, false, None);
        }
        gpu_product(x, &turned(w, self.transposed), out.y, ins.get(4).copied(), false, None);
        gpu_product(h, &turned(b, self.adapter_transposed), out.y, None, true, None);
    }
}

impl GpuBackward for Lora {
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]) {
        let (h, dy) = (rows(&saved.residuals[0]), rows(c));
        let hd = (grads[0].is_some() || grads[2].is_some()).then(|| {
            let b = scaled(saved.input(3), self.scale);
            let mut hd = c.device().scratch(Spec::new(c.dtype(), *h.shape()));
            gpu_product(&dy, &turned(&b, !self.adapter_transposed), &mut hd, None, false, None);
            hd
        });
        let hd = || hd.as_ref().expect("made where it is needed");
        if let Some(dx) = &mut grads[0] {
            gpu_product(&dy, &turned(saved.input(1), !self.transposed), dx, None, false, None);
            gpu_product(hd(), &turned(saved.input(2), !self.adapter_transposed), dx, None, true, None);
        }
        if let Some(dw) = &mut grads[1] {
            outer(&rows(saved.input(0)), &dy, dw, self.transposed, false);
        }
        if let Some(da) = &mut grads[2] {
            outer(&rows(saved.input(0)), hd(), da, self.adapter_transposed, false);
        }
        if let Some(db) = &mut grads[3] {
            outer(&h, &dy, db, self.adapter_transposed, false);
        }
        if let Some(Some(bias)) = grads.get_mut(4) {
            reduce::gpu::record(reduce::gpu::SUM, &dy, &[0], bias);
        }
    }
}
