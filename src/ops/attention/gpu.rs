//! Kernels of `shaders/attention*.wgsl`: tiles of rows (queries, or keys) by columns, a workgroup for each tile of rows.

use super::Attention;
use super::sizes::Sizes;
use crate::autograd::{GpuBackward, GpuTangents, Pull, Push, SavedArrays};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec};
use crate::ops::Outputs;
use crate::shape::Shape;

/// Rows of a workgroup.
const ROWS: usize = 64;
/// Dimensions of a head that one matrix of sums covers.
const SLOT: usize = 32;
/// Fours of numbers that a workgroup stages at once: half of its memory.
const STAGED: usize = 512;

pub(super) fn forward(op: &Attention, ins: &[&Array], out: Outputs<'_>) {
    let s = Sizes::new(op, ins[0].shape());
    let mut spare = None;
    let lse = match out.residuals.first_mut() {
        Some(lse) => lse,
        None => spare.insert(rows_of(&s, ins[0])),
    };
    let kernel = Kernel::new("attention", "forward").write(out.y).write(lse).read(ins[0]);
    let grid = Grid { heads: s.heads, most_slots: 4, mask: ins.get(1).copied(), mask_binding: 3, starts: [0; 3] };
    grid.run(kernel, &s, ins[0]);
}

impl GpuBackward for Attention {
    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>]) {
        let Some(grad) = &mut grads[0] else { return };
        let (qkv, lse) = (saved.input(0), &saved.residuals[0]);
        let s = Sizes::new(self, qkv.shape());
        let mut means = rows_of(&s, qkv);
        for (entry, heads, most_slots) in [("queries", s.heads, 4), ("keys", s.kv_heads, 2)] {
            let kernel = Kernel::new("attention_backward", entry).write(grad).write(&mut means);
            let kernel = kernel.read(qkv).read(c).read(saved.output()).read(lse);
            let starts = [0, c.offset(), 0];
            Grid { heads, most_slots, mask: mask(saved), mask_binding: 6, starts }.run(kernel, &s, qkv);
        }
    }
}

impl GpuTangents for Attention {
    fn forward(&self, push: Push<'_>, out: &mut Array) {
        let Push { ins, y, residuals, tangents } = push;
        let s = Sizes::new(self, ins[0].shape());
        let dqkv = tangents[0].expect("a mask does not move");
        let kernel = Kernel::new("attention_tangent", "forward").write(out);
        let kernel = kernel.read(ins[0]).read(dqkv).read(y).read(&residuals[0]);
        let (mask, starts) = (ins.get(1).copied(), [dqkv.offset(), 0, 0]);
        Grid { heads: s.heads, most_slots: 4, mask, mask_binding: 5, starts }.run(kernel, &s, ins[0]);
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>]) {
        let Pull { saved, c, tangents, dc } = pull;
        let Some(dqkv) = tangents[0] else {
            // Where the operand stays, the gradient is linear in the cotangent.
            let dc = dc.cloned().unwrap_or_else(|| super::zeros(c).to_contiguous());
            return GpuBackward::backward(self, saved, &dc, grads);
        };
        let Some(grad) = &mut grads[0] else { return };
        let (qkv, lse) = (saved.input(0), &saved.residuals[0]);
        let s = Sizes::new(self, qkv.shape());
        let mut means = qkv.device().scratch(Spec::new(qkv.dtype(), [s.batch, s.heads, s.time, 3]));
        let (moves, dc) = (dc.is_some(), dc.unwrap_or(c));
        let starts = [dqkv, c, dc].map(Array::offset);
        for (entry, heads, most_slots) in [("moments", s.heads, 0), ("queries", s.heads, 2), ("keys", s.kv_heads, 2)] {
            let kernel = Kernel::new("attention_tangent_backward", entry).name("COTANGENT_MOVES", moves);
            let kernel = kernel.write(grad).write(&mut means);
            let kernel = kernel.read(qkv).read(dqkv).read(c).read(dc).read(lse);
            Grid { heads, most_slots, mask: mask(saved), mask_binding: 7, starts }.run(kernel, &s, qkv);
        }
    }
}

fn mask<'a>(saved: &SavedArrays<'a>) -> Option<&'a Array> {
    saved.inputs.get(1).copied().flatten()
}

/// A number for each row of scores: [batch, heads, time].
fn rows_of(s: &Sizes, like: &Array) -> Array {
    like.device().scratch(Spec::new(like.dtype(), [s.batch, s.heads, s.time]))
}

/// How a kernel is spread, and what hides keys from it.
struct Grid<'a> {
    /// Heads whose rows it takes.
    heads: usize,
    /// Matrices of sums that a thread has registers for; none where it sums numbers of rows alone.
    most_slots: usize,
    mask: Option<&'a Array>,
    mask_binding: usize,
    /// Where the packed operand's tangent, the cotangent and its tangent begin; they have no gaps.
    starts: [usize; 3],
}

impl<'a> Grid<'a> {
    /// Binds the mask behind the other operands and runs.
    fn run(&self, kernel: Kernel<'a>, s: &Sizes, qkv: &'a Array) {
        let slots = s.dim.div_ceil(SLOT).min(self.most_slots).max(1);
        let slabs = if self.most_slots == 0 { 1 } else { s.dim.div_ceil(SLOT * slots) };
        let tiles = s.time.div_ceil(ROWS);
        let groups = tiles * slabs * self.heads * s.batch;
        // Without a mask anything may be bound: it is never read.
        let mask = self.mask.map(|mask| mask.broadcast(&Shape::new(&[s.batch, s.heads, s.time, s.time])));
        let place = |x: &Array| std::iter::once(x.offset()).chain((0..4).map(|i| x.strides()[i] as usize)).collect();
        let mask_place: Vec<usize> = mask.as_ref().map_or(vec![0; 5], place);
        kernel
            .name("MASK_BINDING", self.mask_binding)
            .name("MASKED", self.mask.is_some())
            .name("CAUSAL", s.causal)
            .name("DEPTH_STAGED", format!("{}u", depth(s.dim)))
            .name("SLOTS_HELD", format!("{slots}u"))
            .name("KEYS_STAGED", format!("{}u", if slots > STAGED / 8 / SLOT { 16 } else { 32 }))
            .read(self.mask.unwrap_or(qkv))
            .words([groups, tiles, slabs, s.time, s.heads, s.kv_heads, s.dim])
            .float(s.scale)
            .words(place(qkv))
            .words(mask_place)
            .words(self.starts)
            .run(groups)
    }
}

/// Dimensions of a product staged at once: a power of two that wastes little.
fn depth(dim: usize) -> usize {
    match dim {
        0..=8 => 8,
        9..=16 => 16,
        _ if dim.is_multiple_of(32) || dim % 32 > 16 => 32,
        _ => 16,
    }
}
