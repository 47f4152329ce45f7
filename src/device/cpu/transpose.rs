//! Transposition, a block of registers at a time.

use super::simd;
use crate::scalar::Float;

/// Rows of a block: they fill a 512-bit register when they have become a column.
const ROWS: usize = 16;
/// Columns of a block.
const COLUMNS: usize = 4;

/// The transpose of `x[rows, columns]`, times `factor`, into `out[columns, rows]`. Rows of each lie as far apart as
/// the second of its pair says.
pub fn transpose<T: Float>(
    (rows, columns): (usize, usize),
    (x, x_step): (&[T], usize),
    factor: T,
    (out, out_step): (&mut [T], usize),
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * x_step + columns <= x.len(), "the matrix");
    assert!((columns - 1) * out_step + rows <= out.len(), "its transpose");
    simd(
        #[inline(always)]
        || {
            for i in (0..rows).step_by(ROWS) {
                for j in (0..columns).step_by(COLUMNS) {
                    let size = (ROWS.min(rows - i), COLUMNS.min(columns - j));
                    // SAFETY: the block lies inside both matrices, and these inside their slices, as asserted above.
                    unsafe {
                        let (x, out) = (x.as_ptr().add(i * x_step + j), out.as_mut_ptr().add(j * out_step + i));
                        match size {
                            (ROWS, COLUMNS) => block(x, x_step, factor, out, out_step),
                            _ => edge(size, x, x_step, factor, out, out_step),
                        }
                    }
                }
            }
        },
    );
}

/// A block in registers.
///
/// # Safety
/// `x` points to [`ROWS`] rows of [`COLUMNS`], `out` to as many columns.
#[inline(always)]
unsafe fn block<T: Float>(x: *const T, x_step: usize, factor: T, out: *mut T, out_step: usize) {
    let mut columns = [[T::zero(); ROWS]; COLUMNS];
    for i in 0..ROWS {
        // SAFETY: the caller's promise.
        let row: [T; COLUMNS] = unsafe { x.add(i * x_step).cast::<[T; COLUMNS]>().read() };
        for (column, x) in columns.iter_mut().zip(row) {
            column[i] = x * factor;
        }
    }
    for (j, column) in columns.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { out.add(j * out_step).cast::<[T; ROWS]>().write(column) };
    }
}

/// What is left at the edges.
///
/// # Safety
/// `x` points to `m` rows of `n`, `out` to `n` rows of `m`.
#[inline(always)]
unsafe fn edge<T: Float>((m, n): (usize, usize), x: *const T, x_step: usize, factor: T, out: *mut T, out_step: usize) {
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        // SAFETY: the caller's promise.
        unsafe { *out.add(j * out_step + i) = *x.add(i * x_step + j) * factor };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for (rows, columns) in [(16, 8), (32, 4), (3, 5), (17, 9), (1, 8), (0, 4)] {
            let (x_step, out_step) = (columns + 2, rows + 1);
            let x: Vec<f32> = (0..rows * x_step).map(|i| i as f32).collect();
            let mut out = vec![-1.0; columns * out_step];
            transpose((rows, columns), (&x, x_step), 2.0, (&mut out, out_step));
            for (at, found) in out.iter().enumerate() {
                let (j, i) = (at / out_step, at % out_step);
                let expected = if i < rows { 2.0 * x[i * x_step + j] } else { -1.0 };
                assert_eq!(*found, expected, "column {j} of row {i} of {rows} by {columns}");
            }
        }
    }
}
