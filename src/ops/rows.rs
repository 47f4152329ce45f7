//! What GPU kernels over rows of contiguous arrays share: `shaders/rows.wgsl`.

use super::reduce::gpu::{Split, THREADS, power_of_four};
use crate::device::Array;
use crate::device::kernel::Kernel;

/// Rows of contiguous arrays, and how threads take them: several lanes to a row, four elements at a time where all
/// rows begin on whole fours.
pub(super) struct Rows {
    rows: usize,
    /// Elements of a row.
    columns: usize,
    /// Elements read at once.
    pack: usize,
    lanes: usize,
    /// Distance between the lanes of a row, in threads.
    lane_step: usize,
}

impl Rows {
    /// Rows of `x`, which `others` are read along with: arrays like it, or a row for all.
    pub fn new(x: &Array, others: &[&Array]) -> Rows {
        let columns = x.shape().last_size();
        let pack = pack(columns, x, others);
        let lanes = power_of_four((columns / pack).div_ceil(4));
        Rows { rows: x.count() / columns.max(1), columns, pack, lanes, lane_step: 1 }
    }

    /// The same rows for sums over them: neighbouring threads take neighbouring columns, lanes take turns at the rows.
    pub fn by_columns(x: &Array, others: &[&Array]) -> (Rows, Split) {
        let columns = x.shape().last_size();
        let (rows, pack) = (x.count() / columns.max(1), pack(columns, x, others));
        let split = Split::columns(columns / pack, rows);
        (Rows { rows, columns, pack, lanes: split.lanes, lane_step: THREADS / split.lanes }, split)
    }

    /// All threads of a workgroup together.
    pub fn together(self) -> Rows {
        Rows { lanes: THREADS, ..self }
    }

    /// An entry of `shader`, with what `rows.wgsl` needs filled in, and numbers of rows and of elements of a row.
    pub fn kernel<'a>(&self, shader: &'static str, entry: &'static str) -> Kernel<'a> {
        Kernel::new(shader, entry)
            .name("X", if self.pack == 4 { "vec4<f32>" } else { "f32" })
            .name("PACK", format!("{}u", self.pack))
            .name("FIT", if self.pack == 4 { "xyzw" } else { "x" })
            .name("LANES", format!("{}u", self.lanes))
            .name("LANE_STEP", format!("{}u", self.lane_step))
            .words([self.rows, self.columns / self.pack])
    }

    /// Where an array begins, in what is read at once.
    pub fn place(&self, x: &Array) -> usize {
        x.offset() / self.pack
    }

    /// Workgroups for all rows.
    pub fn groups(&self) -> usize {
        self.rows.div_ceil(THREADS / self.lanes)
    }
}

/// Elements of rows of `columns` that can be read at once.
fn pack(columns: usize, x: &Array, others: &[&Array]) -> usize {
    let mut starts = [x].into_iter().chain(others.iter().copied()).map(Array::offset);
    let whole = columns.is_multiple_of(4) && starts.all(|start| start.is_multiple_of(4));
    if whole { 4 } else { 1 }
}
