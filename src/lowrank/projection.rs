//! Subspaces that optimizer states live in: a random matrix that is a seed, or a basis that is kept.

use super::svd;
use crate::error::Result;
use crate::ops::project::{Entries, Random};
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// How the matrix P [rank, size] of a subspace is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// Entries ±1/√rank from a seed: nothing is kept. E\[PᵀP\] = I.
    Rademacher,
    /// The same in rows that are orthogonal, see [`Entries::Walsh`]: nothing is kept. E\[PᵀP\] = I.
    Walsh,
    /// Normal entries of variance 1/rank from a seed: nothing is kept. E\[PᵀP\] = I.
    Gaussian,
    /// Orthogonal rows in random directions, scaled by √(size/rank) so that E\[PᵀP\] = I; kept.
    Orthonormal,
    /// The leading left singular vectors of the gradient (GaLore, Zhao et al. 2024); kept.
    Svd,
}

impl Projection {
    /// Whether the matrix is a function of its seed alone.
    pub fn is_seed(self) -> bool {
        self.entries().is_some()
    }

    fn entries(self) -> Option<Entries> {
        match self {
            Projection::Rademacher => Some(Entries::Rademacher),
            Projection::Walsh => Some(Entries::Walsh),
            Projection::Gaussian => Some(Entries::Gaussian),
            Projection::Orthonormal | Projection::Svd => None,
        }
    }

    /// How many times as long as an orthogonal projection PᵀP makes what lies in the subspace, on average: size/rank
    /// where E\[PᵀP\] = I, 1 where rows are orthonormal.
    pub fn gain(self, rank: usize, size: usize) -> f64 {
        if self == Projection::Svd { 1.0 } else { size as f64 / rank as f64 }
    }

    /// The matrix that a seed stands for, if it is one.
    pub fn random(self, rank: usize, seed: Seed) -> Option<Random> {
        self.entries().map(|entries| Random { entries, rank, seed })
    }

    /// A basis to be kept, [rank, size]: for a gradient [size, n].
    pub fn basis(self, gradient: &Tensor, rank: usize, seed: Seed) -> Result<Tensor> {
        let size = gradient.shape()[0];
        if !gradient.device().computes() {
            return Ok(Tensor::zeros([rank, size], gradient.dtype(), gradient.device()));
        }
        match self {
            Projection::Svd => Ok(svd::svd(gradient)?.u.slice(1, 0, rank).t().contiguous()),
            _ => {
                let random = Random { entries: Entries::Gaussian, rank, seed };
                let matrix = random.matrix(size, gradient.dtype(), gradient.device());
                Ok(svd::orthonormal(&matrix.t())?.t() * (size as f64 / rank as f64).sqrt())
            }
        }
    }
}

/// A subspace at one moment.
#[derive(Clone, Debug)]
pub enum Basis {
    /// From a seed; of vectors of this size.
    Random(Random, usize),
    /// P itself, [rank, size].
    Kept(Tensor),
}

impl Basis {
    /// P x: [size, n] to [rank, n].
    pub fn down(&self, x: &Tensor) -> Tensor {
        match self {
            Basis::Random(random, _) => x.project(*random),
            Basis::Kept(p) => p.matmul(x),
        }
    }

    /// Pᵀ c: [rank, n] to [size, n].
    pub fn up(&self, c: &Tensor) -> Tensor {
        match self {
            Basis::Random(random, size) => c.project_back(*random, *size),
            Basis::Kept(p) => p.t().matmul(c),
        }
    }

    /// P P_oldᵀ, [rank, rank]: moves coordinates in the old subspace to this one.
    pub fn overlap(&self, old: &Basis, like: &Tensor) -> Tensor {
        match (self, old) {
            (Basis::Random(new, size), Basis::Random(old, _)) => new.overlap(*old, *size, like.dtype(), like.device()),
            (new, Basis::Kept(old)) => new.down(&old.t()),
            (Basis::Kept(new), Basis::Random(..)) => old.down(&new.t()).t(),
        }
    }
}

/// The sides of a matrix with the smaller one, which is compressed, first; ties leave them as they are.
pub fn sides(shape: &Shape) -> Option<[usize; 2]> {
    match shape[..] {
        [rows, columns] => Some([rows.min(columns), rows.max(columns)]),
        _ => None,
    }
}
