//! Matrix products by the `gemm` crate, split over threads by shape alone.

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

    /// The matrix from row `i`, column `j` on.
    fn from(&self, i: usize, j: usize) -> Self {
        Matrix { data: &self.data[i * self.row_step as usize + j * self.col_step as usize..], ..*self }
    }

    /// Rows as columns.
    pub fn t(self) -> Self {
        Matrix { row_step: self.col_step, col_step: self.row_step, ..self }
    }
}

/// Multiplications below which a product is not worth splitting.
const WHOLE: usize = 1 << 21;
/// Rows or columns of a piece: each piece packs the other operand again, so fewer cost too much.
const SIDE: usize = 256;

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
pub fn matmul<T: Float>(
    (m, k, n): (usize, usize, usize),
    a: Matrix<T>,
    b: Matrix<T>,
    out: &mut [T],
    start: Start<'_, T>,
) {
    let by_rows = m >= n;
    let side = m.max(n);
    if m * n * k < WHOLE || side < 32 {
        return matmul_alone((m, k, n), a, b, out, start, T::one());
    }
    assert!(a.holds(m, k) && b.holds(k, n) && out.len() == m * n, "matrices lie inside their storages");
    let step = side.div_ceil(2).min(SIDE).next_multiple_of(16);
    if by_rows {
        out.par_chunks_mut(step * n).enumerate().for_each(|(i, rows)| {
            let out = Output { data: rows.as_mut_ptr(), row_step: n };
            piece((rows.len() / n, k, n), a.from(i * step, 0), b, out, start, T::one());
        });
    } else {
        let out = Output { data: out.as_mut_ptr(), row_step: n };
        (0..n.div_ceil(step)).into_par_iter().for_each(|j| {
            let width = step.min(n - j * step);
            let start = start.columns(j * step, width);
            piece((m, k, width), a, b.from(0, j * step), out.columns(j * step), start, T::one());
        });
    }
}

/// `out[m, n] = start + a[m, k] b[k, n]` into `n` columns from `first` on of an `out` whose rows are `width` long. The product is split along its rows
/// alone.
pub fn matmul_columns<T: Float>(
    (m, k, n): (usize, usize, usize),
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
    let step = if m * n * k < WHOLE { m } else { m.div_ceil(2).min(SIDE).next_multiple_of(16) };
    let start = start.columns(first, n);
    out.par_chunks_mut(step * width).enumerate().for_each(|(i, rows)| {
        let out = Output { data: rows.as_mut_ptr(), row_step: width };
        piece((rows.len() / width, k, n), a.from(i * step, 0), b, out.columns(first), start, T::one());
    });
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
    fn columns(self, skip: usize) -> Self {
        // SAFETY: `skip` is less than the number of columns.
        Output { data: unsafe { self.data.add(skip) }, ..self }
    }
}

impl<T: Float> Output<T> {
    /// Writes `row` to each of `m` rows: right before the product adds to them, while they are in the cache.
    fn fill(self, m: usize, row: &[T]) {
        for i in 0..m {
            // SAFETY: row `i` of this piece, which is as wide as `row`.
            let out = unsafe { std::slice::from_raw_parts_mut(self.data.add(i * self.row_step), row.len()) };
            out.copy_from_slice(row);
        }
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
    if let Start::Row(row) = start {
        out.fill(m, row);
    }
    let accumulate = !matches!(start, Start::Nothing);
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
