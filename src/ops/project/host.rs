//! Products with random projections on the host: panels of P are drawn into scratch and multiplied.

use super::{Project, UNIT};
use crate::device::Array;
use crate::device::cpu::{self, Matrix, Start};
use crate::ops::matmul;
use crate::scalar::Float;

/// Entries of a panel: they stay in a second-level cache.
const ENTRIES: usize = 1 << 16;

/// Most columns of P that are drawn at a time.
pub(super) fn panel(rank: usize) -> usize {
    (ENTRIES / rank).max(UNIT) / UNIT * UNIT
}

impl Project {
    /// `y = start + P x`, or with Pᵀ; `scratch` has room for a panel.
    pub(super) fn multiply<T: Float>(&self, x: &Array, y: &mut Array, start: Start<'_, T>, scratch: &mut Array) {
        let (rank, n, panel) = (self.random.rank, x.shape()[1], panel(self.random.rank));
        let y = y.slice_mut::<T>();
        if self.count == 0 && matches!(start, Start::Nothing) {
            y.fill(T::zero());
        }
        for first in (0..self.count).step_by(panel) {
            let width = panel.min(self.count - first);
            let drawn = &mut scratch.slice_mut::<T>()[..rank * width];
            self.draw(self.first + first..self.first + first + width, drawn);
            if self.back {
                let panel = Matrix { data: drawn, row_step: 1, col_step: width as isize };
                let rows = &mut y[first * n..][..width * n];
                cpu::matmul((width, rank, n), panel, matmul::matrix(x, 0), rows, start);
            } else {
                let panel = Matrix { data: drawn, row_step: width as isize, col_step: 1 };
                let start = if first > 0 { Start::Held } else { start };
                let rows = x.narrow(0, first, width);
                cpu::matmul((rank, width, n), panel, matmul::matrix(&rows, 0), y, start);
            }
        }
    }
}
