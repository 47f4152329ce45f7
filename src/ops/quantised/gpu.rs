//! On a GPU: the kernel that matrix products by tiles use, with one operand unpacked as it is loaded.

use super::{Format, Packed, Product, Rows};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec, part};
use crate::dtype::DType;
use crate::ops::lora::gpu::rows as as_rows;
use crate::ops::matmul::Operand;
use crate::shape::Shape;
use std::ops::Range;

/// Rows of x and columns of the result that a workgroup takes, and blocks of four by four that a thread sums in each
/// direction.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
    blocks: usize,
}

const LARGE: Tile = Tile { rows: 64, columns: 64, blocks: 2 };
const SMALL: Tile = Tile { rows: 32, columns: 32, blocks: 1 };
/// Workgroups that keep a card busy.
const BUSY: usize = 512;
/// Places of k that are worth a tile of their own, and most parts that they are cut into.
const DEPTH: usize = 256;
const MOST_PARTS: usize = 64;
/// Places that are loaded at a time: parts are whole multiples.
const STEP: usize = 16;

impl Tile {
    /// For `m` rows of `n` columns.
    fn of(m: usize, n: usize) -> Tile {
        match () {
            () if m <= 32 => Tile { rows: m.next_power_of_two().max(8), blocks: 1, ..LARGE },
            () if LARGE.groups(m, n) < BUSY / 8 => SMALL,
            () => LARGE,
        }
    }

    fn groups(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.columns)
    }
}

/// Rows of S, with those parts of codes and scales that they are in.
struct Stored {
    packed: Packed,
    rows: Range<usize>,
    parts: [Array; 2],
    /// Where codes and scales would begin, were they all bound; modulo 2³².
    starts: [usize; 2],
}

impl Stored {
    fn new(packed: Packed, arrays: [&Array; 2], rows: Range<usize>) -> Stored {
        let reach = packed.reach(rows.clone());
        let parts = [0, 1].map(|i| arrays[i].narrow(0, reach[i].start, reach[i].len()));
        let starts = [0, 1].map(|i| parts[i].start().wrapping_sub(reach[i].start) as u32 as usize);
        Stored { packed, rows, parts, starts }
    }

    /// All rows of `range`, as many together as can be bound.
    fn all(packed: Packed, arrays: [&Array; 2], range: Range<usize>) -> Vec<Stored> {
        let device = arrays[0].device();
        let most = part::most(device, 4).saturating_sub(part::unit(4));
        let words = packed.columns.div_ceil(packed.format.per_word()) + 1;
        let fits = arrays.iter().all(|array| array.fits());
        let together = if fits { range.len().max(1) } else { (most / words).max(1) };
        let part = |first: usize| Stored::new(packed, arrays, first..range.end.min(first + together));
        range.clone().step_by(together).map(part).collect()
    }

    fn names<'a>(&self, kernel: Kernel<'a>) -> Kernel<'a> {
        let name = self.packed.format.name();
        let four = if self.packed.columns.is_multiple_of(4) { format!("four_{name}") } else { "four_any".into() };
        let prepare = if self.packed.format == Format::Nf4 { "prepare_nf4" } else { "prepare_nothing" };
        kernel.name("ONE", format!("one_{name}")).name("FOUR", four).name("PREPARE", prepare)
    }
}

impl Product {
    /// `y = x S`, or with Sᵀ, plus a bias, plus what `y` holds if `add`.
    pub(super) fn record(&self, ins: &[&Array], y: &mut Array, add: bool) {
        let ([k, n], x) = (self.sizes(), as_rows(ins[0]));
        let m = x.shape()[0];
        let most = part::most(y.device(), 4).saturating_sub(part::unit(4));
        let together = if x.fits() && y.fits() { m } else { (most / k.max(n)).max(1) };
        let all = Stored::all(self.packed, [ins[1], ins[2]], 0..self.packed.rows);
        for first in (0..m).step_by(together) {
            let x = x.narrow(0, first, together.min(m - first));
            for stored in &all {
                let part = Part { product: self, stored, bias: ins.get(3).copied(), add, n };
                part.record(&x, first, y);
            }
        }
    }
}

/// What some rows of S add to the result: some of its columns, or a part of the sums.
struct Part<'a> {
    product: &'a Product,
    stored: &'a Stored,
    bias: Option<&'a Array>,
    add: bool,
    /// Columns of the whole result.
    n: usize,
}

impl Part<'_> {
    fn record(self, x: &Array, row: usize, y: &mut Array) {
        let (rows, m) = (self.stored.rows.clone(), x.shape()[0]);
        let first = row * self.n + if self.product.transposed { rows.start } else { 0 };
        // Later rows of S are later places of k: they are added to what the first gave.
        let later = !self.product.transposed && rows.start > 0;
        let x = if self.product.transposed { x.clone() } else { x.narrow(1, rows.start, rows.len()) };
        let columns = if self.product.transposed { rows.len() } else { self.n };
        let bias = self.bias.filter(|_| !later);
        let bias = bias.map(|bias| bias.narrow(0, if self.product.transposed { rows.start } else { 0 }, columns));
        let sums = Sums { x, stored: self.stored, transposed: self.product.transposed, columns };
        let (whole, k) = (columns == self.n, sums.x.shape()[1]);
        let tile = Tile::of(m, columns);
        // Long sums are cut where tiles are too few; results that have gaps are not.
        let most = (BUSY / tile.groups(m, columns)).min(k / DEPTH).min(part::most(y.device(), 4) / (m * columns));
        let depth = k.div_ceil(if whole { most.clamp(1, MOST_PARTS) } else { 1 }).next_multiple_of(STEP);
        let parts = k.div_ceil(depth);
        let range = first..first + (m - 1) * self.n + columns;
        let add = self.add || later;
        if parts == 1 {
            return sums.record(tile, [1, depth], y, (range, self.n), bias.as_ref(), add);
        }
        let mut results = y.device().scratch(Spec::new(DType::F32, [parts, m * columns]));
        let all = 0..results.count();
        sums.record(tile, [parts, depth], &mut results, (all, columns), None, false);
        let kernel = Kernel::new("matmul_parts", "sum").write_reach(y, range).read_view(&results);
        let kernel = kernel.read_view(bias.as_ref().unwrap_or(&results));
        let words = [m * columns, parts, columns, bias.as_ref().map_or(0, Array::start), 1];
        let kernel = kernel.words(words).word(start_word(bias.as_ref(), add)).word(first % part::unit(4));
        kernel.run((m * columns).div_ceil(256));
    }
}

/// As `start` in `shaders/matmul_blocks.wgsl`.
fn start_word(bias: Option<&Array>, add: bool) -> usize {
    usize::from(add) + 2 * usize::from(bias.is_some())
}

/// A product by tiles.
struct Sums<'a> {
    /// [m, k], in rows.
    x: Array,
    stored: &'a Stored,
    transposed: bool,
    columns: usize,
}

impl Sums<'_> {
    /// Into those elements of `y`, of rows that are `width` apart; one result for each part of k.
    fn record(
        &self,
        tile: Tile,
        [parts, depth]: [usize; 2],
        y: &mut Array,
        (range, width): (Range<usize>, usize),
        bias: Option<&Array>,
        add: bool,
    ) {
        let (m, k, n) = (self.x.shape()[0], self.x.shape()[1], self.columns);
        let left = Operand::new(&self.x, [1, 0], &Shape::new(&[]));
        let side = 4 * tile.blocks;
        let (wide, high) = (tile.columns / side, tile.rows / side);
        let fours = [range.start, width, n].iter().all(|count| count.is_multiple_of(4));
        let kernel = Kernel::new("quantised", if tile.blocks == 2 { "large" } else { "small" });
        let kernel = kernel.name("ROWS", tile.rows).name("COLUMNS", tile.columns);
        let kernel = kernel.name("WIDE", wide).name("THREADS", wide * high).name("TRANSPOSED", self.transposed);
        let kernel = kernel.name("LOAD_A", left.loads("a")).name("A_ALONG_K", left.along_k());
        // There is no right operand to be read as it lies.
        let kernel = kernel.name("LOAD_B", "b_any").name("STORE", if fours { "store_rows" } else { "store_any" });
        let first = range.start % part::unit(4);
        let kernel = self.stored.names(kernel).write_reach(y, range);
        let [codes, scales] = &self.stored.parts;
        let kernel = kernel.read_view(&self.x).read_view(codes).read_view(bias.unwrap_or(&self.x)).read_view(scales);
        // `Params` of `shaders/matmul_blocks.wgsl`, with what `shaders/quantised.wgsl` reads in place of a right operand.
        let [code, scale] = self.stored.starts;
        let kernel = kernel.words([m, n, k]).words(left.words()).words([code, self.stored.packed.columns, scale]);
        let kernel = kernel.words([first, width, 1]).words([bias.map_or(0, Array::start), 0, 1]);
        let kernel = kernel.word(start_word(bias, add)).words([parts, depth]).words([1, 1, 1, 1]).words([0; 4]);
        kernel.words([self.stored.rows.start, 0, 0, 0, 0]).run(tile.groups(m, n) * parts);
    }
}

impl Rows {
    /// Rows by index, or those that are said; each part of S fills in the rows that it has.
    pub(super) fn record(&self, ins: &[&Array], y: &mut Array) {
        let (packed, size) = (self.packed, y.count());
        let range = self.range.clone().unwrap_or(0..packed.rows);
        for stored in Stored::all(packed, [ins[0], ins[1]], range.clone()) {
            let [codes, scales] = &stored.parts;
            let ids = ins.get(2).copied().unwrap_or(codes);
            let kernel = Kernel::new("quantised_rows", "unpack");
            let kernel = kernel.name("ROW", if ins.len() > 2 { "row_by_index" } else { "row_in_turn" });
            let kernel = stored.names(kernel).write(y).read_view(ids).read_view(codes).read_view(ids).read_view(scales);
            let [code, scale] = stored.starts;
            let kernel = kernel.words([size, packed.columns, packed.rows, code, scale, ids.start()]);
            kernel.words([range.start, stored.rows.start, stored.rows.end]).run(size.div_ceil(256));
        }
    }
}
