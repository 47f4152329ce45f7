//! Roots of second moments.

use super::dense;
use super::svd::{put, read};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Lower triangular L, row by row, with L Lᵀ = C + damping · (tr C / n) · 1 for second moments C [n, n]; an error if there
/// is none.
pub(super) fn damped_root(n: usize, mut c: Vec<f64>, damping: f64) -> Result<Vec<f64>> {
    let mean = (0..n).map(|i| c[i * n + i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| c[i * n + i] += damping * mean);
    dense::cholesky(n, &c).ok_or_else(|| {
        let way = "damp them more, or count more inputs";
        Error::Config(format!("second moments of its inputs are singular with damping {damping}: {way}"))
    })
}

/// L⁻ᵀ [n, n] of the same L: vectors in rows with second moments C + damping, times it, have the moments 1.
#[track_caller]
pub fn whitening(c: &Tensor, damping: f64) -> Result<Tensor> {
    let n = c.shape()[0];
    let Some(values) = read(c)? else { return Ok(put(None, [n, n], c)) };
    let root = damped_root(n, values, damping)?;
    let one: Vec<f64> = (0..n * n).map(|at| if at % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
    Ok(put(Some(dense::solve_transposed([n, n], &root, &one)), [n, n], c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::normal;
    use crate::{DType, Device, Seed};

    #[test]
    fn whitened_vectors_have_moments_of_one() {
        let x = normal(&[40, 6], 1.0, Seed(1), &Device::cpu()).cast(DType::F64);
        let mixed = x.matmul(&normal(&[6, 6], 1.0, Seed(2), &Device::cpu()).cast(DType::F64));
        let c = mixed.t().matmul(&mixed) * (1.0 / 40.0);
        let white = mixed.matmul(&whitening(&c, 0.0).unwrap());
        let found = (white.t().matmul(&white) * (1.0 / 40.0)).to_vec::<f64>().unwrap();
        assert!(found.iter().enumerate().all(|(at, x)| (x - if at % 7 == 0 { 1.0 } else { 0.0 }).abs() < 1e-10));
        let error = whitening(&(c * 0.0), 0.1).unwrap_err().to_string();
        assert!(error.contains("singular with damping 0.1"), "{error}");
    }
}
