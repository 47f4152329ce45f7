//! Tangents on a GPU: `shaders/norm_tangent.wgsl`.

use super::Norm;
use crate::autograd::{GpuTangents, Pull, Push};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec};
use crate::ops::reduce::gpu::{SUM, Split, join_parts};
use crate::ops::rows::Rows;

/// Operands and what of them moves. The cotangent is `None` in the forward pass, where the bias moves instead.
struct Moving<'a> {
    kept: &'a Array,
    x: &'a Array,
    w: &'a Array,
    t: Option<&'a Array>,
    wt: Option<&'a Array>,
    bt: Option<&'a Array>,
    c: Option<&'a Array>,
    ct: Option<&'a Array>,
}

impl<'a> Moving<'a> {
    /// What is bound, in order; another array where something stands still.
    fn operands(&self) -> [&'a Array; 6] {
        let rows = |array: Option<&'a Array>| array.unwrap_or(self.x);
        [self.x, self.w, rows(self.t), self.wt.unwrap_or(self.w), rows(self.c.or(self.bt)), rows(self.ct)]
    }

    fn rows(&self) -> Rows {
        Rows::new(self.x, &self.operands()[1..])
    }

    fn kernel(&self, op: &Norm, entry: &'static str, rows: &Rows, split: Option<&Split>) -> Kernel<'a> {
        let parts = split.map_or([0; 3], |split| [split.part, split.parts, split.blocks]);
        rows.kernel("norm_tangent", entry)
            .name("CENTRED", op.centred)
            .name("MOVES_X", self.t.is_some())
            .name("MOVES_W", self.wt.is_some())
            .name("MOVES_B", self.bt.is_some())
            .name("MOVES_C", self.ct.is_some())
            .words(self.operands().map(|array| rows.place(array)))
            .float(1.0 / self.x.shape().last_size() as f64)
            .words(parts)
    }

    fn record(&self, op: &Norm, entry: &'static str, out: &'a mut Array) {
        let rows = self.rows();
        let kernel = self.kernel(op, entry, &rows, None).write(out).read(self.kept);
        self.operands().into_iter().fold(kernel, Kernel::read).run(rows.groups());
    }

    /// Tangents of the gradients of weight and bias.
    fn record_weights(&self, op: &Norm, grads: &mut [Option<Array>]) {
        let device = self.x.device();
        let width = self.x.shape().last_size();
        // Mean t and mean(x̂ t) of each row.
        let leading: usize = self.x.shape().leading(1).iter().product();
        let mut means = device.scratch(Spec::new(self.x.dtype(), [leading, 2]));
        if self.t.is_some() {
            let rows = self.rows();
            let [x, w, t, ..] = self.operands();
            let kernel = self.kernel(op, "drifts", &rows, None).write(&mut means);
            kernel.read(self.kept).read(x).read(w).read(t).run(rows.groups());
        }
        let (rows, split) = Rows::by_columns(self.x, &self.operands()[2..]);
        let mut partial = device.scratch(Spec::new(self.x.dtype(), [split.parts, 2, width]));
        let [x, _, t, wt, c, ct] = self.operands();
        let kernel = self.kernel(op, "pull_weights", &rows, Some(&split)).write(&mut partial).read(self.kept);
        let kernel = [x, &means, t, wt, c, ct].into_iter().fold(kernel, Kernel::read);
        kernel.run(split.blocks * split.parts);
        for (k, grad) in grads.iter_mut().enumerate() {
            if let Some(grad) = grad {
                join_parts(SUM, &partial, k * width, grad, 1.0);
            }
        }
    }
}

impl GpuTangents for Norm {
    fn forward(&self, push: Push<'_>, out: &mut Array) {
        let Push { ins, residuals: kept, tangents, .. } = push;
        let tangent = |i: usize| tangents.get(i).copied().flatten();
        let [t, wt, bt] = [0, 1, 2].map(tangent);
        let moving = Moving { kept: &kept[0], x: ins[0], w: ins[1], t, wt, bt, c: None, ct: None };
        moving.record(self, "push", out);
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>]) {
        let Pull { saved, c, tangents, dc } = pull;
        let (kept, x, w) = (&saved.residuals[0], saved.input(0), saved.input(1));
        let moving = Moving { kept, x, w, t: tangents[0], wt: tangents[1], bt: None, c: Some(c), ct: dc };
        if let Some(dx) = &mut grads[0] {
            moving.record(self, "pull", dx);
        }
        if grads[1..].iter().any(Option::is_some) {
            moving.record_weights(self, &mut grads[1..]);
        }
    }
}
