//! On the host: rows in pieces that stay in the cache while all products go over them, in one fork.

use super::super::matmul;
use super::{Lora, Sizes, stored, turned};
use crate::autograd::SavedArrays;
use crate::device::cpu::{self, Matrix, Start, row};
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::ops::Outputs;
use crate::scalar::Float;

/// Rows of a piece: products of fewer pack their other operand too often.
const PIECE: usize = 256;
/// Most tasks; each has sums of its own for the adapter's gradients.
const TASKS: usize = 16;
/// Multiplications below which a step is not worth splitting.
const WHOLE: usize = 1 << 21;

/// How rows are shared out: by shape alone.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Shares {
    /// Rows that are worked on together.
    piece: usize,
    /// Rows of a task, whole pieces.
    task: usize,
    tasks: usize,
}

impl Shares {
    fn new(sizes: &Sizes) -> Shares {
        let Sizes { rows, input, output, .. } = *sizes;
        if rows < (2 * PIECE).min(input.max(output)) || rows * input * output < WHOLE {
            return Shares { piece: rows, task: rows, tasks: 1 };
        }
        let piece = rows.div_ceil(2).min(PIECE).next_multiple_of(16);
        let task = rows.div_ceil(piece).div_ceil(TASKS) * piece;
        Shares { piece, task, tasks: rows.div_ceil(task) }
    }
}

/// W [in, out], A [in, r] and B [r, out], however they are stored; where one is not needed it is empty.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Matrices<'a, T> {
    pub w: Matrix<'a, T>,
    pub a: Matrix<'a, T>,
    pub b: Matrix<'a, T>,
    pub sizes: Sizes,
    pub scale: T,
    /// A or Bᵀ, whichever rows are multiplied by, packed.
    packed: &'a [T],
    /// Whether products run on the task's thread alone.
    alone: bool,
}

impl<'a, T: Float> Matrices<'a, T> {
    pub fn new(op: &Lora, sizes: Sizes, [w, a, b]: [Option<&'a Array>; 3], alone: bool) -> Self {
        let Sizes { input, output, rank, .. } = sizes;
        let data = |array: Option<&'a Array>| array.map(Array::slice::<T>).unwrap_or_default();
        Matrices {
            w: stored(data(w), [input, output], op.transposed),
            a: stored(data(a), [input, rank], op.adapter_transposed),
            b: stored(data(b), [rank, output], op.adapter_transposed),
            sizes,
            scale: T::of(op.scale),
            packed: &[],
            alone,
        }
    }

    /// Ready for [`Matrices::narrow`].
    fn packing_a(self, room: &'a mut [T]) -> Self {
        cpu::pack(self.a, (self.sizes.input, self.sizes.rank), room);
        Matrices { packed: room, ..self }
    }

    /// Ready for [`Matrices::down`].
    pub fn packing_b(self, room: &'a mut [T]) -> Self {
        cpu::pack(self.b.t(), (self.sizes.output, self.sizes.rank), room);
        Matrices { packed: room, ..self }
    }

    /// Ready for [`Matrices::push`] of many pieces: W by rows.
    fn laying_w(self, room: &'a mut Vec<T>) -> Self {
        Matrices { w: cpu::laid_out(self.w, (self.sizes.input, self.sizes.output), room), ..self }
    }

    /// Ready for [`Matrices::pull`] of many pieces: Wᵀ by rows.
    fn laying_wt(self, room: &'a mut Vec<T>) -> Self {
        Matrices { w: cpu::laid_out(self.w.t(), (self.sizes.output, self.sizes.input), room).t(), ..self }
    }

    /// `y = start + a b`, a large product.
    fn multiply(&self, sizes: (usize, usize, usize), a: Matrix<T>, b: Matrix<T>, y: &mut [T], start: Start<'_, T>) {
        match self.alone {
            true => cpu::matmul_alone(sizes, a, b, y, start, T::one()),
            false => cpu::matmul(sizes, a, b, y, start),
        }
    }

    /// h = s x A, for some rows.
    fn narrow(&self, x: &[T], h: &mut [T]) {
        let Sizes { input, rank, .. } = self.sizes;
        cpu::narrow(x, input, (self.a, rank), self.packed, h, self.scale);
    }

    /// y = start + x W + h B, for some rows.
    pub fn push(&self, x: &[T], start: Start<'_, T>, h: &[T], y: &mut [T]) {
        let Sizes { input, output, rank, .. } = self.sizes;
        let rows = y.len() / output;
        self.multiply((rows, input, output), stored(x, [rows, input], false), self.w, y, start);
        cpu::matmul_alone((rows, rank, output), stored(h, [rows, rank], false), self.b, y, Start::Held, T::one());
    }

    /// hd = s dy Bᵀ, for some rows.
    pub fn down(&self, dy: &[T], hd: &mut [T]) {
        let Sizes { output, rank, .. } = self.sizes;
        cpu::narrow(dy, output, (self.b.t(), rank), self.packed, hd, self.scale);
    }

    /// dx = dy Wᵀ + hd Aᵀ, for some rows.
    pub fn pull(&self, dy: &[T], hd: &[T], dx: &mut [T]) {
        let Sizes { input, output, rank, .. } = self.sizes;
        let rows = dy.len() / output;
        self.multiply((rows, output, input), stored(dy, [rows, output], false), self.w.t(), dx, Start::Nothing);
        let hd = stored(hd, [rows, rank], false);
        cpu::matmul_alone((rows, rank, input), hd, self.a.t(), dx, Start::Held, T::one());
    }
}

/// `sum` [r, width] (+)= hᵀ z for rows z of that width: this way round the product reads z as it lies.
pub(in crate::ops) fn outer<T: Float>(h: &[T], z: &[T], sum: &mut [T], rank: usize, first: bool) {
    let (rows, width) = (h.len() / rank.max(1), sum.len() / rank.max(1));
    let start = if first { Start::Nothing } else { Start::Held };
    let (h, z) = (stored(h, [rows, rank], false), stored(z, [rows, width], false));
    cpu::matmul_alone((rank, rows, width), h.t(), z, sum, start, T::one());
}

/// Of each task, s x A of a piece where that is not kept; and A packed.
pub(in crate::ops) fn forward_scratch(dtype: DType, sizes: &Sizes) -> Spec {
    let shares = Shares::new(sizes);
    Spec::new(dtype, [shares.tasks * shares.piece * sizes.rank + cpu::packed(dtype, sizes.input, sizes.rank)])
}

/// Operands are x, W, A and B; `finish` is called for each piece of the result.
pub(in crate::ops) fn forward<T: Float>(
    op: &Lora,
    ins: &[&Array],
    start: Start<'_, T>,
    out: Outputs<'_>,
    finish: impl Fn(&mut [T]) + Sync,
) {
    let sizes = op.sizes(&[0, 1, 2, 3].map(|i| ins[i].spec()));
    let Sizes { input, output, rank, .. } = sizes;
    let shares = Shares::new(&sizes);
    let room = shares.piece * rank;
    let (scratch, packed) = out.scratch.expect("declared").slice_mut::<T>().split_at_mut(shares.tasks * room);
    let matrices = Matrices::<T>::new(op, sizes, [1, 2, 3].map(|i| Some(ins[i])), shares.tasks > 1).packing_a(packed);
    let mut laid = Vec::new();
    let matrices = if shares.tasks > 1 { matrices.laying_w(&mut laid) } else { matrices };
    let x = ins[0].slice::<T>();
    let kept = out.residuals.first_mut().map(|h| h.slice_mut::<T>()).unwrap_or_default();
    let keeps = !kept.is_empty();
    let kept = (kept, if keeps { shares.task * rank } else { 0 });
    let scratch = (scratch, room);
    let y = (out.y.slice_mut::<T>(), shares.task * output);
    cpu::split(shares.tasks, [y, kept, scratch], |task, [y, kept, scratch]| {
        for (i, y) in y.chunks_mut(shares.piece * output).enumerate() {
            let (first, rows) = (task * shares.task + i * shares.piece, y.len() / output);
            let h = if keeps { &mut kept[i * room..] } else { &mut *scratch };
            let (x, h) = (&x[first * input..][..rows * input], &mut h[..rows * rank]);
            matrices.narrow(x, h);
            matrices.push(x, start, h, y);
            finish(y);
        }
    });
}

/// Of each task, s dy Bᵀ of a piece, and sums of the adapter's gradients, both as [r, width]; and Bᵀ packed.
pub(super) fn backward_scratch(dtype: DType, sizes: &Sizes) -> Spec {
    let shares = Shares::new(sizes);
    let Sizes { input, output, rank, .. } = *sizes;
    Spec::new(dtype, [shares.tasks * (shares.piece + input + output) * rank + cpu::packed(dtype, output, rank)])
}

pub(super) fn backward<T: Float>(
    op: &Lora,
    saved: &SavedArrays<'_>,
    dy: &Array,
    grads: &mut [Option<Array>],
    scratch: &mut Array,
) {
    let sizes = kept_sizes(op, saved, dy);
    let Sizes { input, output, rank, .. } = sizes;
    let shares = Shares::new(&sizes);
    base_gradients::<T>(op, saved, dy, grads);
    let [dx, _, da, db, ..] = grads else { unreachable!("an adapter has two matrices") };
    if dx.is_none() && da.is_none() && db.is_none() {
        return;
    }
    let share = (shares.piece + input + output) * rank;
    let (scratch, packed) = scratch.slice_mut::<T>().split_at_mut(shares.tasks * share);
    let narrows = dx.is_some() || da.is_some();
    let matrices = Matrices::<T>::new(op, sizes, [1, 2, 3].map(|i| saved.inputs[i]), shares.tasks > 1);
    let matrices = if narrows { matrices.packing_b(packed) } else { matrices };
    let x = saved.inputs[0].map(Array::slice::<T>).unwrap_or_default();
    let (h, dy) = (saved.residuals[0].slice::<T>(), dy.slice::<T>());
    let pulls = dx.is_some();
    let mut laid = Vec::new();
    let matrices = if pulls && shares.tasks > 1 { matrices.laying_wt(&mut laid) } else { matrices };
    let dx = dx.as_mut().map_or((&mut [][..], 0), |dx| (dx.slice_mut::<T>(), shares.task * input));
    cpu::split(shares.tasks, [dx, (&mut *scratch, share)], |task, [dx, scratch]| {
        let (hd, sums) = scratch.split_at_mut(shares.piece * rank);
        let (sum_a, sum_b) = sums.split_at_mut(input * rank);
        let last = (task * shares.task + shares.task).min(sizes.rows);
        for (i, first) in (task * shares.task..last).step_by(shares.piece).enumerate() {
            let rows = shares.piece.min(last - first);
            let (hd, dy) = (&mut hd[..rows * rank], &dy[first * output..][..rows * output]);
            if narrows {
                matrices.down(dy, hd);
            }
            if pulls {
                matrices.pull(dy, hd, &mut dx[i * shares.piece * input..][..rows * input]);
            }
            if da.is_some() {
                outer(hd, &x[first * input..][..rows * input], sum_a, rank, i == 0);
            }
            if db.is_some() {
                outer(&h[first * rank..][..rows * rank], dy, sum_b, rank, i == 0);
            }
        }
    });
    let part = |first: usize, width: usize| first..first + width * rank;
    let a_part = part(shares.piece * rank, input);
    let b_part = part(a_part.end, output);
    // A's gradient was found as [r, in], the way that an adapter stored transposed wants it.
    join::<T>(scratch, share, a_part, rank, da, !op.adapter_transposed);
    join::<T>(scratch, share, b_part, rank, db, op.adapter_transposed);
}

/// Sizes from what was kept, which is not always x.
pub(in crate::ops) fn kept_sizes(op: &Lora, saved: &SavedArrays<'_>, dy: &Array) -> Sizes {
    let h = &saved.residuals[0];
    let (rank, output) = (h.shape().last_size(), dy.shape().last_size());
    let rows = dy.shape().leading(1).iter().product();
    let of_x = saved.inputs[0].map(|x| x.shape().last_size());
    let of_w = saved.inputs[1].map(|w| super::sides(&w.spec(), op.transposed)[0]);
    Sizes { rows, input: of_x.or(of_w).unwrap_or_default(), output, rank }
}

/// Gradients of W and of the bias, where they train.
fn base_gradients<T: Float>(op: &Lora, saved: &SavedArrays<'_>, dy: &Array, grads: &mut [Option<Array>]) {
    let by_rows = |x: &Array| {
        let width = x.shape().last_size();
        let rows = x.shape().leading(1).iter().product();
        x.reshaped([rows, width].into()).expect("operands are contiguous")
    };
    let dy = by_rows(dy);
    if let Some(dw) = &mut grads[1] {
        let x = by_rows(saved.input(0));
        let (left, right) = if op.transposed { (&dy, &x) } else { (&x, &dy) };
        matmul::product::<T>(&turned(left, true), right, dw, Start::Nothing);
    }
    if let Some(Some(bias)) = grads.get_mut(4) {
        column_sums(dy.slice::<T>(), bias.slice_mut::<T>());
    }
}

/// The sum of rows.
pub(in crate::ops) fn column_sums<T: Float>(rows: &[T], sums: &mut [T]) {
    let width = sums.len();
    cpu::sum_rows(rows.len() / width.max(1), sums, |first, last, sum| {
        cpu::simd(
            #[inline(always)]
            || {
                for x in rows[first * width..last * width].chunks_exact(width) {
                    row::accumulate([x], sum, |[x]| x);
                }
            },
        )
    });
}

/// `grad` = the tasks' sums added up, [r, width], or turned.
pub(in crate::ops) fn join<T: Float>(
    scratch: &mut [T],
    share: usize,
    part: std::ops::Range<usize>,
    rank: usize,
    grad: &mut Option<Array>,
    turned: bool,
) {
    let Some(grad) = grad else { return };
    let grad = grad.slice_mut::<T>();
    if grad.is_empty() {
        return;
    }
    let (first, others) = scratch.split_at_mut(share);
    let sum = &mut first[part.clone()];
    for other in others.chunks_exact(share) {
        cpu::simd(
            #[inline(always)]
            || row::accumulate([&other[part.clone()]], sum, |[x]| x),
        );
    }
    if !turned {
        return grad.copy_from_slice(sum);
    }
    for (j, sums) in sum.chunks_exact(sum.len() / rank).enumerate() {
        grad[j..].iter_mut().step_by(rank).zip(sums).for_each(|(y, x)| *y = *x);
    }
}
