//! Matrix products small enough for the caches, in tiles held in registers.

use crate::scalar::Float;
use pulp::{Arch, Simd, WithSimd};

/// What columns come in: a 512-bit register holds 16 numbers of f32.
pub(super) const LANES: usize = 16;
/// What rows come in.
pub(super) const ROWS: usize = 8;

/// Left operand of a product: element (i, k) is `data[i * row + k * column]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    data: &'a [T],
    row: usize,
    column: usize,
}

impl<'a, T> Left<'a, T> {
    /// Stored row by row, `step` apart.
    pub fn rows(data: &'a [T], step: usize) -> Self {
        Left { data, row: step, column: 1 }
    }

    /// The transpose of what is stored row by row, `step` apart.
    pub fn transposed(data: &'a [T], step: usize) -> Self {
        Left { data, row: 1, column: step }
    }
}

/// `c[m, n] = a[m, k] b[k, n]`, or `+=`; rows of `b` and `c` lie as far apart as the second of each pair says.
/// `m` is a multiple of [`ROWS`], `n` of [`LANES`]. Sums run over k in order, whatever the tile.
#[inline(always)]
pub(super) fn product<T: Float>(
    (m, k, n): (usize, usize, usize),
    a: Left<'_, T>,
    (b, b_step): (&[T], usize),
    (c, c_step): (&mut [T], usize),
    accumulate: bool,
) {
    Arch::new().dispatch(Tiles { m, n, k, a, b, b_step, c, c_step, accumulate });
}

/// A product under way.
struct Tiles<'a, T> {
    m: usize,
    n: usize,
    k: usize,
    a: Left<'a, T>,
    b: &'a [T],
    b_step: usize,
    c: &'a mut [T],
    c_step: usize,
    accumulate: bool,
}

impl<T: Float> WithSimd for Tiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // Sums of f32 stay in registers, of which AVX-512 and NEON have 32 and the others 16.
        match S::F32_LANES {
            16 => self.cover::<ROWS, 2>(),
            4 | 8 => self.cover::<4, 1>(),
            _ => self.cover::<2, 1>(),
        }
    }
}

impl<T: Float> Tiles<'_, T> {
    /// All of the result, R rows and W times [`LANES`] columns at a time; R divides [`ROWS`].
    #[inline(always)]
    fn cover<const R: usize, const W: usize>(mut self) {
        let Tiles { m, n, k, a, b_step, c_step, .. } = self;
        assert!(m % ROWS == 0 && n % LANES == 0, "tiles are whole");
        if m == 0 || n == 0 {
            return;
        }
        assert!(k == 0 || (m - 1) * a.row + (k - 1) * a.column < a.data.len(), "left operand");
        assert!(k == 0 || (k - 1) * b_step + n <= self.b.len(), "right operand");
        assert!((m - 1) * c_step + n <= self.c.len(), "result");
        let wide = n / (W * LANES) * (W * LANES);
        for i in (0..m).step_by(R) {
            // SAFETY: whole tiles inside the matrices, and these inside their slices, as asserted above.
            unsafe {
                for j in (0..wide).step_by(W * LANES) {
                    self.tile::<R, W>(i, j);
                }
                if wide < n {
                    self.tile::<R, 1>(i, wide);
                }
            }
        }
    }

    /// Rows `i..i + R`, columns `j..j + W * LANES`.
    ///
    /// # Safety
    /// These lie inside the result, and what they need inside the operands.
    #[inline(always)]
    unsafe fn tile<const R: usize, const W: usize>(&mut self, i: usize, j: usize) {
        let mut sums = [[[T::zero(); LANES]; W]; R];
        // SAFETY: the caller's promise.
        unsafe {
            let a = self.a.data.as_ptr().add(i * self.a.row);
            let b = self.b.as_ptr().add(j);
            let c = self.c.as_mut_ptr().add(i * self.c_step + j);
            for k in 0..self.k {
                let b: [[T; LANES]; W] = b.add(k * self.b_step).cast::<[[T; LANES]; W]>().read();
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = *a.add(r * self.a.row + k * self.a.column);
                    for (sums, b) in sums.iter_mut().zip(&b) {
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = a.mul_add(*b, *sum);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let c = c.add(r * self.c_step).cast::<[[T; LANES]; W]>();
                if self.accumulate {
                    let old = c.read();
                    for (sums, old) in sums.iter_mut().zip(&old) {
                        for (sum, old) in sums.iter_mut().zip(old) {
                            *sum += *old;
                        }
                    }
                }
                c.write(*sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, so that sums are exact.
    fn numbers(count: usize, factor: usize) -> Vec<f32> {
        (0..count).map(|i| (i * factor % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn tiles_of_any_size_make_the_same_product() {
        let (m, k, n) = (2 * ROWS, 5, 3 * LANES);
        let (a, b, old) = (numbers(m * k, 7), numbers(k * (n + 1), 5), numbers(m * (n + 2), 3));
        for (left, accumulate) in [(Left::rows(&a, k), false), (Left::transposed(&a, m), true)] {
            let tried = |by: fn(Tiles<'_, f32>)| {
                let mut c = old.clone();
                let (b, c_step) = (&b[..], n + 2);
                by(Tiles { m, n, k, a: left, b, b_step: n + 1, c: &mut c, c_step, accumulate });
                c
            };
            let mut exact = old.clone();
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let sum: f32 = (0..k).map(|l| a[i * left.row + l * left.column] * b[l * (n + 1) + j]).sum();
                exact[i * (n + 2) + j] = sum + if accumulate { old[i * (n + 2) + j] } else { 0.0 };
            }
            assert_eq!(tried(|tiles| Arch::new().dispatch(tiles)), exact);
            assert_eq!(tried(|tiles| tiles.cover::<ROWS, 2>()), exact);
            assert_eq!(tried(|tiles| tiles.cover::<4, 1>()), exact);
            assert_eq!(tried(|tiles| tiles.cover::<2, 1>()), exact);
        }
    }
}
