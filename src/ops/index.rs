//! Rows by index: gather, its transpose scatter-add, and embedding's way in.

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Factors, Saved, Transpose2};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec, cpu, part};
use crate::dtype::{DType, Element};
use crate::scalar::Float;
use crate::tensor::Tensor;
use crate::{element, float};

/// Rows of a table, see [`Tensor::gather`]: linear in the table, for given indices.
#[derive(Debug)]
pub struct Gather;

/// Rows added into a table of zeros, see [`Tensor::scatter_add`].
#[derive(Debug)]
pub struct ScatterAdd {
    /// Rows of the table.
    pub rows: usize,
}

fn indices(ids: &Spec) -> Result<(), String> {
    match ids.dtype {
        DType::U32 => Ok(()),
        other => Err(format!("indices are u32, not {other}")),
    }
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        indices(&ins[1])?;
        if ins[0].shape.is_empty() {
            return Err("a scalar has no rows".into());
        }
        let sizes = [&ins[1].shape[..], &ins[0].shape[1..]].concat();
        Ok(Spec::new(ins[0].dtype, &sizes[..]))
    }
    fn contiguous(&self) -> bool {
        true
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        element!(ins[0].dtype(), T => gather::<T>(ins[0], ins[1].slice(), out.y))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        record_gather(ins[0], ins[1], out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Bilinear(self)
    }
    fn factors(&self, i: usize, saved: &Saved, dy: &Tensor) -> Option<Factors> {
        let ids = saved.input(1);
        let width = dy.shape()[ids.shape().len()..].iter().product();
        (i == 0).then(|| Factors::Rows { ids: ids.reshape([ids.count()]), dy: dy.reshape([ids.count(), width]) })
    }
}

impl Transpose2 for Gather {
    fn transpose(&self, _: usize, c: &Tensor, ids: &Tensor, spec: &Spec) -> Tensor {
        let sizes = [&[ids.count()], &spec.shape[1..]].concat();
        c.reshape(&sizes[..]).scatter_add(&ids.reshape([ids.count()]), spec.shape[0])
    }
}

impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        indices(&ins[1])?;
        if !ins[0].dtype.computes() {
            return Err(format!("no arithmetic on {}: cast to f32 first", ins[0].dtype));
        }
        if ins[0].shape.is_empty() || ins[1].shape.len() != 1 || ins[0].shape[0] != ins[1].shape[0] {
            return Err(format!("rows of shape {:?} at indices of shape {:?}", ins[0].shape, ins[1].shape));
        }
        Ok(Spec { shape: ins[0].shape.with(0, self.rows), ..ins[0] })
    }
    fn contiguous(&self) -> bool {
        true
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            if !out.add {
                out.y.slice_mut::<T>().fill(<T as Element>::from_f64(0.0));
            }
            scatter_add::<T>(ins[0], ins[1].slice(), out.y)
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        match (ins[1].count(), out.add) {
            (0, true) => {}
            (0, false) => out.y.fill(0.0_f32),
            (count, add) => {
                let together = rows_together(ins[0], ins[0].count() / count, 1);
                // Indices and their positions are sorted together.
                let together = together.min(count).min(part::most(out.y.device(), 4) / 2);
                for first in (0..count).step_by(together) {
                    let [x, ids] = [ins[0], ins[1]].map(|x| x.narrow(0, first, together.min(count - first)));
                    record_scatter_add(&x, &ids, out.y, add || first > 0);
                }
            }
        }
    }
    fn adds(&self) -> bool {
        true
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Bilinear(self)
    }
}

impl Transpose2 for ScatterAdd {
    fn transpose(&self, _: usize, c: &Tensor, ids: &Tensor, _: &Spec) -> Tensor {
        c.gather(ids)
    }
}

/// An index beyond the table is a bug of the caller, like any index out of bounds.
fn check(id: u32, rows: usize) -> usize {
    assert!((id as usize) < rows, "index {id} into {rows} rows");
    id as usize
}

fn gather<T: Element>(table: &Array, ids: &[u32], y: &mut Array) {
    let rows = table.shape()[0];
    let width = table.count() / rows.max(1);
    let table = table.slice::<T>();
    cpu::rows(y.slice_mut::<T>(), width, |first, out| {
        for (row, &id) in out.chunks_mut(width).zip(&ids[first..]) {
            row.copy_from_slice(&table[check(id, rows) * width..][..width]);
        }
    });
}

/// One pass on one thread: in the order of the indices, so that sums have the same bits always.
fn scatter_add<T: Float>(x: &Array, ids: &[u32], y: &mut Array) {
    let rows = y.shape()[0];
    let width = y.count() / rows.max(1);
    let out = y.slice_mut::<T>();
    if width == 0 {
        return;
    }
    for (row, &id) in x.slice::<T>().chunks(width).zip(ids) {
        for (y, x) in out[check(id, rows) * width..][..width].iter_mut().zip(row) {
            *y += *x;
        }
    }
}

/// Elements that a thread moves, and its types: four words where rows consist of whole fours.
fn pack(kernel: Kernel<'_>, width: usize, start: usize) -> (usize, Kernel<'_>) {
    match width.is_multiple_of(4) && start.is_multiple_of(4) {
        true => (4, kernel.name("T", "vec4<f32>").name("U", "vec4<u32>")),
        false => (1, kernel.name("T", "f32").name("U", "u32")),
    }
}

/// Rows of the result and of the table are cut to what can be bound: each part of the table fills in the rows it has.
fn record_gather(table: &Array, ids: &Array, y: &mut Array) {
    if y.count() == 0 {
        return;
    }
    let ids = ids.reshaped([ids.count()].into()).expect("indices are contiguous");
    let (rows, count) = (table.shape()[0], ids.count());
    let width = y.count() / count;
    let least = part::rows_of_units(width, part::unit(y.dtype().size()));
    let together = rows_together(y, width, least).min(rows_together(&ids, 1, least));
    let held = rows_together(table, width, 1).min(rows.max(1));
    for first in (0..count).step_by(together) {
        let some = ids.narrow(0, first, together.min(count - first));
        for row in (0..rows.max(1)).step_by(held) {
            gather_part(&table.narrow(0, row, held.min(rows - row)), [row, rows], &some, y, [first, width]);
        }
    }
}

/// How many rows of that many elements can be bound together, a multiple of `least`, wherever they begin.
fn rows_together(x: &Array, width: usize, least: usize) -> usize {
    let (width, size, device) = (width.max(1), x.dtype().size(), x.device());
    let most = part::most(device, size).saturating_sub(part::unit(size));
    if x.fits() { usize::MAX } else { (most / width / least).max(1) * least }
}

/// Those rows at `ids` that this part of the table has, its rows from `before` on of `all`; the result's from `first` on.
fn gather_part(table: &Array, [before, all]: [usize; 2], ids: &Array, y: &mut Array, [first, width]: [usize; 2]) {
    let (rows, count, start) = (table.shape()[0], ids.count(), table.start());
    let size = count * width;
    let words = y.dtype().size() == 4;
    let entry = if words { "gather" } else { "gather_halves" };
    let (pack, kernel) = pack(Kernel::new("index", entry), width, start);
    let (part, threads) = if words { (pack, size / pack) } else { (1, size.div_ceil(2)) };
    let kernel = kernel.write_part(y, first * width..first * width + size).read_view(table).read_view(ids);
    let sizes = [count, rows, width / part, start / part, ids.start(), size / part, 0, before, all];
    kernel.words(sizes).run(threads.div_ceil(256));
}

/// Positions sorted by index, then every row of the result from its part of the list.
fn record_scatter_add(x: &Array, ids: &Array, y: &mut Array, add: bool) {
    let count = ids.count();
    let (rows, size) = (y.shape()[0], y.count());
    let (device, width, start) = (y.device().clone(), size / rows, x.start());
    let scratch = |count: usize| device.scratch(Spec::new(DType::U32, [count]));
    let kernel = |entry| pack(Kernel::new("index", entry), width, start);
    let run = |entry, from: &Array, to: &mut Array, threads: usize| {
        let kernel = kernel(entry).1.write(to).read_view(from).words([count, rows, width, 0, from.start()]);
        kernel.run(threads.div_ceil(256));
    };
    let (mut blocks, mut order, mut starts) = (scratch(2 * count), scratch(2 * count), scratch(rows + 1));
    run("sort_blocks", ids, &mut blocks, count);
    run("merge_blocks", &blocks, &mut order, count);
    run("find_rows", &order, &mut starts, rows + 1);
    let together = rows_together(y, width, part::rows_of_units(width, part::unit(4)));
    for row in (0..rows).step_by(together) {
        let (pack, kernel) = kernel("sum_rows");
        let size = together.min(rows - row) * width;
        let kernel = kernel.write_part(y, row * width..row * width + size).read_view(x).read(&order).read(&starts);
        let sizes = [count, rows, width / pack, start / pack, 0, size / pack, add.into(), row];
        kernel.words(sizes).run((size / pack).div_ceil(256));
    }
}

impl Tensor {
    /// Rows of this table at `ids` (u32): [rows, ..] and [..ids] give [..ids, ..].
    #[track_caller]
    pub fn gather(&self, ids: &Tensor) -> Tensor {
        Tensor::apply(Gather, &[self, ids])
    }

    /// A table of `rows` rows in which row `ids[i]` is the sum of this tensor's rows `i`.
    #[track_caller]
    pub fn scatter_add(&self, ids: &Tensor, rows: usize) -> Tensor {
        Tensor::apply(ScatterAdd { rows }, &[self, ids])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    vec![
        Sample::new(Gather, [Input::normal([5, 3]), Input::index([2, 4], 5)]),
        Sample::new(Gather, [Input::normal([4]), Input::index([3], 4)]),
        Sample::new(ScatterAdd { rows: 4 }, [Input::normal([6, 3]), Input::index([6], 4)]),
    ]
}
