//! Matrix products on a GPU: how operands are handed to the kernels of `shaders/matmul*.wgsl`.

use super::plan::{Family, Plan, Size, blocks};
use super::split;
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec, part};
use crate::dtype::DType;
use crate::shape::{Shape, Strides};
use std::ops::Range;

/// Dimensions that batches may have: an array has six.
const BATCH_DIMS: usize = 4;
/// Threads of a workgroup of the direct kernel.
const DIRECT_THREADS: usize = 32;

/// `y = a b`, plus `bias` in every row, plus what `y` holds if `add`; `y` is contiguous. The kernel is chosen by shape
/// and device unless `family` names it.
pub fn product(a: &Array, b: &Array, y: &mut Array, bias: Option<&Array>, add: bool, family: Option<Family>) {
    let rows = super::rows_of(a, b);
    run(rows.as_ref().unwrap_or(a), b, y, 0, bias, add, family);
}

/// The same for two matrices, into the elements of `y` from `start` on.
pub(in crate::ops) fn product_into(a: &Array, b: &Array, y: &mut Array, start: usize, add: bool) {
    assert!(a.shape().last_size() > 0 || add, "nothing to write over only a part with");
    run(a, b, y, start, None, add, None);
}

fn run(a: &Array, b: &Array, y: &mut Array, start: usize, bias: Option<&Array>, add: bool, family: Option<Family>) {
    let product = Product::new(a, b, bias, add);
    let size = product.size;
    if size.m * size.n * size.batches == 0 {
        return;
    }
    if size.k == 0 {
        return match bias {
            Some(bias) => product.sum(bias, 0, y),
            None if add => {}
            None => y.fill(0.0_f32),
        };
    }
    let along_k = [product.left.along_k(), product.right.along_k()];
    let plan = match family {
        Some(family) => Plan::of(family, &size, along_k),
        None => Plan::choose(&size, along_k, software(y)),
    };
    match [Some(a), Some(b), bias].into_iter().flatten().all(Array::fits) && y.fits() {
        true => product.from(start).run(plan, y),
        false => split::run(a, b, y, start, bias, add, &plan),
    }
}

/// Whether kernels run on the host. The null device counts for a card.
fn software(y: &Array) -> bool {
    #[cfg(feature = "gpu")]
    return y.device().gpu().is_some_and(|gpu| gpu.about().kind == "software");
    #[cfg(not(feature = "gpu"))]
    return y.device().computes();
}

/// How four by four elements of an operand are read.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    AlongK,
    AlongRows,
    Any,
}

/// A matrix [rows, k] in each batch: b is taken transposed, so that both operands are alike.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    array: &'a Array,
    row: usize,
    k: usize,
    /// Steps from batch to batch, innermost first.
    batch: [usize; BATCH_DIMS],
}

impl<'a> Operand<'a> {
    /// `axes`: those of rows and of k, counted from the last.
    pub fn new(array: &'a Array, axes: [usize; 2], batch: &Shape) -> Operand<'a> {
        let (shape, strides) = (array.shape(), array.strides());
        let dims = shape.len();
        // A dimension of one element has no step.
        let step = |axis: usize| if shape[axis] == 1 { 0 } else { strides[axis] as usize };
        let [row, k] = axes.map(|axis| step(dims - 1 - axis));
        let lead = Shape::new(shape.leading(2));
        let steps = Strides::new(&strides[..lead.len()]).broadcast(&lead, batch);
        let place =
            |i: usize| if i < batch.len() && batch[batch.len() - 1 - i] > 1 { steps[batch.len() - 1 - i] } else { 0 };
        Operand { array, row, k, batch: std::array::from_fn(|i| place(i) as usize) }
    }

    /// Whether neighbours lie along k rather than along rows.
    pub fn along_k(&self) -> bool {
        self.k != 0 && (self.k <= self.row || self.row == 0)
    }

    fn load(&self) -> Load {
        let fours = |steps: &[usize]| steps.iter().all(|step| step.is_multiple_of(4));
        match self {
            _ if !fours(&self.batch) || !fours(&[self.array.start()]) => Load::Any,
            _ if self.k == 1 && fours(&[self.row]) => Load::AlongK,
            _ if self.row == 1 && fours(&[self.k]) => Load::AlongRows,
            _ => Load::Any,
        }
    }

    /// The shader's function that reads it, as operand `a` or `b`.
    pub fn loads(&self, operand: &str) -> String {
        let load = match self.load() {
            Load::AlongK => "along_k",
            Load::AlongRows => "along_rows",
            Load::Any => "any",
        };
        format!("{operand}_{load}")
    }

    /// Where it begins, and its steps along rows and k.
    pub fn words(&self) -> [usize; 3] {
        [self.array.start(), self.row, self.k]
    }
}

/// A product about to be recorded.
#[derive(Clone)]
pub(super) struct Product<'a> {
    pub size: Size,
    pub left: Operand<'a>,
    pub right: Operand<'a>,
    /// Elements of the result that it is about, counted from the first of them, and their steps along rows and columns.
    part: Range<usize>,
    result: [usize; 2],
    /// Steps of the bias.
    start: [usize; 2],
    bias: Option<&'a Array>,
    add: bool,
    /// Sizes of the batches' dimensions, innermost first.
    batch: [usize; BATCH_DIMS],
}

impl<'a> Product<'a> {
    pub(super) fn new(a: &'a Array, b: &'a Array, bias: Option<&'a Array>, add: bool) -> Product<'a> {
        let [m, k] = [1, 0].map(|axis| a.shape()[a.shape().len() - 1 - axis]);
        let n = b.shape().last_size();
        let lead = Shape::new(a.shape().leading(2)).broadcast(&Shape::new(b.shape().leading(2)));
        let lead = lead.expect("batches broadcast");
        Product {
            size: Size { m, n, k, batches: lead.count() },
            left: Operand::new(a, [1, 0], &lead),
            right: Operand::new(b, [0, 1], &lead),
            part: 0..lead.count() * m * n,
            result: [n, 1],
            start: [0, bias.map_or(0, |bias| bias.strides()[0] as usize)],
            bias,
            add,
            batch: std::array::from_fn(|i| if i < lead.len() { lead[lead.len() - 1 - i] } else { 1 }),
        }
    }

    /// The same with a result that is these elements of a larger one, its rows `row` apart.
    pub(super) fn within(self, part: Range<usize>, row: usize) -> Product<'a> {
        Product { part, result: [row, 1], ..self }
    }

    /// The same with a result that begins at this element of a larger one.
    fn from(self, start: usize) -> Product<'a> {
        let part = start..start + self.part.len();
        Product { part, ..self }
    }

    /// The transposed result of the transposed operands: the same elements.
    fn swapped(self) -> Product<'a> {
        let size = Size { m: self.size.n, n: self.size.m, ..self.size };
        let [result, start] = [self.result, self.start].map(|[rows, columns]| [columns, rows]);
        Product { size, left: self.right, right: self.left, result, start, ..self }
    }

    /// By the kernel of `plan`, in as many parts of k as are bound together.
    pub(super) fn run(self, plan: Plan, y: &mut Array) {
        let count = self.part.len();
        let plan = plan.limited(self.size.k, part::most(y.device(), 4) / count);
        if plan.parts == 1 {
            return self.record(&plan, y);
        }
        let mut parts = y.device().scratch(Spec::new(DType::F32, [plan.parts, count]));
        let all = Product { bias: None, add: false, part: 0..parts.count(), ..self.clone() };
        all.record(&plan, &mut parts);
        self.sum(&parts, plan.parts, y);
    }

    /// Where the result begins in what is bound of it.
    fn first(&self) -> usize {
        self.part.start % part::unit(4)
    }

    fn start_word(&self) -> usize {
        usize::from(self.add) + 2 * usize::from(self.bias.is_some())
    }

    /// The kernel of `plan`, into `y` or into parts of it.
    fn record(self, plan: &Plan, y: &mut Array) {
        let product = if plan.swap { self.swapped() } else { self };
        let Size { m, n, batches, .. } = product.size;
        let tiles = |rows: usize, columns: usize| m.div_ceil(rows) * n.div_ceil(columns) * batches * plan.parts;
        let (kernel, groups) = match plan.family {
            Family::Naive => (product.anyhow(Kernel::new("matmul", "naive")), (m * n * batches).div_ceil(256)),
            Family::Direct => {
                let tile = (8 * DIRECT_THREADS / plan.side, 8 * plan.side);
                (product.direct(), tiles(tile.0, tile.1))
            }
            Family::Narrow => {
                let kernel = Kernel::new("matmul_narrow", "narrow").name("EIGHT", n > 4);
                (product.loads(kernel).name("STORE", product.store()), tiles(4 * plan.side, 8))
            }
            Family::Tiles(rows, columns) => {
                let side = 4 * blocks(rows, columns);
                let kernel = Kernel::new("matmul_tiles", if side == 8 { "large" } else { "small" });
                let (wide, threads) = (columns / side, rows / side * columns / side);
                let kernel = kernel.name("ROWS", rows).name("COLUMNS", columns).name("WIDE", wide);
                let kernel = product.loads(kernel.name("THREADS", threads)).name("STORE", product.store());
                (kernel, tiles(rows, columns))
            }
        };
        let kernel = kernel.write_reach(y, product.part.clone());
        let kernel = kernel.read_view(product.left.array).read_view(product.right.array);
        // A kernel binds what it might read.
        let kernel = kernel.read_view(product.bias.unwrap_or(product.right.array));
        product.words(plan, kernel).run(groups);
    }

    /// Reads and writes element by element.
    fn anyhow(&self, kernel: Kernel<'a>) -> Kernel<'a> {
        kernel.name("LOAD_A", "a_any").name("LOAD_B", "b_any").name("STORE", "store_any")
    }

    /// By fours only if both operands lie so: a host should not have to compile more kernels than that makes.
    fn direct(&self) -> Kernel<'a> {
        let kernel = Kernel::new("matmul_direct", "direct").name("THREADS", DIRECT_THREADS);
        let fours = [self.left, self.right].iter().all(|operand| operand.load() != Load::Any);
        let kernel = kernel.name("FOURS", fours);
        match fours {
            true => self.loads(kernel).name("STORE", self.store()),
            false => self.anyhow(kernel),
        }
    }

    /// How it reads; neighbours go where an operand lies together.
    fn loads(&self, kernel: Kernel<'a>) -> Kernel<'a> {
        kernel
            .name("LOAD_A", self.left.loads("a"))
            .name("LOAD_B", self.right.loads("b"))
            .name("A_ALONG_K", self.left.along_k())
            .name("B_ALONG_K", self.right.along_k())
    }

    /// How it writes.
    fn store(&self) -> &'static str {
        match self.result {
            _ if !self.part.start.is_multiple_of(4) => "store_any",
            [step, 1] if step.is_multiple_of(4) && self.size.n.is_multiple_of(4) => "store_rows",
            [1, step] if step.is_multiple_of(4) && self.size.m.is_multiple_of(4) => "store_columns",
            _ => "store_any",
        }
    }

    /// `Params` of `shaders/matmul_blocks.wgsl`.
    fn words(&self, plan: &Plan, kernel: Kernel<'a>) -> Kernel<'a> {
        let Size { m, n, k, batches } = self.size;
        let kernel = kernel.words([m, n, k]).words(self.left.words()).words(self.right.words());
        let bias = self.bias.map_or(0, Array::start);
        let kernel = kernel.word(self.first()).words(self.result).word(bias).words(self.start).word(self.start_word());
        let kernel = kernel.words([plan.parts, plan.depth, batches]).words(self.batch.into_iter().take(BATCH_DIMS - 1));
        kernel.words(self.left.batch).words(self.right.batch).word(plan.side)
    }

    /// The sum of `parts` results, and what it is added to.
    fn sum(&self, results: &Array, parts: usize, y: &mut Array) {
        let count = self.part.len();
        let kernel = Kernel::new("matmul_parts", "sum").write_reach(y, self.part.clone());
        let kernel = kernel.read_view(results).read_view(self.bias.unwrap_or(results));
        let kernel = kernel.words([count, parts, self.size.n, self.bias.map_or(0, Array::start), self.start[1]]);
        kernel.word(self.start_word()).word(self.first()).run(count.div_ceil(256));
    }
}
