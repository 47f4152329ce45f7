//! Products with random projections on the host: panels of P are drawn into scratch and multiplied.

use super::{Project, UNIT};
use crate::device::Array;
use crate::device::cpu::{self, Matrix, Start};
use crate::ops::matmul;
use crate::scalar::Float;
use std::ops::Range;

/// Entries of a panel: they stay in a second-level cache.
const ENTRIES: usize = 1 << 16;

/// Most columns of P that are drawn at a time.
pub(super) fn panel(rank: usize) -> usize {
    (ENTRIES / rank).max(UNIT) / UNIT * UNIT
}

impl Project {
    /// `y = start + P x`, of rows `start + x Pᵀ`, or with Pᵀ for P; `scratch` has room for a panel.
    pub(super) fn multiply<T: Float>(&self, x: &Array, y: &mut Array, start: Start<'_, T>, scratch: &mut Array) {
        let panel = panel(self.random.rank);
        let y = y.slice_mut::<T>();
        if self.count == 0 && matches!(start, Start::Nothing) {
            y.fill(T::zero());
        }
        for first in (0..self.count).step_by(panel) {
            let width = panel.min(self.count - first);
            let drawn = &mut scratch.slice_mut::<T>()[..self.random.rank * width];
            self.draw(self.first + first..self.first + first + width, drawn);
            let panel = Matrix { data: drawn, row_step: width as isize, col_step: 1 };
            // Ahead, panels add up; back, each gives columns of its own.
            let start = if self.back || first == 0 { start } else { Start::Held };
            self.multiply_panel(panel, first..first + width, x, y, start);
        }
    }

    /// What a panel [rank, width] with these columns of P makes of x.
    fn multiply_panel<T: Float>(
        &self,
        panel: Matrix<T>,
        columns: Range<usize>,
        x: &Array,
        y: &mut [T],
        start: Start<'_, T>,
    ) {
        let (rank, width, n) = (self.random.rank, columns.len(), x.shape()[1 - self.axis]);
        let (first, count) = if self.back { (0, rank) } else { (columns.start, width) };
        let part = x.narrow(self.axis, first, count);
        let x = matmul::matrix(&part, 0);
        match (self.back, self.axis) {
            (false, 0) => cpu::matmul((rank, width, n), panel, x, y, start),
            (false, _) => cpu::matmul((n, width, rank), x, panel.t(), y, start),
            (true, 0) => cpu::matmul((width, rank, n), panel.t(), x, &mut y[columns.start * n..][..width * n], start),
            (true, _) => cpu::matmul_columns((n, rank, width), x, panel, y, (self.count, columns.start), start),
        }
    }
}
