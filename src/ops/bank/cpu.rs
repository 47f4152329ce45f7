//! On the host: products of the examples that follow each other with one adapter.

use super::{Bank, Sizes};
use crate::autograd::SavedArrays;
use crate::device::Array;
use crate::device::cpu::{self, Matrix, Start};
use crate::ops::matmul::held;
use crate::scalar::Float;

/// Neighbouring examples with the same adapter.
struct Run {
    adapter: usize,
    first: usize,
    count: usize,
}

/// An adapter beyond the bank is a bug of the caller, like any index out of bounds.
fn runs(ids: &[u32], adapters: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (example, &id) in ids.iter().enumerate() {
        let adapter = id as usize;
        assert!(adapter < adapters, "adapter {id} of {adapters}");
        match runs.last_mut() {
            Some(run) if run.adapter == adapter => run.count += 1,
            _ => runs.push(Run { adapter, first: example, count: 1 }),
        }
    }
    runs
}

/// Each run with its part of `out`, which has `size` elements for each example.
fn parts<'a, T>(runs: &'a [Run], mut out: &'a mut [T], size: usize) -> Vec<(&'a Run, &'a mut [T])> {
    let part = |run: &'a Run| {
        let (head, tail) = std::mem::take(&mut out).split_at_mut(run.count * size);
        out = tail;
        (run, head)
    };
    runs.iter().map(part).collect()
}

/// The matrix `index` of several of `rows` by `columns`, and those behind it.
fn matrix<T: Float>(x: &Array, index: usize, [rows, columns]: [usize; 2]) -> Matrix<'_, T> {
    Matrix { data: &x.slice()[index * rows * columns..], row_step: columns as isize, col_step: 1 }
}

fn transposed<T>(x: Matrix<'_, T>) -> Matrix<'_, T> {
    Matrix { row_step: x.col_step, col_step: x.row_step, ..x }
}

/// `out_e = f(e) right[id_e]` for all examples, where `left` and `right` say where their matrices are.
struct Gathered<'a, T> {
    time: usize,
    /// Columns of the left one and of the result.
    sizes: [usize; 2],
    left: &'a (dyn Fn(usize) -> Matrix<'a, T> + Sync),
    right: &'a (dyn Fn(usize) -> Matrix<'a, T> + Sync),
}

impl<T: Float> Gathered<'_, T> {
    fn multiply(&self, runs: &[Run], out: &mut Array, start: Start<'_, T>, scale: T) {
        let [depth, width] = self.sizes;
        cpu::each(parts(runs, out.slice_mut::<T>(), self.time * width), |(run, out)| {
            let (left, right) = ((self.left)(run.first), (self.right)(run.adapter));
            cpu::matmul((run.count * self.time, depth, width), left, right, out, start);
            if scale != T::one() {
                out.iter_mut().for_each(|x| *x = *x * scale);
            }
        });
    }
}

impl Bank {
    /// s x A into `h`, and that times B into `y` or onto what it holds.
    pub(super) fn forward<T: Float>(&self, ins: &[&Array], h: &mut Array, y: &mut Array, add: bool) {
        let [x, a, b] = [ins[0], ins[1], ins[2]];
        let Sizes { time, adapters, inputs, rank, outputs } = Sizes::new(x, a, b);
        let runs = runs(ins[3].slice(), adapters);
        let (left, right) = (|e| matrix(x, e, [time, inputs]), |i| matrix(a, i, [inputs, rank]));
        let down = Gathered { time, sizes: [inputs, rank], left: &left, right: &right };
        down.multiply(&runs, h, Start::Nothing, T::of(self.scale));
        let (left, right) = (|e| matrix(h, e, [time, rank]), |i| matrix(b, i, [rank, outputs]));
        let up = Gathered { time, sizes: [rank, outputs], left: &left, right: &right };
        up.multiply(&runs, y, held(add), T::one());
    }

    /// Cotangents of x, A and B; `dh` takes that of x A.
    pub(super) fn pull<T: Float>(
        &self,
        saved: &SavedArrays<'_>,
        dy: &Array,
        grads: &mut [Option<Array>],
        dh: &mut Array,
    ) {
        let [a, b] = [1, 2].map(|i| saved.input(i));
        let Sizes { time, adapters, inputs, rank, outputs } = Sizes::new(dy, a, b);
        let runs = runs(saved.input(3).slice(), adapters);
        let [dx, da, db, _] = grads else { unreachable!("one for each operand") };
        if dx.is_some() || da.is_some() {
            let (left, right) = (|e| matrix(dy, e, [time, outputs]), |i| transposed(matrix(b, i, [rank, outputs])));
            let back = Gathered { time, sizes: [outputs, rank], left: &left, right: &right };
            back.multiply(&runs, dh, Start::Nothing, T::of(self.scale));
        }
        let collect = |out: &mut Array, left: &Array, right: &Array, [rows, columns]: [usize; 2]| {
            let (left, right) = (|e| matrix(left, e, [time, rows]), |e| matrix(right, e, [time, columns]));
            Collected::<T> { time, sizes: [rows, columns], left: &left, right: &right }.sum(&runs, out);
        };
        if let Some(dx) = dx {
            let (left, right) = (|e| matrix(dh, e, [time, rank]), |i| transposed(matrix(a, i, [inputs, rank])));
            let back = Gathered { time, sizes: [rank, inputs], left: &left, right: &right };
            back.multiply(&runs, dx, Start::Nothing, T::one());
        }
        if let Some(da) = da {
            collect(da, saved.input(0), dh, [inputs, rank]);
        }
        if let Some(db) = db {
            collect(db, &saved.residuals[0], dy, [rank, outputs]);
        }
    }
}

/// `out[i] = Σ leftᵀ right` over the examples of adapter i, in their order; zero where there are none.
struct Collected<'a, T> {
    time: usize,
    /// Columns of the left one and of the right one.
    sizes: [usize; 2],
    left: &'a (dyn Fn(usize) -> Matrix<'a, T> + Sync),
    right: &'a (dyn Fn(usize) -> Matrix<'a, T> + Sync),
}

impl<T: Float> Collected<'_, T> {
    fn sum(&self, runs: &[Run], out: &mut Array) {
        let [rows, columns] = self.sizes;
        cpu::blocks_into(out.slice_mut::<T>(), rows * columns, |adapter, out| {
            let mut start = Start::Nothing;
            for run in runs.iter().filter(|run| run.adapter == adapter) {
                let (left, right) = ((self.left)(run.first), (self.right)(run.first));
                cpu::matmul((rows, run.count * self.time, columns), transposed(left), right, out, start);
                start = Start::Held;
            }
            if let Start::Nothing = start {
                out.fill(T::zero());
            }
        });
    }
}
