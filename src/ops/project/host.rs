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
            let columns = first..first + width;
            match self.back {
                true => self.panel_back(panel, columns, x, y, start),
                false if first == 0 => self.panel_ahead(panel, columns, x, y, start),
                false => self.panel_ahead(panel, columns, x, y, Start::Held),
            }
        }
    }

    /// Adds what a panel [rank, width] with these columns of P makes of theirs of x.
    fn panel_ahead<T: Float>(
        &self,
        panel: Matrix<T>,
        columns: Range<usize>,
        x: &Array,
        y: &mut [T],
        start: Start<'_, T>,
    ) {
        let part = x.narrow(self.axis, columns.start, columns.len());
        let (rank, n, x) = (self.random.rank, x.shape()[1 - self.axis], matmul::matrix(&part, 0));
        match self.axis {
            0 => cpu::matmul((rank, columns.len(), n), panel, x, y, start),
            _ => cpu::matmul((n, columns.len(), rank), x, panel.t(), y, start),
        }
    }

    /// What belongs to these columns of P, a panel [rank, width].
    fn panel_back<T: Float>(
        &self,
        panel: Matrix<T>,
        columns: Range<usize>,
        x: &Array,
        y: &mut [T],
        start: Start<'_, T>,
    ) {
        let (rank, n, width, x) = (self.random.rank, x.shape()[1 - self.axis], columns.len(), matmul::matrix(x, 0));
        match self.axis {
            0 => cpu::matmul((width, rank, n), panel.t(), x, &mut y[columns.start * n..][..width * n], start),
            _ => cpu::matmul_columns((n, rank, width), x, panel, y, (self.count, columns.start), start),
        }
    }
}
