//! Traces of matrices that can only be multiplied by.

use super::estimate::{Estimate, Running};
use super::operator::{Symmetric, Vector, dot, orthogonal, plus, scaled, signs};
use crate::error::{Error, Result};
use crate::rng::Seed;

/// Tr A from vᵀ A v of random signs v (Hutchinson 1990): unbiased, with variance 2 (‖A‖² − Σ aᵢᵢ²) for each probe.
pub fn hutchinson(a: &dyn Symmetric, probes: u64, seed: Seed) -> Result<Estimate> {
    let mut running = Running::default();
    for probe in 0..probes {
        let v = signs(a, seed.fold(probe));
        let product = a.times(std::slice::from_ref(&v))?.remove(0);
        running.push(finite(dot(&v, &product)?)?);
    }
    Ok(running.estimate())
}

/// Tr A from `3 third` products, by Hutch++ (Meyer, Musco, Musco & Woodruff 2021): exact in the span of A S for `third`
/// random signs S, by Hutchinson's estimate in what is left. Better where eigenvalues decay; the error is that of the second
/// part.
pub fn hutch_plus_plus(a: &dyn Symmetric, third: u64, seed: Seed) -> Result<Estimate> {
    let probe = |name: &str, k: u64| signs(a, seed.named(name).fold(k));
    let mut basis: Vec<Vector> = Vec::new();
    for k in 0..third {
        let image = a.times(&[probe("range", k)])?.remove(0);
        let length = finite(dot(&image, &image)?)?.sqrt();
        let rest = orthogonal(image, &basis)?;
        let left = dot(&rest, &rest)?.sqrt();
        // What rounding leaves of a vector in the span is no direction.
        if left > 1e-6 * length {
            basis.push(scaled(&rest, 1.0 / left));
        }
    }
    let mut exact = 0.0;
    for q in &basis {
        exact += dot(q, &a.times(std::slice::from_ref(q))?.remove(0))?;
    }
    let mut running = Running::default();
    for k in 0..third {
        let mut v = probe("rest", k);
        for q in &basis {
            v = plus(&v, -dot(q, &v)?, q);
        }
        let product = a.times(std::slice::from_ref(&v))?.remove(0);
        running.push(finite(dot(&v, &product)?)?);
    }
    let rest = running.estimate();
    Ok(Estimate { mean: exact + rest.mean, ..rest })
}

pub(super) fn finite(x: f64) -> Result<f64> {
    match x.is_finite() {
        true => Ok(x),
        false => Err(Error::NotFinite(format!("a product of curvature is {x}: the loss or its derivatives overflow"))),
    }
}
