//! What kernels on the host are made of: SIMD chosen at run time, work split by shape alone, matrix products.

mod gemm;
mod narrow;
pub mod row;
mod split;
mod transpose;

pub use gemm::{Matrix, Start, laid_out, matmul, matmul_alone, matmul_columns};
pub use narrow::{narrow, pack, packed};
pub use split::{blocks_into, each, rows, rows_per_piece, split, sum_rows, summed_rows};
pub use transpose::transpose;

/// Runs `f` compiled for the widest SIMD this processor has. Mark `f`, and what it calls, `#[inline(always)]`:
/// only code inlined here is compiled so.
#[inline]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// How many numbers of f32 a register of this processor's widest SIMD holds.
pub fn f32_lanes() -> usize {
    struct Lanes;
    impl pulp::WithSimd for Lanes {
        type Output = usize;
        fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    pulp::Arch::new().dispatch(Lanes)
}
