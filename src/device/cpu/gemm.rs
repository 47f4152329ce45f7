//! Matrix products by the `gemm` crate, split over threads by shape alone.

use super::{f32_lanes, simd, transpose};
use crate::scalar::Float;
use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix inside a slice: element (i, j) is `data[i * row_step + j * col_step]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    /// The storage from the first element on.
    pub data: &'a [T],
    /// Step to the next row.
    pub row_step: isize,
    /// Step to the next column.
    pub col_step: isize,
}

impl<T> Matrix<'_, T> {
    /// Whether every element of a `rows` by `cols` matrix lies inside the slice.
    fn holds(&self, rows: usize, cols: usize) -> bool {
        if rows == 0 || cols == 0 {
            return true;
        }
        let last = (rows as isize - 1) * self.row_step + (cols as isize - 1) * self.col_step;
        self.row_step >= 0 && self.col_step >= 0 && last < self.data.len() as isize
    }

    /// Whether `gemm` reads it as it lies best: any way but by columns.
    fn by_rows(&self) -> bool {
        self.col_step == 1 || self.row_step != 1
    }

    /// The matrix from row `i`, column `j` on.
    fn from(&self, i: usize, j: usize) -> Self {
        Matrix { data: &self.data[i * self.row_step as usize + j * self.col_step as usize..], ..*self }
    }

    /// Rows as columns.
    pub fn t(self) -> Self {
        Matrix { row_step: self.col_step, col_step: self.row_step, ..self }
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// Nothing: what the result held is overwritten.
    Nothing,
    /// A row, the same for every row of the result.
    Row(&'a [T]),
    /// What the result holds.
    Held,
}

impl<'a, T> Start<'a, T> {
    /// The part that belongs to `count` columns from `first` on.
    fn columns(self, first: usize, count: usize) -> Start<'a, T> {
        match self {
            Start::Row(row) => Start::Row(&row[first..first + count]),
            other => other,
        }
    }
}

/// `out[m, n] = start + a[m, k] b[k, n]`; rows of `out` lie behind each other.
pub fn matmul<T: Float>(size: (usize, usize, usize), a: Matrix<T>, b: Matrix<T>, out: &mut [T], start: Start<'_, T>) {
    match size {
        (_, 0, _) => matmul_alone(size, a, b, out, start, T::one()),
        (_, _, n) => matmul_columns(size, a, b, out, (n, 0), start),
    }
}

/// `out[m, n] = start + a[m, k] b[k, n]` into `n` columns from `first` on of an `out` whose rows are `width` long, as
/// is the row that it starts from.
pub fn matmul_columns<T: Float>(
    size @ (m, k, n): (usize, usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    out: &mut [T],
    (width, first): (usize, usize),
    start: Start<'_, T>,
) {
    if m == 0 || n == 0 {
        return;
    }
    let fits = k > 0 && a.holds(m, k) && b.holds(k, n) && out.len() == m * width && first + n <= width;
    assert!(fits, "matrices lie inside their storages");
    let (out, start) = (Output { data: out.as_mut_ptr(), row_step: width }.columns(first), start.columns(first, n));
    let (rows, columns) = piece_of(size, start);
    if b.by_rows() || rows == m || k * STRIPE > PANEL {
        return pieces(size, (rows, columns), a, b, out, start);
    }
    let mut room = Vec::new();
    let wide = (PANEL / k / STRIPE * STRIPE).min(n);
    for j in (0..n).step_by(wide) {
        let wide = wide.min(n - j);
        let b = laid_out(b.from(0, j), (k, wide), &mut room);
        pieces((m, k, wide), (rows, columns.min(wide)), a, b, out.columns(j), start.columns(j, wide));
    }
}

/// Multiplications below which a product is not worth splitting.
const WHOLE: usize = 1 << 21;
/// Rows or columns of a piece: each piece packs the other operand again, so fewer cost too much.
const SIDE: usize = 256;
/// Columns that a product with 512-bit registers takes at a time: one tile of `gemm`'s, which stays in the first-level
/// cache while the left operand passes by. For more, the left operand would be packed first.
const STRIPE: usize = 64;

/// Rows and columns of the pieces of a product.
fn piece_of<T>((m, k, n): (usize, usize, usize), start: Start<'_, T>) -> (usize, usize) {
    let side = |count: usize, most: usize| count.div_ceil(2).min(most).next_multiple_of(16);
    if m * n * k < WHOLE {
        (m, n)
    } else if striped(m, start) {
        (side(m, 2 * SIDE).min(m), STRIPE.min(n))
    } else if m >= n {
        (side(m, SIDE).min(m), n)
    } else {
        (m, side(n, SIDE).min(n))
    }
}

/// Whether to take [`STRIPE`] columns at a time: few rows are not packed anyway, and what is held is read by rows, so
/// that it is fetched ahead.
fn striped<T>(m: usize, start: Start<'_, T>) -> bool {
    m >= STRIPE && !matches!(start, Start::Held) && f32_lanes() == 16
}

/// The pieces of a product, in parallel.
fn pieces<T: Float>(
    (m, k, n): (usize, usize, usize),
    (rows, columns): (usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    out: Output<T>,
    start: Start<'_, T>,
) {
    let across = n.div_ceil(columns);
    (0..m.div_ceil(rows) * across).into_par_iter().for_each(|at| {
        let (i, j) = (at / across * rows, at % across * columns);
        let (rows, columns) = (rows.min(m - i), columns.min(n - j));
        let start = start.columns(j, columns);
        piece((rows, k, columns), a.from(i, 0), b.from(0, j), out.rows(i).columns(j), start, T::one());
    });
}

/// Most elements of a matrix that are laid out at a time.
const PANEL: usize = 1 << 20;
/// Rows that are laid out by one task.
const LAID: usize = 64;

/// The matrix `b[k, n]` by rows, in `room` if its columns are what is contiguous and it is not too large: for products
/// with several pieces of rows. `gemm` would gather it in each of them, element by element, which for pieces of 256
/// rows takes a fifth of the product's time.
pub fn laid_out<'a, T: Float>(b: Matrix<'a, T>, (k, n): (usize, usize), room: &'a mut Vec<T>) -> Matrix<'a, T> {
    if b.by_rows() || k * n > PANEL || k * n == 0 {
        return b;
    }
    assert!(b.holds(k, n), "a matrix lies inside its storage");
    room.resize(k * n, T::zero());
    let step = b.col_step as usize;
    room.par_chunks_mut(LAID * n).enumerate().for_each(|(i, rows)| {
        transpose((n, rows.len() / n), (&b.data[i * LAID..], step), T::one(), (rows, n));
    });
    Matrix { data: room, row_step: n as isize, col_step: 1 }
}

/// `out[m, n] = start + factor a[m, k] b[k, n]`, on this thread: for callers that share out their work themselves.
pub fn matmul_alone<T: Float>(
    (m, k, n): (usize, usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    out: &mut [T],
    start: Start<'_, T>,
    factor: T,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.holds(m, k) && b.holds(k, n) && out.len() == m * n, "matrices lie inside their storages");
    if k > 0 {
        return piece((m, k, n), a, b, Output { data: out.as_mut_ptr(), row_step: n }, start, factor);
    }
    match start {
        Start::Nothing => out.fill(T::zero()),
        Start::Row(row) => out.chunks_exact_mut(n).for_each(|out| out.copy_from_slice(row)),
        Start::Held => {}
    }
}

/// Where a piece is written: a pointer, because column pieces of one matrix interleave.
#[derive(Clone, Copy)]
struct Output<T> {
    data: *mut T,
    row_step: usize,
}

// SAFETY: the pieces that `matmul` hands to threads are disjoint, and it outlives them.
unsafe impl<T: Send> Send for Output<T> {}
unsafe impl<T: Send> Sync for Output<T> {}

impl<T> Output<T> {
    /// From a row of the piece on.
    fn rows(self, skip: usize) -> Self {
        // SAFETY: the row is one of those that are written.
        Output { data: unsafe { self.data.add(skip * self.row_step) }, ..self }
    }

    /// From a column of the piece on.
    fn columns(self, skip: usize) -> Self {
        // SAFETY: the column is one of those that are written.
        Output { data: unsafe { self.data.add(skip) }, ..self }
    }
}

impl<T: Float> Output<T> {
    /// Adds `row` to each of `m` rows: right after the product, while they are in the cache.
    fn add(self, m: usize, row: &[T]) {
        simd(
            #[inline(always)]
            || {
                for i in 0..m {
                    // SAFETY: row `i` of this piece, which is as wide as `row`.
                    let out = unsafe { std::slice::from_raw_parts_mut(self.data.add(i * self.row_step), row.len()) };
                    out.iter_mut().zip(row).for_each(|(y, b)| *y += *b);
                }
            },
        );
    }
}

/// One product on this thread.
fn piece<T: Float>(
    (m, k, n): (usize, usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    out: Output<T>,
    start: Start<'_, T>,
    factor: T,
) {
    let stripe = if striped(m, start) { STRIPE.min(n) } else { n };
    for j in (0..n).step_by(stripe) {
        let n = stripe.min(n - j);
        let out = out.columns(j);
        whole((m, k, n), a, b.from(0, j), out, matches!(start, Start::Held), factor);
        if let Start::Row(row) = start {
            out.add(m, &row[j..j + n]);
        }
    }
}

/// A product as it is.
fn whole<T: Float>(
    (m, k, n): (usize, usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    out: Output<T>,
    accumulate: bool,
    factor: T,
) {
    let kept = if accumulate { T::one() } else { T::zero() };
    // SAFETY: the callers checked that both operands hold their elements, and give each piece rows or columns of its own.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data,
            1,
            out.row_step as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_step,
            a.row_step,
            b.data.as_ptr(),
            b.col_step,
            b.row_step,
            kept,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, so that sums are exact.
    fn numbers(count: usize, factor: usize) -> Vec<f32> {
        (0..count).map(|i| (i * factor % 7) as f32 - 3.0).collect()
    }

    /// A product as its definition says, `width` apart from row to row.
    fn expected(
        (m, k, n): (usize, usize, usize),
        a: Matrix<f32>,
        b: Matrix<f32>,
        start: impl Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let at = |x: &Matrix<f32>, i: usize, j: usize| x.data[i * x.row_step as usize + j * x.col_step as usize];
        let mut out: Vec<f32> = (0..m * n).map(|at| start(at / n, at % n)).collect();
        for (i, out) in out.chunks_exact_mut(n).enumerate() {
            for l in 0..k {
                let x = at(&a, i, l);
                out.iter_mut().enumerate().for_each(|(j, y)| *y += x * at(&b, l, j));
            }
        }
        out
    }

    #[test]
    fn pieces_make_the_whole_however_operands_lie() {
        // Several pieces of rows and of columns with rests; one product alone; two panels.
        for size @ (m, k, n) in [(600, 40, 130), (70, 600, 300), (5, 7, 9), (70, 16_000, 70)] {
            let (left, right, bias) = (numbers(m * k, 5), numbers(k * n, 3), numbers(n + 2, 11));
            let rows = |data, width: usize| Matrix { data, row_step: width as isize, col_step: 1 };
            for (a, b) in [
                (rows(&left, k), rows(&right, n)),
                (rows(&left, k), rows(&right, k).t()),
                (rows(&left, m).t(), rows(&right, n)),
            ] {
                let held = numbers(m * (n + 2), 4);
                let product = |start: Start<'_, f32>| {
                    let mut out = held.clone();
                    matmul_columns(size, a, b, &mut out, (n + 2, 1), start);
                    let around = |at: &usize| [0, n + 1].contains(&(at % (n + 2)));
                    assert!((0..out.len()).filter(around).all(|at| out[at] == held[at]), "columns of others: {size:?}");
                    (0..out.len()).filter(|at| !around(at)).map(|at| out[at]).collect::<Vec<f32>>()
                };
                assert!(product(Start::Nothing) == expected(size, a, b, |_, _| 0.0), "{size:?}");
                assert!(product(Start::Row(&bias)) == expected(size, a, b, |_, j| bias[j + 1]), "row: {size:?}");
                assert!(
                    product(Start::Held) == expected(size, a, b, |i, j| held[i * (n + 2) + j + 1]),
                    "held: {size:?}"
                );
            }
        }
    }
}
