//! Dense factorisations on the host, in double precision, by the `faer` crate on the calling thread: one matrix is one
//! task, so that results have the same bits for any number of threads. Matrices are slices, row by row.

use crate::error::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor as llt;
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::svd::{self, ComputeSvdVectors};
use faer::linalg::{householder, triangular_solve};
use faer::{Conj, Mat, MatRef, Par};

/// `A = U diag(s) Vᵀ`, with as many columns as A's smaller side.
pub(super) struct Thin {
    /// [m, k].
    pub u: Vec<f64>,
    /// Largest first.
    pub s: Vec<f64>,
    /// [n, k].
    pub v: Vec<f64>,
}

/// Singular values and vectors of A [m, n]. The entry of each left vector that is largest in magnitude is positive.
pub(super) fn svd([m, n]: [usize; 2], a: &[f64]) -> Result<Thin> {
    let k = m.min(n);
    let (mut u, mut v, mut s) = (Mat::zeros(m, k), Mat::zeros(n, k), Diag::zeros(k));
    let thin = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd::svd_scratch::<f64>(m, n, thin, thin, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    let a = MatRef::from_row_major_slice(a, m, n);
    let (left, right) = (Some(u.as_mut()), Some(v.as_mut()));
    svd::svd(a, s.as_mut(), left, right, Par::Seq, stack, Default::default())
        .map_err(|_| Error::NotFinite(format!("the singular values of a {m} by {n} matrix did not converge")))?;
    let signs: Vec<f64> = (0..k).map(|j| sign((0..m).map(|i| u[(i, j)]))).collect();
    Ok(Thin { u: by_rows(&u, &signs), s: s.column_vector().iter().copied().collect(), v: by_rows(&v, &signs) })
}

/// Eigenvalues of a symmetric A [n, n], ascending, and eigenvectors in columns, [n, n]; the lower half is read.
pub(super) fn symmetric(n: usize, a: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut values, mut vectors) = (Diag::zeros(n), Mat::zeros(n, n));
    let need = evd::self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(need);
    let stack = MemStack::new(&mut memory);
    let a = MatRef::from_row_major_slice(a, n, n);
    evd::self_adjoint_evd(a, values.as_mut(), Some(vectors.as_mut()), Par::Seq, stack, Default::default())
        .map_err(|_| Error::NotFinite(format!("the eigenvalues of a {n} by {n} matrix did not converge")))?;
    Ok((values.column_vector().iter().copied().collect(), by_rows(&vectors, &vec![1.0; n])))
}

/// An orthonormal basis of the columns of A [m, r], r ≤ m: Q of A = Q R with a diagonal of R that is not negative.
pub(super) fn orthonormal([m, r]: [usize; 2], a: &[f64]) -> Vec<f64> {
    let mut a = MatRef::from_row_major_slice(a, m, r).to_owned();
    let block = qr::recommended_block_size::<f64>(m, r);
    let mut coefficients = Mat::zeros(block, r);
    let need = qr::qr_in_place_scratch::<f64>(m, r, block, Par::Seq, Default::default())
        .or(householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(m, block, r));
    let mut memory = MemBuffer::new(need);
    let stack = MemStack::new(&mut memory);
    qr::qr_in_place(a.as_mut(), coefficients.as_mut(), Par::Seq, stack, Default::default());
    let signs: Vec<f64> = (0..r).map(|j| if a[(j, j)] < 0.0 { -1.0 } else { 1.0 }).collect();
    let mut q = Mat::identity(m, r);
    householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
        a.as_ref(),
        coefficients.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        stack,
    );
    by_rows(&q, &signs)
}

/// That of the element which is largest in magnitude, the first of them.
fn sign(x: impl Iterator<Item = f64>) -> f64 {
    let largest = x.fold(0.0_f64, |largest, x| if x.abs() > largest.abs() { x } else { largest });
    if largest < 0.0 { -1.0 } else { 1.0 }
}

/// The elements, with each column times its sign.
fn by_rows(x: &Mat<f64>, signs: &[f64]) -> Vec<f64> {
    (0..x.nrows()).flat_map(|i| signs.iter().enumerate().map(move |(j, sign)| sign * x[(i, j)])).collect()
}

/// Lower triangular L [n, n] with C = L Lᵀ, of which the lower half is read; none if C is not positive definite.
pub(super) fn cholesky(n: usize, c: &[f64]) -> Option<Vec<f64>> {
    let mut l = MatRef::from_row_major_slice(c, n, n).to_owned();
    let mut memory = MemBuffer::new(llt::cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    llt::cholesky_in_place(l.as_mut(), Default::default(), Par::Seq, stack, Default::default()).ok()?;
    Some((0..n * n).map(|at| if at % n <= at / n { l[(at / n, at % n)] } else { 0.0 }).collect())
}

/// Z [n, k] with Lᵀ Z = B, for L [n, n] lower triangular and B [n, k].
pub(super) fn solve_transposed([n, k]: [usize; 2], l: &[f64], b: &[f64]) -> Vec<f64> {
    let mut z = MatRef::from_row_major_slice(b, n, k).to_owned();
    let upper = MatRef::from_row_major_slice(l, n, n).transpose();
    triangular_solve::solve_upper_triangular_in_place(upper, z.as_mut(), Par::Seq);
    by_rows(&z, &vec![1.0; k])
}
