//! On a GPU: `shaders/cross_entropy.wgsl`.

use super::{CrossEntropy, Reduction};
use crate::autograd::{GpuBackward, GpuTangents, Pull, Push, SavedArrays};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec};
use crate::ops::rows::Rows;
use crate::ops::{Op, Outputs};

/// What a kernel reads: logits, targets, and along the backward pass a direction of the logits, the cotangent and its
/// tangent.
struct Operands<'a> {
    x: &'a Array,
    targets: &'a Array,
    along: Option<&'a Array>,
    c: Option<&'a Array>,
    dc: Option<&'a Array>,
}

impl<'a> Operands<'a> {
    fn new(x: &'a Array, targets: &'a Array) -> Self {
        Operands { x, targets, along: None, c: None, dc: None }
    }

    fn rows(&self) -> Rows {
        Rows::new(self.x, &[self.along.unwrap_or(self.x)])
    }
}

impl CrossEntropy {
    fn kernel<'a>(&self, entry: &'static str, ins: &Operands, rows: &Rows) -> Kernel<'a> {
        let offset = |array: Option<&Array>| array.map_or(0, Array::offset);
        let along = ins.along.unwrap_or(ins.x);
        rows.kernel("cross_entropy", entry)
            .name("MEAN", self.reduction == Reduction::Mean)
            .name("MOVES", ins.along.is_some())
            .name("BENDS", ins.dc.is_some())
            .words([rows.place(ins.x), ins.targets.offset(), rows.place(along), offset(ins.c), offset(ins.dc)])
            .float(f64::NAN)
    }

    pub(super) fn record(&self, ins: &[&Array], out: Outputs<'_>) {
        let ins = Operands::new(ins[0], ins[1]);
        if ins.x.count() == 0 {
            return out.y.fill(0_f32);
        }
        let mut own;
        let kept = match out.residuals {
            [] => {
                // Nobody asks for them, but the kernels write them.
                let specs = self.residuals(&[ins.x.spec(), ins.targets.spec()]);
                own = specs.into_iter().map(|spec| ins.x.device().scratch(spec)).collect::<Vec<_>>();
                &mut own[..]
            }
            kept => kept,
        };
        let (logs, weight) = kept.split_at_mut(1);
        let mut losses = ins.losses();
        let kernel = self.kernel("forward", &ins, &ins.rows()).write(&mut losses).write(&mut logs[0]);
        kernel.read(ins.x).read(ins.targets).run(ins.rows().groups());
        self.finish(&ins, &losses, out.y, &mut weight[0]);
    }

    /// Of what the rows give, the result.
    fn finish(&self, ins: &Operands, losses: &Array, y: &mut Array, weight: &mut Array) {
        self.kernel("finish", ins, &ins.rows().together()).write(y).write(weight).read(losses).read(ins.targets).run(1);
    }

    /// Cotangent of the logits, or its tangent.
    fn record_pull(&self, entry: &'static str, ins: &Operands, kept: &[Array], dx: &mut Array) {
        let c = ins.c.expect("there is a cotangent");
        let (along, dc) = (ins.along.unwrap_or(ins.x), ins.dc.unwrap_or(c));
        let kernel =
            self.kernel(entry, ins, &ins.rows()).write(dx).read(&kept[0]).read(ins.x).read(ins.targets).read(along);
        kernel.read(&kept[1]).read(c).read(dc).run(ins.rows().groups());
    }
}

impl Operands<'_> {
    /// A number for each row.
    fn losses(&self) -> Array {
        self.x.device().scratch(Spec { dtype: self.x.dtype(), shape: *self.targets.shape() })
    }
}

impl GpuBackward for CrossEntropy {
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]) {
        if let Some(dx) = &mut grads[0] {
            let ins = Operands { c: Some(c), ..Operands::new(saved.input(0), saved.input(1)) };
            self.record_pull("backward", &ins, saved.residuals, dx);
        }
    }
}

impl GpuTangents for CrossEntropy {
    fn forward(&self, push: Push<'_>, out: &mut Array) {
        let Push { ins, residuals: kept, tangents, .. } = push;
        let along = tangents[0].expect("only logits move");
        let ins = Operands { along: Some(along), ..Operands::new(ins[0], ins[1]) };
        if ins.x.count() == 0 {
            return out.fill(0_f32);
        }
        let mut moves = ins.losses();
        let kernel = self.kernel("push", &ins, &ins.rows()).write(&mut moves).read(&kept[0]);
        kernel.read(ins.x).read(ins.targets).read(along).run(ins.rows().groups());
        let mut weight = ins.x.device().scratch(kept[1].spec());
        self.finish(&ins, &moves, out, &mut weight);
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>]) {
        let Pull { saved, c, tangents, dc } = pull;
        if let Some(dx) = &mut grads[0] {
            let ins = Operands { along: tangents[0], c: Some(c), dc, ..Operands::new(saved.input(0), saved.input(1)) };
            self.record_pull("pull", &ins, saved.residuals, dx);
        }
    }
}
