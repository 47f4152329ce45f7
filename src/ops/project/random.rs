//! A random projection as a value: what it is, as a matrix, and what it makes of gradients.

use super::{Project, UNIT};
use crate::autograd::apply_onto;
use crate::device::Device;
use crate::dtype::{DType, Element};
use crate::float;
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::sync::Arc;

/// What the entries of a random projection are; E\[PᵀP\] = I, but for `Signs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    /// ±1/√rank with equal chances. E‖PᵀPx − x‖² = (size − 1)/rank ‖x‖².
    Rademacher,
    /// ±1/√rank in rows that are orthogonal, in groups of as many as the largest power of two that divides size; groups
    /// are independent. E‖PᵀPx − x‖² = (size − rank)/rank ‖x‖² where one group has all rows. A subsampled randomized
    /// Hadamard transform (Ailon & Chazelle 2006; Tropp 2011) whose Walsh functions are repeated where size is no power
    /// of two; orthogonal rows decode sketches better at the price of signs.
    Walsh,
    /// Those of `Rademacher` as ±1, so that E\[PᵀP\] = rank I: directions of probes (Hutchinson 1990).
    Signs,
    /// Normal with mean 0 and variance 1/rank. E‖PᵀPx − x‖² = (size + 1)/rank ‖x‖².
    Gaussian,
}

/// A random projection P, `[rank, size]` for any `size`, as a function of its seed.
///
/// Entries depend on seed, place and `size` alone, and are single-precision numbers whatever the type of what they are
/// multiplied with. Signs are the same bits on every device; normal numbers are the same to a few units in the last
/// place.
///
/// * Rademacher and Signs: entry (i, j) is negative if bit j mod 32 is set in word i ⌈size/32⌉ + ⌊j/32⌋ of the seed's array.
/// * Walsh, with 2ᵃ the largest power of two that divides size: entry (i, j) is negative if bit j mod 32 of word
///   ⌊i/2ᵃ⌋ ⌈size/32⌉ + ⌊j/32⌋ and the parity of k(i mod 2ᵃ) ∧ j differ, where k is a permutation of 0..2ᵃ, see
///   `ops/project/walsh.rs`. For odd sizes this is Rademacher.
/// * Gaussian: entry (i, j) is √(2/rank) erf⁻¹(u), where u is what the upper 24 bits of word i size + j say of
///   (−1, 1), by the approximation of Giles, "Approximating the erfinv function" (2010).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    /// What its entries are.
    pub entries: Entries,
    /// Its rows.
    pub rank: usize,
    /// What its entries are functions of.
    pub seed: Seed,
}

/// Columns of P that [`Random::overlap`] takes at a time.
const PART: usize = 8 * UNIT;

impl Random {
    /// The matrix itself, `[rank, size]`: for what has to be stored, such as an orthonormal basis of its rows.
    #[track_caller]
    pub fn matrix(&self, size: usize, dtype: DType, device: &Device) -> Tensor {
        self.transposed(size, dtype, device).t().contiguous()
    }

    /// Pᵀ, `[size, rank]`.
    #[track_caller]
    pub(crate) fn transposed(&self, size: usize, dtype: DType, device: &Device) -> Tensor {
        identity(self.rank, dtype, device).project_back(*self, size)
    }

    /// `P Pᵒᵀ`, `[rank, old.rank]`, for a projection Pᵒ of the same size: what takes a sketch by `old` to one by this.
    /// Neither is ever there as a whole.
    #[track_caller]
    pub fn overlap(&self, old: Random, size: usize, dtype: DType, device: &Device) -> Tensor {
        let identity = identity(old.rank, dtype, device);
        let parts = (0..size).step_by(PART).map(|first| {
            let part = |p: Random, back: bool| Project::whole(p, 0, size, back).part(first, PART);
            (part(*self, false), Tensor::apply(part(old, true), &[&identity]))
        });
        let sum = parts.fold(None, |sum, (project, old)| match sum {
            Some(sum) => Some(apply_onto(Arc::new(project), &[&old], sum)),
            None => Some(Tensor::apply(project, &[&old])),
        });
        sum.unwrap_or_else(|| Tensor::zeros([self.rank, old.rank], dtype, device))
    }

    /// A matrix with its smaller side compressed: `P G`, [rank, n], of a matrix [m, n] with m ≤ n, else `P Gᵀ`,
    /// [rank, m].
    #[track_caller]
    pub fn sketch(&self, matrix: &Tensor) -> Tensor {
        smaller_first(matrix).project(*self)
    }

    /// The same, added to `sum`, in its storage where nothing else refers to that.
    #[track_caller]
    pub(crate) fn sketch_onto(&self, matrix: &Tensor, sum: Tensor) -> Tensor {
        assert_eq!(*sum.shape(), self.sketch_shape(matrix.shape()), "a sketch added to one of another shape");
        let matrix = smaller_first(matrix);
        apply_onto(Arc::new(Project::whole(*self, 0, matrix.shape()[0], false)), &[&matrix], sum)
    }

    /// Shape of the sketch of a matrix of this shape.
    #[track_caller]
    pub fn sketch_shape(&self, shape: &Shape) -> Shape {
        let larger = if compresses_rows(shape) { shape[1] } else { shape[0] };
        [self.rank, larger].into()
    }

    /// The way back from a sketch to a matrix of this shape, which on average over seeds is the one that it was of;
    /// perhaps as a transposed view.
    #[track_caller]
    pub fn lift(&self, sketch: &Tensor, shape: &Shape) -> Tensor {
        match compresses_rows(shape) {
            true => sketch.project_back(*self, shape[0]),
            false => sketch.project_back(*self, shape[1]).t(),
        }
    }
}

/// Whether a sketch of a matrix of this shape compresses its rows, rather than its columns.
#[track_caller]
pub(crate) fn compresses_rows(shape: &Shape) -> bool {
    assert_eq!(shape.len(), 2, "a sketch is of a matrix, not of shape {shape:?}");
    shape[0] <= shape[1]
}

/// A matrix with its smaller side first: itself, or its transpose.
#[track_caller]
pub(crate) fn smaller_first(matrix: &Tensor) -> Tensor {
    if compresses_rows(matrix.shape()) { matrix.clone() } else { matrix.t() }
}

fn identity(size: usize, dtype: DType, device: &Device) -> Tensor {
    float!(dtype, T => {
        let one = |i: usize| <T as Element>::from_f64(if i.is_multiple_of(size + 1) { 1.0 } else { 0.0 });
        Tensor::new(&(0..size * size).map(one).collect::<Vec<T>>(), [size, size], device)
    })
}
