//! On a GPU: as on the host, with kernels that others have.

use super::Dora;
use crate::autograd::{GpuBackward, SavedArrays};
use crate::device::Array;
use crate::ops::Outputs;
use crate::ops::elementwise;
use crate::ops::lora::gpu::{outer, rows, scaled};
use crate::ops::lora::turned;
use crate::ops::matmul::{gpu_product, gpu_product_into};
use crate::ops::reduce::gpu::{SUM, record as reduce};

/// Rows of a panel: more than on the host, to keep a card busy.
const PANEL: usize = 1024;

impl Dora {
    pub(super) fn record(&self, ins: &[&Array], out: Outputs<'_>) {
        let Outputs { y, residuals, .. } = out;
        self.0.record(&ins[..4], Outputs { y: &mut *y, residuals, scratch: None, add: false });
        elementwise::record_update("times_f32", ins[4], y);
        if let Some(bias) = ins.get(5) {
            elementwise::record_update("plus_f32", bias, y);
        }
    }

    /// One panel of rows from `first` on: x, h and dy there.
    fn panel(
        &self,
        saved: &SavedArrays<'_>,
        first: usize,
        [x, h, dy]: [Option<&Array>; 3],
        b: Option<&Array>,
        grads: &mut [Option<Array>],
    ) {
        let [dx, dw, da, db, df, ..] = grads else { unreachable!("five operands and perhaps a bias") };
        let (dy, h, add) = (dy.expect("there is one"), h.expect("it is kept"), first > 0);
        let x = || x.expect("kept for gradients of weights");
        let device = dy.device();
        let mut z = device.scratch(dy.spec());
        if let Some(df) = df {
            gpu_product(x(), &turned(saved.input(1), self.0.transposed), &mut z, None, false, None);
            gpu_product(h, &turned(saved.input(3), self.0.adapter_transposed), &mut z, None, true, None);
            elementwise::record_update("times_f32", dy, &mut z);
            if add {
                let mut sum = device.scratch(df.spec());
                reduce(SUM, &z, &[0], &mut sum);
                elementwise::record_update("plus_f32", &sum, df);
            } else {
                reduce(SUM, &z, &[0], df);
            }
        }
        if [&dx, &dw, &da, &db].iter().all(|grad| grad.is_none()) {
            return;
        }
        elementwise::record("times_f32", &[dy, saved.input(4)], &mut z);
        let hd = b.map(|b| {
            let mut hd = device.scratch(h.spec());
            gpu_product(&z, &turned(b, !self.0.adapter_transposed), &mut hd, None, false, None);
            hd
        });
        let hd = || hd.as_ref().expect("made where it is needed");
        if let Some(dx) = dx {
            let start = first * dx.shape().last_size();
            gpu_product_into(&z, &turned(saved.input(1), !self.0.transposed), dx, start, false);
            gpu_product_into(hd(), &turned(saved.input(2), !self.0.adapter_transposed), dx, start, true);
        }
        if let Some(dw) = dw {
            outer(x(), &z, dw, self.0.transposed, add);
        }
        if let Some(da) = da {
            outer(x(), hd(), da, self.0.adapter_transposed, add);
        }
        if let Some(db) = db {
            outer(h, &z, db, self.0.adapter_transposed, add);
        }
    }
}

impl GpuBackward for Dora {
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]) {
        let (x, h, dy) = (saved.inputs[0].map(rows), rows(&saved.residuals[0]), rows(c));
        if let Some(Some(bias)) = grads.get_mut(5) {
            reduce(SUM, &dy, &[0], bias);
        }
        if grads[..5].iter().all(Option::is_none) {
            return;
        }
        let narrow = grads[0].is_some() || grads[2].is_some();
        let b = narrow.then(|| scaled(saved.input(3), self.0.scale));
        let count = dy.shape()[0];
        for first in (0..count).step_by(PANEL) {
            let part = |rows: &Array| rows.narrow(0, first, PANEL.min(count - first));
            let parts = [x.as_ref().map(part), Some(part(&h)), Some(part(&dy))];
            self.panel(saved, first, parts.each_ref().map(Option::as_ref), b.as_ref(), grads);
        }
    }
}
