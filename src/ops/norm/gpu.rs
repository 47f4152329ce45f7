//! On a GPU: `shaders/norm.wgsl`.

use super::Norm;
use crate::autograd::{GpuBackward, SavedArrays};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec};
use crate::ops::reduce::gpu::{SUM, Split, join_parts};
use crate::ops::rows::Rows;
use crate::ops::{Op, Outputs};

impl Norm {
    /// The operands' places are those of x, weight, and bias or cotangent.
    fn kernel<'a>(
        &self,
        entry: &'static str,
        rows: &Rows,
        [x, w, b]: [&Array; 3],
        split: Option<&Split>,
    ) -> Kernel<'a> {
        let places = [x, w, b, b].map(|array| rows.place(array));
        let parts = split.map_or([0; 3], |split| [split.part, split.parts, split.blocks]);
        let kernel = rows.kernel("norm", entry).name("CENTRED", self.centred).words(places);
        kernel.float(1.0 / x.shape().last_size() as f64).float(self.epsilon).words(parts)
    }

    pub(super) fn record(&self, ins: &[&Array], out: Outputs<'_>) {
        let (x, w, b) = (ins[0], ins[1], ins[ins.len() - 1]);
        let mut own = None;
        let kept = match out.residuals {
            [kept] => kept,
            // Nobody asks for them, but the kernel writes them.
            _ => own.insert(x.device().scratch(self.residuals(&[x.spec()])[0])),
        };
        let rows = Rows::new(x, &[w, b]);
        let kernel = self.kernel("forward", &rows, [x, w, b], None);
        kernel.write(out.y).write(kept).read(x).read(w).read(b).run(rows.groups());
    }

    /// Gradients of weight and bias: sums over parts of the rows, then over the parts.
    fn record_weights(&self, kept: &Array, ins: [&Array; 3], grads: &mut [Option<Array>]) {
        let [x, w, c] = ins;
        let width = x.shape().last_size();
        let (rows, split) = Rows::by_columns(x, &[c]);
        let mut partial = x.device().scratch(Spec::new(x.dtype(), [split.parts, 2, width]));
        let kernel = self.kernel("backward_weights", &rows, ins, Some(&split)).write(&mut partial);
        kernel.read(kept).read(x).read(w).read(c).run(split.blocks * split.parts);
        for (k, grad) in grads.iter_mut().enumerate() {
            if let Some(grad) = grad {
                join_parts(SUM, &partial, k * width, grad, 1.0);
            }
        }
    }
}

impl GpuBackward for Norm {
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]) {
        let (kept, ins) = (&saved.residuals[0], [saved.input(0), saved.input(1), c]);
        let [x, w, c] = ins;
        if let Some(dx) = &mut grads[0] {
            let rows = Rows::new(x, &[w, c]);
            let kernel = self.kernel("backward", &rows, ins, None).write(dx);
            kernel.read(kept).read(x).read(w).read(c).run(rows.groups());
        }
        if grads[1..].iter().any(Option::is_some) {
            self.record_weights(kept, ins, &mut grads[1..]);
        }
    }
}
