//! Products with a matrix of few columns. `gemm` would spend its time on packing the other operand, which is read once
//! here, as it lies; the matrix is packed instead.

use super::gemm::{Matrix, Start, matmul_alone};
use crate::dtype::DType;
use crate::scalar::Float;
use pulp::{Arch, Simd, WithSimd};

/// Most columns, and fewest: `gemm` has a way of its own with vectors.
const COLUMNS: usize = 8;
const FEWEST: usize = 2;
/// Two rows of the matrix, interleaved: columns beside each other have to be summed in one vector, whose load of two
/// elements of the other operand then serves twice as many products.
const PAIR: usize = 2 * COLUMNS;

/// Elements of a matrix [k, n] when it is packed; none where [`narrow`] takes it as it is.
pub fn packed(dtype: DType, k: usize, n: usize) -> usize {
    if dtype == DType::F32 && (FEWEST..=COLUMNS).contains(&n) { k.div_ceil(2) * PAIR } else { 0 }
}

/// Packs a matrix [k, n] into as many elements as [`packed`] says.
pub fn pack<T: Float>(matrix: Matrix<T>, (k, n): (usize, usize), out: &mut [T]) {
    out.fill(T::zero());
    if out.is_empty() {
        return;
    }
    let at = |i: usize, j: usize| matrix.data[i * matrix.row_step as usize + j * matrix.col_step as usize];
    for (i, pair) in (0..k).step_by(2).zip(out.chunks_exact_mut(PAIR)) {
        for j in 0..n {
            pair[2 * j] = at(i, j);
            if i + 1 < k {
                pair[2 * j + 1] = at(i + 1, j);
            }
        }
    }
}

/// `h[rows, n] = factor x[rows, k] matrix[k, n]` on this thread, where `packed` is what [`pack`] made of the matrix.
pub fn narrow<T: Float>(x: &[T], k: usize, (matrix, n): (Matrix<T>, usize), packed: &[T], h: &mut [T], factor: T) {
    if packed.is_empty() {
        let x = Matrix { data: x, row_step: k as isize, col_step: 1 };
        return matmul_alone((h.len() / n.max(1), k, n), x, matrix, h, Start::Nothing, factor);
    }
    let (x, packed, h) = (bytemuck::cast_slice(x), bytemuck::cast_slice(packed), bytemuck::cast_slice_mut(h));
    Arch::new().dispatch(Product { x, k, packed, h, n, factor: factor.to_f64() as f32 });
}

struct Product<'a> {
    x: &'a [f32],
    k: usize,
    packed: &'a [f32],
    h: &'a mut [f32],
    n: usize,
    factor: f32,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sums stay in registers: eight or more, so that none waits for itself.
        match S::F32_LANES {
            16 => self.rows::<S, 8, 1>(simd),
            8 => self.rows::<S, 6, 2>(simd),
            4 => self.rows::<S, 4, 4>(simd),
            _ => self.rows::<S, 1, PAIR>(simd),
        }
    }
}

impl Product<'_> {
    /// R rows at a time, with V vectors of sums for each.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let Product { x, k, packed, h, n, factor } = self;
        let matrix = S::as_simd_f32s(packed).0;
        let whole = h.len() / n / R * R;
        let (blocks, rest) = h.split_at_mut(whole * n);
        for (x, h) in x.chunks_exact(R * k).zip(blocks.chunks_exact_mut(R * n)) {
            block::<S, R, V>(simd, x, k, matrix, h, n, factor);
        }
        for (x, h) in x[whole * k..].chunks_exact(k).zip(rest.chunks_exact_mut(n)) {
            block::<S, 1, V>(simd, x, k, matrix, h, n, factor);
        }
    }
}

// Counted loops, as in `row`: sums have to be told apart when the loops are unrolled.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn block<S: Simd, const R: usize, const V: usize>(
    simd: S,
    x: &[f32],
    k: usize,
    matrix: &[S::f32s],
    h: &mut [f32],
    n: usize,
    factor: f32,
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let mut rows: [&[[f32; 2]]; R] = [&[]; R];
    let mut last = [[0.0; 2]; R];
    for i in 0..R {
        let (pairs, odd) = x[i * k..][..k].as_chunks::<2>();
        rows[i] = &pairs[..k / 2];
        last[i][0] = odd.first().copied().unwrap_or_default();
    }
    let pairs = matrix.as_chunks::<V>().0;
    for (e, matrix) in (0..k / 2).zip(pairs) {
        for i in 0..R {
            add(simd, rows[i][e], matrix, &mut sums[i]);
        }
    }
    if let Some(matrix) = pairs.get(k / 2) {
        for i in 0..R {
            add(simd, last[i], matrix, &mut sums[i]);
        }
    }
    for (h, sums) in h.chunks_exact_mut(n).zip(&sums) {
        let sums: &[f32] = bytemuck::cast_slice(sums);
        for (h, sums) in h.iter_mut().zip(sums.chunks_exact(2)) {
            *h = (sums[0] + sums[1]) * factor;
        }
    }
}

/// Adds the products of two elements with two rows of the matrix.
#[inline(always)]
fn add<S: Simd, const V: usize>(simd: S, x: [f32; 2], matrix: &[S::f32s; V], sums: &mut [S::f32s; V]) {
    let x: S::f32s = bytemuck::cast(simd.splat_f64s(bytemuck::cast(x)));
    for v in 0..V {
        sums[v] = simd.mul_add_f32s(x, matrix[v], sums[v]);
    }
}
