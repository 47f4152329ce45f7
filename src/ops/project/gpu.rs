//! Products with random projections on a GPU: the kernel that matrix products by tiles use, with one operand drawn.

use super::{Entries, Project, UNIT};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec, part};
use crate::dtype::DType;
use crate::ops::matmul::Operand;
use crate::shape::Shape;

/// Columns of x and columns of P's product that a workgroup takes, and blocks of four by four that a thread sums in each
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
/// Columns of P that are worth a tile of their own, and most parts that they are cut into.
const DEPTH: usize = 2 * UNIT;
const MOST_PARTS: usize = 64;

impl Tile {
    /// For a product of `columns` columns with `n` of x.
    fn of(back: bool, columns: usize, n: usize) -> Tile {
        match back {
            true if LARGE.groups(columns, n) < BUSY => SMALL,
            false if columns <= 32 => Tile { columns: columns.next_power_of_two().max(8), blocks: 1, ..LARGE },
            _ => LARGE,
        }
    }

    fn groups(&self, columns: usize, n: usize) -> usize {
        n.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }
}

impl Project {
    /// `y = P x`, of rows `x Pᵀ`, or with Pᵀ for P, added to what `y` holds if `add`.
    pub(super) fn record(&self, x: &Array, y: &mut Array, add: bool) {
        let [k, columns] = self.sizes();
        if k == 0 {
            if !add {
                y.fill(0.0_f32);
            }
            return;
        }
        let (n, count) = (x.shape()[1 - self.axis], y.count());
        let tile = Tile::of(self.back, columns, n);
        // Long sums are cut where tiles are too few; going back they are as long as the rank.
        let most = (BUSY / tile.groups(columns, n)).min(k / DEPTH).min(part::most(y.device(), 4) / count);
        let most = if self.back { 1 } else { most.clamp(1, MOST_PARTS) };
        let depth = k.div_ceil(most).next_multiple_of(UNIT);
        let parts = k.div_ceil(depth);
        if parts == 1 {
            return self.products(tile, x, [parts, depth], add, y);
        }
        let mut results = y.device().scratch(Spec::new(DType::F32, [parts, count]));
        self.products(tile, x, [parts, depth], false, &mut results);
        let kernel = Kernel::new("matmul_parts", "sum").write(y).read(&results).read(&results);
        kernel.words([count, parts, n, 0, 0, add.into(), 0]).run(count.div_ceil(256));
    }

    /// Sums over each part of k, by tiles.
    fn products(&self, tile: Tile, x: &Array, [parts, depth]: [usize; 2], add: bool, y: &mut Array) {
        let ([k, columns], n) = (self.sizes(), x.shape()[1 - self.axis]);
        let (side, groups) = (4 * tile.blocks, tile.groups(columns, n) * parts);
        // Results for one of `n` lie a row apart, or a column.
        let (axes, steps, store) = match self.axis {
            0 => ([0, 1], [1, n], "store_columns"),
            _ => ([1, 0], [columns, 1], "store_rows"),
        };
        let left = Operand::new(x, axes, &Shape::new(&[]));
        let kernel = Kernel::new("project", if tile.blocks == 2 { "large" } else { "small" });
        let (wide, high) = (tile.columns / side, tile.rows / side);
        let kernel = kernel.name("ROWS", tile.rows).name("COLUMNS", tile.columns);
        let kernel = kernel.name("WIDE", wide).name("THREADS", wide * high).name("BACK", self.back);
        let kernel = kernel.name("SIGNS", self.random.entries != Entries::Gaussian).name("ENTRIES", self.entries());
        let kernel = kernel.name("LOAD_A", left.loads("a")).name("A_ALONG_K", left.along_k());
        let store = if steps[0].max(steps[1]).is_multiple_of(4) { store } else { "store_any" };
        // There is no right operand to be read, nor a bias.
        let kernel = kernel.name("LOAD_B", "b_any").name("STORE", store);
        let kernel = kernel.write(y).read_view(x).read_view(x).read_view(x);
        let key = self.random.seed.key().map(|word| word as usize);
        // `Params` of `shaders/matmul_blocks.wgsl`.
        let kernel = kernel.words([n, columns, k]).words(left.words()).words(key).word(self.size);
        let kernel = kernel.word(0).words(steps).words([0, 0, 0, add.into()]).words([parts, depth]);
        let order = self.order();
        let kernel = kernel.words([1, 1, 1, 1]).words(order.words.map(|word| word as usize));
        let kernel = kernel.word(self.first).float(self.scale().into()).words([order.group, order.shift as usize]);
        kernel.word(0).run(groups);
    }

    /// The shader's function of entries.
    fn entries(&self) -> &'static str {
        match (self.random.entries, self.back) {
            (Entries::Gaussian, false) => "normals_ahead",
            (Entries::Gaussian, true) => "normals_back",
            (_, false) => "signs_ahead",
            (_, true) => "signs_back",
        }
    }
}
