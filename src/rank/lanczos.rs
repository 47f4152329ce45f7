//! Eigenvalues at the ends of a spectrum, and its density, of matrices that can only be multiplied by.

use super::hutchinson::finite;
use super::operator::{Symmetric, Vector, dot, orthogonal, plus, scaled, signs};
use crate::error::Result;
use crate::lowrank::svd::symmetric;
use crate::rng::Seed;
use serde::Serialize;

/// An orthonormal basis Q of a Krylov space, and Qᵀ A Q, which is tridiagonal (Lanczos 1950; with full
/// reorthogonalisation).
struct Krylov {
    basis: Vec<Vector>,
    /// Diagonal.
    alpha: Vec<f64>,
    /// Beside it.
    beta: Vec<f64>,
}

impl Krylov {
    /// From a vector, in at most `steps` products.
    fn new(a: &dyn Symmetric, start: Vector, steps: usize) -> Result<Krylov> {
        let mut space = Krylov { basis: Vec::new(), alpha: Vec::new(), beta: Vec::new() };
        let mut next = scaled(&start, 1.0 / dot(&start, &start)?.sqrt());
        for step in 0..steps.min(a.size()) {
            let product = a.times(std::slice::from_ref(&next))?.remove(0);
            let alpha = finite(dot(&next, &product)?)?;
            space.basis.push(next);
            space.alpha.push(alpha);
            let rest = orthogonal(product, &space.basis)?;
            let beta = dot(&rest, &rest)?.sqrt();
            let scale = space.alpha.iter().chain(&space.beta).fold(0.0_f64, |most, x| most.max(x.abs()));
            // The space is invariant: what is left is rounding.
            if step + 1 == steps.min(a.size()) || beta <= 1e-7 * scale {
                break;
            }
            space.beta.push(beta);
            next = scaled(&rest, 1.0 / beta);
        }
        Ok(space)
    }

    /// Eigenvalues of the tridiagonal matrix, ascending, and its eigenvectors in columns.
    fn decomposed(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let n = self.alpha.len();
        let mut t = vec![0.0; n * n];
        (0..n).for_each(|i| t[i * n + i] = self.alpha[i]);
        (0..n - 1).for_each(|i| {
            t[i * n + i + 1] = self.beta[i];
            t[(i + 1) * n + i] = self.beta[i];
        });
        symmetric(n, &t)
    }
}

/// An eigenvalue, nearly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Eigenvalue {
    /// The Rayleigh quotient vᵀ A v of the vector found.
    pub value: f64,
    /// ‖A v − value · v‖: an eigenvalue of A lies at most so far away.
    pub residual: f64,
}

/// The `count` eigenvalues that are largest in magnitude, by Lanczos in `steps` products and one more for each. Of an
/// eigenvalue that occurs several times one is found.
pub fn eigenvalues(a: &dyn Symmetric, count: usize, steps: usize, seed: Seed) -> Result<Vec<Eigenvalue>> {
    let space = Krylov::new(a, signs(a, seed), steps)?;
    let (values, vectors) = space.decomposed()?;
    let n = values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| values[j].abs().total_cmp(&values[i].abs()));
    let one = |&j: &usize| {
        let mut v = scaled(&space.basis[0], vectors[j]);
        for (i, q) in space.basis.iter().enumerate().skip(1) {
            v = plus(&v, vectors[i * n + j], q);
        }
        let v = scaled(&v, 1.0 / dot(&v, &v)?.sqrt());
        let product = a.times(std::slice::from_ref(&v))?.remove(0);
        let value = finite(dot(&v, &product)?)?;
        let rest = plus(&product, -value, &v);
        Ok(Eigenvalue { value, residual: dot(&rest, &rest)?.sqrt() })
    };
    order.iter().take(count).map(one).collect()
}

/// A spectral density as weighted points: an estimate of (1/n) Σ δ(λᵢ).
#[derive(Clone, Debug, Serialize)]
pub struct Density {
    /// Place and weight of each point; weights add up to 1.
    pub points: Vec<[f64; 2]>,
    /// n.
    pub size: usize,
}

impl Density {
    /// n times the mean: Hutchinson's estimate of the trace from the same probes.
    pub fn trace(&self) -> f64 {
        self.size as f64 * self.points.iter().map(|[place, weight]| place * weight).sum::<f64>()
    }

    /// The density at x, each point spread by a normal distribution of this deviation.
    pub fn at(&self, x: f64, deviation: f64) -> f64 {
        let normal =
            |place: f64| (-0.5 * ((x - place) / deviation).powi(2)).exp() / (deviation * std::f64::consts::TAU.sqrt());
        self.points.iter().map(|[place, weight]| weight * normal(*place)).sum()
    }
}

/// Stochastic Lanczos quadrature (Golub & Welsch 1969; Ubaru, Chen & Saad 2017): each probe's tridiagonal matrix gives
/// eigenvalues θ with the squares of their eigenvectors' first elements as weights. Probes are those of
/// [`hutchinson`](super::hutchinson()) with the same seed.
pub fn density(a: &dyn Symmetric, probes: u64, steps: usize, seed: Seed) -> Result<Density> {
    let mut points = Vec::new();
    for probe in 0..probes {
        let (values, vectors) = Krylov::new(a, signs(a, seed.fold(probe)), steps)?.decomposed()?;
        points.extend(values.iter().zip(&vectors).map(|(value, first)| [*value, first * first / probes as f64]));
    }
    Ok(Density { points, size: a.size() })
}
