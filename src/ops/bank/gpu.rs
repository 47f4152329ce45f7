//! On a GPU: `shaders/bank.wgsl`.

use super::{Bank, Sizes, inner};
use crate::autograd::{GpuBackward, SavedArrays};
use crate::device::Array;
use crate::device::kernel::Kernel;
use crate::ops::Outputs;

/// Several matrices in one array: where they begin, and steps to the next one, to the next row and to the next column.
#[derive(Clone, Copy)]
struct Matrices<'a> {
    array: &'a Array,
    steps: [usize; 3],
}

impl<'a> Matrices<'a> {
    /// [count, rows, columns] without gaps.
    fn new(array: &'a Array, [rows, columns]: [usize; 2]) -> Self {
        Matrices { array, steps: [rows * columns, columns, 1] }
    }

    fn t(self) -> Self {
        let [matrix, row, column] = self.steps;
        Matrices { steps: [matrix, column, row], ..self }
    }
}

/// A product that the kernels know: [m, k] times [k, n] for each example or adapter.
struct Product<'a> {
    sizes: [usize; 3],
    left: Matrices<'a>,
    right: Matrices<'a>,
    ids: &'a Array,
    adapters: usize,
    scale: f64,
    add: bool,
}

impl<'a> Product<'a> {
    fn new(bank: (&'a Array, usize), sizes: [usize; 3], left: Matrices<'a>, right: Matrices<'a>, scale: f64) -> Self {
        let (ids, adapters) = bank;
        Product { sizes, left, right, ids, adapters, scale, add: false }
    }

    fn run(self, entry: &'static str, batches: usize, y: &'a mut Array) {
        let [m, n, k] = self.sizes;
        if m * n * batches == 0 {
            return;
        }
        // Results of a workgroup: 1024 of them, as wide as they are high where both sides have that many.
        let [rows, columns] = match (m, n) {
            (_, ..=16) => [64, 16],
            (..=16, _) => [16, 64],
            _ => [32, 32],
        };
        let kernel = Kernel::new("bank", entry)
            .name("ROWS", rows)
            .name("COLUMNS", columns)
            .name("LEFT_ALONG_K", self.left.steps[2] == 1)
            .name("RIGHT_ALONG_K", self.right.steps[1] == 1)
            .write(y)
            .read(self.left.array)
            .read(self.right.array)
            .read(self.ids);
        let kernel = kernel.words([batches, self.ids.count(), self.adapters, m, n, k]);
        let kernel = kernel.word(self.left.array.offset()).words(self.left.steps);
        let kernel = kernel.word(self.right.array.offset()).words(self.right.steps);
        let kernel = kernel.words([self.ids.offset(), self.add.into()]).float(self.scale).float(f64::NAN);
        kernel.run(batches * m.div_ceil(rows) * n.div_ceil(columns));
    }

    /// `y_e = scale left_e right[id_e]`, or added to what it holds.
    fn gathered(self, y: &'a mut Array) {
        let examples = self.ids.count();
        self.run("gathered", examples, y);
    }

    /// `y_i = Σ left_e right_e` over the examples of adapter i.
    fn collected(self, y: &'a mut Array) {
        let adapters = self.adapters;
        self.run("collected", adapters, y);
    }
}

impl Bank {
    pub(super) fn record(&self, ins: &[&Array], out: Outputs<'_>) {
        let [x, a, b, ids] = [ins[0], ins[1], ins[2], ins[3]];
        let Sizes { time, adapters, inputs, rank, outputs } = Sizes::new(x, a, b);
        let mut own = None;
        let h = match out.residuals {
            [h] => h,
            _ => own.insert(x.device().scratch(inner(&[x.spec(), a.spec()]))),
        };
        let (left, right) = (Matrices::new(x, [time, inputs]), Matrices::new(a, [inputs, rank]));
        let bank = (ids, adapters);
        Product::new(bank, [time, rank, inputs], left, right, self.scale).gathered(h);
        let (left, right) = (Matrices::new(h, [time, rank]), Matrices::new(b, [rank, outputs]));
        let product = Product::new(bank, [time, outputs, rank], left, right, 1.0);
        Product { add: out.add, ..product }.gathered(out.y);
    }
}

impl GpuBackward for Bank {
    fn backward(&self, saved: &SavedArrays<'_>, dy: &Array, grads: &mut [Option<Array>]) {
        let [a, b, ids] = [1, 2, 3].map(|i| saved.input(i));
        let Sizes { time, adapters, inputs, rank, outputs } = Sizes::new(dy, a, b);
        let bank = (ids, adapters);
        let [dx, da, db, _] = grads else { unreachable!("one for each operand") };
        let dy = Matrices::new(dy, [time, outputs]);
        if dx.is_some() || da.is_some() {
            let mut dh = a.device().scratch(saved.residuals[0].spec());
            let right = Matrices::new(b, [rank, outputs]).t();
            Product::new(bank, [time, rank, outputs], dy, right, self.scale).gathered(&mut dh);
            let dh = Matrices::new(&dh, [time, rank]);
            if let Some(dx) = dx {
                let right = Matrices::new(a, [inputs, rank]).t();
                Product::new(bank, [time, inputs, rank], dh, right, 1.0).gathered(dx);
            }
            if let Some(da) = da {
                let x = Matrices::new(saved.input(0), [time, inputs]).t();
                Product::new(bank, [inputs, rank, time], x, dh, 1.0).collected(da);
            }
        }
        if let Some(db) = db {
            let h = Matrices::new(&saved.residuals[0], [time, rank]).t();
            Product::new(bank, [rank, outputs, time], h, dy, 1.0).collected(db);
        }
    }
}
