//! Small dense linear algebra: singular values, exact and by sketching, and orthonormal bases.
//!
//! Factorisations run on the host in double precision, whatever the device and type, on one thread: a GPU is waited for,
//! and results have the same bits for any number of threads. The memory that they work in on the host is outside the
//! ledger. On the null device results have shapes alone.

use super::dense;
use crate::device::{Spec, Tag};
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::float;
use crate::module::normal;
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// `A = U diag(s) Vᵀ` for A [m, n], or the leading part of it.
#[derive(Clone, Debug)]
pub struct Svd {
    /// Left singular vectors in columns, [m, k].
    pub u: Tensor,
    /// Singular values `[k]`, largest first.
    pub s: Tensor,
    /// Right singular vectors in columns, [n, k].
    pub v: Tensor,
}

impl Svd {
    /// The leading `rank` of them: by Eckart & Young (1936) the nearest matrix of that rank in the Frobenius norm and in
    /// the spectral norm, if all were there.
    #[track_caller]
    pub fn truncated(&self, rank: usize) -> Svd {
        let leading = |x: &Tensor| x.slice(-1, 0, rank).contiguous();
        Svd { u: leading(&self.u), s: leading(&self.s), v: leading(&self.v) }
    }

    /// `U diag(s) Vᵀ`, [m, n].
    pub fn product(&self) -> Tensor {
        (&self.u * &self.s).matmul(&self.v.t())
    }
}

/// Thin singular value decomposition of a matrix [m, n], f32 or f64: as many values as the smaller side has. The entry of
/// each left vector that is largest in magnitude is positive. Costs about 4 m n min(m, n) multiplications; see
/// [`randomized`] for a few of many values.
///
/// A NaN or an infinity in it is an error, as is a decomposition that does not converge.
#[track_caller]
pub fn svd(a: &Tensor) -> Result<Svd> {
    let [m, n] = sizes("svd", a);
    let k = m.min(n);
    let (u, s, v) = match read(a)? {
        Some(numbers) => {
            let found = dense::svd([m, n], &numbers)?;
            (Some(found.u), Some(found.s), Some(found.v))
        }
        None => (None, None, None),
    };
    Ok(Svd { u: put(u, [m, k], a), s: put(s, [k], a), v: put(v, [n, k], a) })
}

/// The leading `rank` singular values and vectors of a matrix [m, n], nearly: the range finder with power iterations and
/// the decomposition in it, algorithms 4.4 and 5.1 of Halko, Martinsson & Tropp, "Finding structure with randomness"
/// (SIAM Review 2011).
///
/// The sketch has `oversample` columns more than wanted (5 to 10 is usual), at most the smaller side, drawn from `seed`.
/// Each of `iterations` multiplies by A Aᵀ once more, with orthonormal bases between: one or two serve where singular
/// values decay slowly. Products run on the device in the matrix's type, thin factorisations on the host.
///
/// A NaN or an infinity in it is an error. Panics on a rank above the smaller side.
#[track_caller]
pub fn randomized(a: &Tensor, rank: usize, oversample: usize, iterations: usize, seed: Seed) -> Result<Svd> {
    let [m, n] = sizes("randomized svd", a);
    assert!(rank <= m.min(n), "randomized svd: rank {rank} of a matrix of shape {:?}", a.shape());
    let width = (rank + oversample).min(m.min(n));
    let sketch = normal(&[n, width], 1.0, seed, a.device()).tagged(Tag::Workspace).cast(a.dtype());
    let mut q = orthonormal(&a.matmul(&sketch))?;
    for _ in 0..iterations {
        let z = orthonormal(&a.t().matmul(&q))?;
        q = orthonormal(&a.matmul(&z))?;
    }
    let inner = svd(&q.t().matmul(a))?.truncated(rank);
    Ok(Svd { u: q.matmul(&inner.u), ..inner })
}

/// An orthonormal basis Q [m, r] of the columns of a matrix [m, r], by Householder reflections: Q of A = Q R, with a
/// diagonal of R that is not negative. Where columns depend on each other, those of Q are orthonormal all the same.
///
/// A NaN or an infinity in it is an error. Panics on more columns than rows.
#[track_caller]
pub fn orthonormal(a: &Tensor) -> Result<Tensor> {
    let [m, r] = sizes("orthonormal", a);
    assert!(r <= m, "orthonormal: {r} columns in {m} dimensions");
    let q = read(a)?.map(|numbers| dense::orthonormal([m, r], &numbers));
    Ok(put(q, [m, r], a))
}

/// Eigenvalues of a symmetric matrix [n, n] given row by row, ascending, and eigenvectors in columns; the lower half is read.
pub(crate) fn symmetric(n: usize, a: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    match a.iter().find(|x| !x.is_finite()) {
        None => dense::symmetric(n, a),
        Some(x) => Err(Error::NotFinite(format!("an element of a symmetric matrix that was to be decomposed is {x}"))),
    }
}

#[track_caller]
fn sizes(what: &str, a: &Tensor) -> [usize; 2] {
    assert!(a.dtype().computes(), "{what}: no arithmetic on {}: cast to f32 first", a.dtype());
    assert_eq!(a.shape().len(), 2, "{what}: a matrix has two dimensions, not shape {:?}", a.shape());
    [a.shape()[0], a.shape()[1]]
}

/// The elements, row by row; none on the null device.
pub(super) fn read(a: &Tensor) -> Result<Option<Vec<f64>>> {
    if !a.device().computes() {
        return Ok(None);
    }
    let numbers: Vec<f64> = float!(a.dtype(), T => a.to_vec::<T>()?.into_iter().map(Element::to_f64).collect());
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok(Some(numbers)),
        Some(at) => {
            let (row, column) = (at / a.shape().last_size(), at % a.shape().last_size());
            let place = format!("element ({row}, {column}) of a matrix {:?}", a.shape());
            Err(Error::NotFinite(format!("{place} that was to be decomposed is {}", numbers[at])))
        }
    }
}

/// These elements beside `like`, in its type.
pub(super) fn put(numbers: Option<Vec<f64>>, shape: impl Into<Shape>, like: &Tensor) -> Tensor {
    let (shape, device) = (shape.into(), like.device());
    match numbers {
        None => Tensor::from_array(device.alloc(Spec { dtype: like.dtype(), shape })),
        Some(numbers) => float!(like.dtype(), T => {
            Tensor::new(&numbers.into_iter().map(<T as Element>::from_f64).collect::<Vec<T>>(), shape, device)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::dtype::DType;

    fn random(sizes: [usize; 2], seed: u64) -> Tensor {
        normal(&sizes, 1.0, Seed(seed), &Device::cpu()).cast(DType::F64)
    }

    /// Largest difference of two tensors' elements.
    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.shape(), b.shape());
        let [a, b] = [a, b].map(|x| x.cast(DType::F64).to_vec::<f64>().unwrap());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    /// ‖QᵀQ − 1‖, in the largest element.
    fn skew(q: &Tensor) -> f64 {
        let r = q.shape()[1];
        let one: Vec<f64> = (0..r * r).map(|i| if i / r == i % r { 1.0 } else { 0.0 }).collect();
        apart(&q.t().matmul(q).cast(DType::F64), &Tensor::new(&one, [r, r], &Device::cpu()))
    }

    #[test]
    fn factors_are_orthonormal_and_make_up_the_matrix() {
        for (i, sizes) in [[7, 7], [40, 9], [9, 40], [1, 5], [5, 1], [130, 70]].into_iter().enumerate() {
            let a = random(sizes, i as u64);
            for (a, bound) in [(a.clone(), 1e-12), (a.cast(DType::F32), 2e-6)] {
                let found = svd(&a).unwrap();
                assert!(apart(&found.product(), &a) < 10.0 * bound, "{sizes:?}");
                assert!(skew(&found.u).max(skew(&found.v)) < bound, "{sizes:?}");
                let s = found.s.cast(DType::F64).to_vec::<f64>().unwrap();
                assert!(s.is_sorted_by(|a, b| a >= b) && s.iter().all(|&s| s > 0.0), "{s:?}");
            }
        }
    }

    /// diag(3, 2) turned: singular values are known, and signs are fixed.
    #[test]
    fn a_known_matrix_has_the_known_factors() {
        let a = Tensor::new(&[0.0, -2.0, 3.0, 0.0, 0.0, 0.0], [3, 2], &Device::cpu());
        let Svd { u, s, v } = svd(&a).unwrap();
        let near = |x: &Tensor, want: &[f64]| apart(x, &Tensor::new(want, *x.shape(), &Device::cpu())) < 1e-14;
        assert!(near(&s, &[3.0, 2.0]));
        assert!(near(&u, &[0.0, 1.0, 1.0, 0.0, 0.0, 0.0]) && near(&v, &[1.0, 0.0, 0.0, -1.0]), "{u:?} {v:?}");
    }

    /// Eckart & Young: what is left out is the tail of the spectrum.
    #[test]
    fn the_error_of_truncation_is_the_tail_of_the_spectrum() {
        let a = random([30, 20], 3);
        let found = svd(&a).unwrap();
        let s = found.s.to_vec::<f64>().unwrap();
        for rank in [0, 1, 7, 20] {
            let rest = &a - &found.truncated(rank).product();
            let error = (&rest * &rest).sum_all().item().unwrap();
            let tail: f64 = s[rank..].iter().map(|s| s * s).sum();
            assert!((error - tail).abs() < 1e-11, "rank {rank}: {error} of {tail}");
        }
    }

    /// A spectrum that decays: within a hair of the best with power iterations, and worse without.
    #[test]
    fn sketches_come_close_to_the_best() {
        let (u, v) = (orthonormal(&random([90, 60], 1)).unwrap(), orthonormal(&random([60, 60], 2)).unwrap());
        let s: Vec<f64> = (0..60).map(|i| 0.9_f64.powi(i)).collect();
        let a = (&u * &Tensor::new(&s, [60], &Device::cpu())).matmul(&v.t());
        let error = |found: &Svd| {
            let rest = &a - &found.product();
            (&rest * &rest).sum_all().item().unwrap().sqrt()
        };
        let best = error(&svd(&a).unwrap().truncated(8));
        let sketched = |iterations| randomized(&a, 8, 8, iterations, Seed(5)).unwrap();
        let [none, two] = [0, 2].map(|iterations| error(&sketched(iterations)) / best);
        assert!((1.0..1.001).contains(&two) && two < none && none < 1.5, "{two} {none}");
        let found = sketched(2);
        assert!(skew(&found.u) < 1e-12 && skew(&found.v) < 1e-12);
        assert_eq!(found.s.shape()[..], [8]);
        // As many columns as the smaller side: nothing is left to chance.
        let all = randomized(&a, 60, 5, 0, Seed(6)).unwrap();
        assert!(apart(&all.product(), &a) < 1e-12);
    }

    #[test]
    fn bases_are_orthonormal_whatever_the_columns() {
        let a = random([50, 6], 4);
        let q = orthonormal(&a).unwrap();
        let r = q.t().matmul(&a).to_vec::<f64>().unwrap();
        assert!(skew(&q) < 1e-13 && apart(&q.matmul(&q.t().matmul(&a)), &a) < 1e-12);
        assert!((0..36).all(|i| if i / 6 > i % 6 { r[i].abs() < 1e-12 } else { i / 6 != i % 6 || r[i] > 0.0 }));
        let twice = Tensor::concat(&[&a, &a], 1);
        assert!(skew(&orthonormal(&twice).unwrap()) < 1e-13);
        assert!(skew(&orthonormal(&(&a * 0.0)).unwrap()) < 1e-13);
    }

    /// Views, and nothing at all.
    #[test]
    fn any_strides_and_sizes_will_do() {
        let a = random([8, 12], 5);
        let view = a.t().slice(0, 2, 5);
        assert!(apart(&svd(&view).unwrap().product(), &view) < 1e-12);
        for sizes in [[0, 3], [3, 0]] {
            let found = svd(&Tensor::zeros(sizes, DType::F64, &Device::cpu())).unwrap();
            assert_eq!((found.u.count(), found.s.count(), found.v.count()), (0, 0, 0));
        }
        let zero = svd(&Tensor::zeros([3, 4], DType::F64, &Device::cpu())).unwrap();
        assert_eq!(zero.s.to_vec::<f64>().unwrap(), [0.0; 3]);
        assert!(skew(&zero.u).max(skew(&zero.v)) < 1e-14);
    }

    #[test]
    fn what_is_not_finite_is_an_error_that_names_the_place() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0_f32; 12];
            values[7] = bad;
            let a = Tensor::new(&values, [3, 4], &Device::cpu());
            let error = svd(&a).unwrap_err().to_string();
            assert!(error.contains("element (1, 3) of a matrix [3, 4]"), "{error}");
            assert!(matches!(orthonormal(&a.t()), Err(Error::NotFinite(_))));
            assert!(matches!(randomized(&a, 1, 1, 1, Seed(0)), Err(Error::NotFinite(_))));
        }
    }

    /// Very large and very small numbers, which squares would lose.
    #[test]
    fn numbers_of_any_size_keep_their_precision() {
        for scale in [1e-30, 1e30] {
            let a = random([20, 10], 6).cast(DType::F32) * scale;
            let found = svd(&a).unwrap();
            assert!(apart(&found.product(), &a) < 1e-5 * scale && skew(&found.u) < 1e-5);
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let a = normal(&[300, 200], 1.0, Seed(7), &Device::cpu());
        let bits = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let found = randomized(&a, 10, 5, 2, Seed(8)).unwrap();
                [found.u, found.s, found.v].map(|x| x.to_vec::<f32>().unwrap())
            })
        };
        assert_eq!(bits(1), bits(3));
    }

    /// A plan counts what a run asks for.
    #[test]
    fn the_null_device_counts_like_the_host() {
        let peak = |device: &Device| {
            let a = Tensor::zeros([40, 30], DType::F32, device).contiguous();
            let found = randomized(&a, 4, 2, 1, Seed(0)).unwrap();
            assert_eq!(found.u.shape()[..], [40, 4]);
            device.ledger().peak()
        };
        assert_eq!(peak(&Device::cpu()), peak(&Device::null()));
    }

    #[test]
    fn symmetric_matrices_are_made_up_by_their_eigenvectors() {
        let n = 9;
        let a = random([n, n], 8);
        let a = (&a + a.t()).to_vec::<f64>().unwrap();
        let (values, vectors) = symmetric(n, &a).unwrap();
        assert!(values.is_sorted());
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let sum: f64 = (0..n).map(|k| vectors[i * n + k] * values[k] * vectors[j * n + k]).sum();
            assert!((sum - a[i * n + j]).abs() < 1e-12);
        }
        assert!(symmetric(1, &[f64::NAN]).is_err());
    }

    #[test]
    #[should_panic(expected = "rank 4 of a matrix of shape [3, 9]")]
    fn ranks_above_the_smaller_side_are_refused() {
        let _ = randomized(&random([3, 9], 0), 4, 0, 0, Seed(0));
    }
}
