//! Random projections: what their entries are, what they do on average, and that they are never stored.

use eckart::autograd::{Factors, Gradient, backward};
use eckart::ops::Input;
use eckart::ops::project::{Entries, Random};
use eckart::{DType, Device, LinearMap, Seed, Shape, Tag, Tensor};

pub const ALL: [Entries; 3] = [Entries::Rademacher, Entries::Walsh, Entries::Gaussian];

pub fn random(entries: Entries, rank: usize, seed: u64) -> Random {
    Random { entries, rank, seed: Seed(seed) }
}

fn normal(shape: impl Into<Shape>, seed: u64) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, &Device::cpu())
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_vec().unwrap()
}

/// P in double precision on the host.
fn matrix(p: Random, size: usize) -> Tensor {
    p.matrix(size, DType::F64, &Device::cpu())
}

fn assert_near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let scale = numbers(expected).iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    for (a, b) in numbers(found).iter().zip(numbers(expected)) {
        assert!((a - b).abs() <= 1e-12 * scale, "{what}: {a}, not {b}");
    }
}

/// Bit `j % 32` of word `i * ceil(size / 32) + j / 32` is the sign.
#[test]
fn signs_are_the_bits_of_the_seed() {
    for (rank, size) in [(1, 1_usize), (3, 37), (4, 128), (7, 300), (70, 2500)] {
        let p = random(Entries::Rademacher, rank, 3);
        let word = |at: usize| p.seed.block(at as u64 / 4)[at % 4];
        let set = |i: usize, j: usize| word(i * size.div_ceil(32) + j / 32) >> (j % 32) & 1 == 1;
        let scale = (1.0 / (rank as f64).sqrt()) as f32;
        let expected: Vec<f32> =
            (0..rank * size).map(|at| if set(at / size, at % size) { -scale } else { scale }).collect();
        let found = p.matrix(size, DType::F32, &Device::cpu());
        assert_eq!(found.to_vec::<f32>().unwrap(), expected, "{rank} by {size}");
    }
}

/// erf of √rank/√2 times an entry is what the word's upper 24 bits say.
#[test]
fn normal_numbers_are_the_quantiles_of_the_words() {
    for (rank, size) in [(1, 1), (3, 37), (5, 300), (70, 1030)] {
        let p = random(Entries::Gaussian, rank, 3);
        let word = |at: usize| p.seed.block(at as u64 / 4)[at % 4] >> 8;
        for (at, x) in numbers(&matrix(p, size)).into_iter().enumerate() {
            let u = (2.0 * f64::from(word(at)) + 1.0) / 2_f64.powi(24) - 1.0;
            assert!((libm::erf(x * (rank as f64 / 2.0).sqrt()) - u).abs() < 4e-7, "{rank} by {size}, entry {at}");
        }
    }
}

/// The same numbers in both types.
#[test]
fn entries_do_not_depend_on_the_type() {
    for entries in ALL {
        let p = random(entries, 6, 1);
        let single = p.matrix(100, DType::F32, &Device::cpu()).to_vec::<f32>().unwrap();
        assert_eq!(single.into_iter().map(f64::from).collect::<Vec<_>>(), numbers(&matrix(p, 100)));
    }
}

#[test]
fn products_are_those_with_the_matrix() {
    let sizes = [(3, 37, 5), (1, 1, 1), (8, 1500, 70), (130, 700, 9), (64, 2500, 33), (600, 300, 2)];
    for ((rank, size, n), entries) in sizes.into_iter().flat_map(|sizes| ALL.map(|entries| (sizes, entries))) {
        let (p, what) = (random(entries, rank, 9), format!("{entries:?} {rank} by {size}, {n} columns"));
        let matrix = matrix(p, size);
        let (x, c) = (normal([size, n], 1), normal([rank, n], 2));
        assert_near(&x.project(p), &matrix.matmul(&x), &what);
        assert_near(&x.t().contiguous().t().project(p), &matrix.matmul(&x), &what);
        assert_near(&c.project_back(p, size), &matrix.t().matmul(&c), &what);
        assert_near(&c.t().contiguous().t().project_back(p, size), &matrix.t().matmul(&c), &what);
        for (x, c) in [(x.t(), c.t()), (x.t().contiguous(), c.t().contiguous())] {
            assert_near(&x.project_rows(p), &x.matmul(&matrix.t()), &what);
            assert_near(&c.project_rows_back(p, size), &c.matmul(&matrix), &what);
        }
    }
}

/// Those of `Rademacher`, not divided by anything.
#[test]
fn signs_are_ones() {
    let [scaled, ones] =
        [Entries::Rademacher, Entries::Signs].map(|entries| numbers(&matrix(random(entries, 70, 4), 300)));
    assert_eq!(ones, scaled.into_iter().map(f64::signum).collect::<Vec<_>>());
}

#[test]
fn nothing_projected_is_nothing() {
    let p = random(Entries::Rademacher, 3, 1);
    assert_eq!(numbers(&normal([0, 2], 1).project(p)), [0.0; 6]);
    assert_eq!(normal([5, 0], 1).project(p).shape()[..], [3, 0]);
    assert_eq!(normal([3, 2], 1).project_back(p, 0).shape()[..], [0, 2]);
    assert_eq!(numbers(&normal([2, 0], 1).project_rows(p)), [0.0; 6]);
    assert_eq!(normal([0, 5], 1).project_rows(p).shape()[..], [0, 3]);
    assert_eq!(normal([2, 3], 1).project_rows_back(p, 0).shape()[..], [2, 0]);
    assert_eq!(normal([0, 3], 1).project_rows_back(p, 5).shape()[..], [0, 5]);
    assert_eq!(numbers(&p.overlap(p, 0, DType::F64, &Device::cpu())), [0.0; 9]);
}

#[test]
#[should_panic(expected = "a projection of rank 0")]
fn rank_0_is_refused() {
    normal([5, 2], 1).project(random(Entries::Gaussian, 0, 1));
}

#[test]
fn overlaps_are_products_of_two_projections() {
    for (size, entries) in [5, 900, 2500].into_iter().flat_map(|size| ALL.map(|entries| (size, entries))) {
        let (new, old) = (random(entries, 7, 1), random(Entries::Rademacher, 4, 2));
        let expected = matrix(new, size).matmul(&matrix(old, size).t());
        assert_near(&new.overlap(old, size, DType::F64, &Device::cpu()), &expected, &format!("{entries:?} {size}"));
    }
}

/// Mean and standard error.
fn statistics(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (x.len() - 1) as f64;
    (mean, (variance / x.len() as f64).sqrt())
}

#[test]
fn projecting_and_back_is_the_identity_on_average() {
    let (size, rank) = (12, 8);
    for entries in ALL {
        let squares: Vec<Vec<f64>> = (0..200)
            .map(|seed| {
                let p = matrix(random(entries, rank, seed), size);
                numbers(&p.t().matmul(&p))
            })
            .collect();
        for at in 0..size * size {
            let (mean, error) = statistics(&squares.iter().map(|square| square[at]).collect::<Vec<_>>());
            let expected = if at % (size + 1) == 0 { 1.0 } else { 0.0 };
            // Squares of signs do not vary, but scales are rounded.
            assert!((mean - expected).abs() < (4.0 * error).max(1e-7), "{entries:?}, entry {at}: {mean} ± {error}");
        }
    }
}

/// E‖PᵀPx − x‖²/‖x‖² is (d − 1)/r for signs, (d + 1)/r for normal numbers; few dimensions tell the two apart.
#[test]
fn one_reconstruction_is_as_far_off_as_it_should_be() {
    let (size, rank) = (6, 3);
    let x = normal([size, 1], 7);
    let norm = (&x * &x).sum_all().item().unwrap();
    for (entries, expected, other) in
        [(Entries::Rademacher, 5.0 / 3.0, 7.0 / 3.0), (Entries::Gaussian, 7.0 / 3.0, 5.0 / 3.0)]
    {
        let error = |seed| {
            let p = random(entries, rank, seed);
            let difference = x.project(p).project_back(p, size) - &x;
            (&difference * &difference).sum_all().item().unwrap() / norm
        };
        let (mean, error) = statistics(&(0..2000).map(error).collect::<Vec<_>>());
        assert!((mean - expected).abs() < 4.0 * error, "{entries:?}: {mean} ± {error}, not {expected}");
        assert!((mean - other).abs() > 4.0 * error, "{entries:?}: {mean} ± {error} tells nothing");
    }
}

/// Within a group, P Pᵀ is size/rank times the identity, so that E‖PᵀPx − x‖²/‖x‖² is (d − r)/r; groups are independent.
#[test]
fn rows_of_walsh_functions_are_orthogonal() {
    for (size, rank, group) in [(24, 7, 8), (96, 32, 32), (40, 20, 8), (128, 5, 128), (3072, 9, 1024)] {
        let p = random(Entries::Walsh, rank, 3);
        let products = numbers(&p.overlap(p, size, DType::F64, &Device::cpu()));
        let mut across = 0;
        for (at, found) in products.iter().enumerate() {
            let (i, j) = (at / rank, at % rank);
            let expected = if i == j { size as f64 / rank as f64 } else { 0.0 };
            match i / group == j / group {
                // Scales are rounded to single precision.
                true => assert!((found - expected).abs() < 1e-6 * size as f64, "{size}, {rank}: {i} by {j} is {found}"),
                false => across += usize::from(found.abs() > 1e-5),
            }
        }
        assert_eq!(across > 0, rank > group, "{size}, {rank}: groups are independent");
    }
    let (size, rank, x) = (8, 3, normal([8, 1], 7));
    let norm = (&x * &x).sum_all().item().unwrap();
    let error = |seed| {
        let p = random(Entries::Walsh, rank, seed);
        let difference = x.project(p).project_back(p, size) - &x;
        (&difference * &difference).sum_all().item().unwrap() / norm
    };
    let (mean, error) = statistics(&(0..2000).map(error).collect::<Vec<_>>());
    assert!((mean - 5.0 / 3.0).abs() < 4.0 * error, "{mean} ± {error}");
    assert!((mean - 7.0 / 3.0).abs() > 4.0 * error, "{mean} ± {error} tells nothing");
}

/// Scratch is a panel, whatever the size: P would be 25.6 MB.
#[test]
fn projections_are_never_stored() {
    let (rank, size) = (64, 100_000);
    let panel = 64 * 1024 * 4;
    for device in [Device::cpu(), Device::null()] {
        let peak = |before: u64, f: &dyn Fn() -> Tensor| {
            device.ledger().reset_peak();
            let y = f();
            assert_eq!(device.ledger().live().total() - before, 4 * y.count() as u64);
            (device.ledger().peak()[Tag::Workspace], device.ledger().peak().total() - before - 4 * y.count() as u64)
        };
        let p = random(Entries::Rademacher, rank, 1);
        let (x, c) = (Tensor::zeros([size, 2], DType::F32, &device), Tensor::zeros([rank, 2], DType::F32, &device));
        let before = device.ledger().live().total();
        assert_eq!(peak(before, &|| x.project(p)), (panel, panel));
        assert_eq!(peak(before, &|| c.project_back(p, size)), (panel, panel));
        // Identity, a part of the old projection for 1024 columns, and the result twice over.
        let part = 4 * (8 * 8 + 1024 * 8);
        let (_, most) = peak(before, &|| {
            random(Entries::Gaussian, 8, 2).overlap(random(Entries::Gaussian, 8, 3), size, DType::F32, &device)
        });
        assert!(most <= part + 8 * 1024 * 4, "{most} bytes");
    }
    let device = Device::null_gpu();
    let x = Tensor::zeros([size, 2], DType::F32, &device);
    x.project(random(Entries::Gaussian, rank, 1));
    assert!(device.ledger().peak().total() < 64 * 1024, "{:?}", device.ledger().peak());
}

/// Parts of one gradient, and what they add up to.
fn parts(shape: [usize; 2], dense: bool) -> Gradient {
    let [m, n] = shape;
    let ids: Vec<u32> = (0..11).map(|i| i * i % m as u32).collect();
    let product = Factors::Product { x: normal([9, m], 1), dy: normal([9, n], 2) };
    let rows = Factors::Rows { ids: Tensor::new(&ids, [11], &Device::cpu()), dy: normal([11, n], 3) };
    Gradient { shape: shape.into(), dense: dense.then(|| normal(shape, 4)), factors: vec![product, rows] }
}

/// Either side is the smaller, or neither.
const SHAPES: [[usize; 2]; 3] = [[6, 20], [30, 7], [8, 8]];

/// Rows are compressed where there are no more of them than columns.
#[test]
fn sketches_of_factors_are_those_of_the_gradient() {
    for (shape, entries) in SHAPES.into_iter().flat_map(|shape| ALL.map(|entries| (shape, entries))) {
        let (p, [m, n], what) = (random(entries, 5, 8), shape, format!("{entries:?} {shape:?}"));
        for dense in [false, true] {
            let gradient = parts(shape, dense).densify().unwrap();
            let expected = if m <= n { matrix(p, m).matmul(&gradient) } else { matrix(p, n).matmul(&gradient.t()) };
            assert_eq!(*expected.shape(), p.sketch_shape(&shape.into()));
            assert_near(&p.sketch(&gradient), &expected, &what);
            assert_near(&parts(shape, dense).sketch(p).unwrap(), &expected, &what);
            for factors in parts(shape, dense).factors {
                assert_near(&factors.sketch(p, &shape.into()), &p.sketch(&factors.dense(&shape.into())), &what);
            }
            let before = normal([5, m.max(n)], 6);
            let sum = parts(shape, dense).sketch_onto(p, before.clone());
            assert_near(&sum, &(before + expected), &what);
        }
    }
    let nothing = Gradient { shape: [3, 4].into(), dense: None, factors: Vec::new() };
    assert!(nothing.sketch(random(Entries::Rademacher, 2, 1)).is_none());
}

#[test]
fn lifting_is_the_transpose_of_sketching() {
    for shape in SHAPES {
        let (p, [m, n], g) = (random(Entries::Gaussian, 5, 8), shape, normal(shape, 4));
        let square = |size: usize| matrix(p, size).t().matmul(&matrix(p, size));
        let expected = if m <= n { square(m).matmul(&g) } else { g.matmul(&square(n)) };
        assert_near(&p.lift(&p.sketch(&g), &shape.into()), &expected, &format!("{shape:?}"));
    }
}

/// What is owned is added to where it is.
#[test]
fn sketches_are_added_in_place() {
    for shape in SHAPES {
        let sum = normal([5, shape[0].max(shape[1])], 6);
        let place = sum.array().raw::<f64>().as_ptr();
        let sum = parts(shape, true).sketch_onto(random(Entries::Rademacher, 5, 8), sum);
        assert_eq!(sum.array().raw::<f64>().as_ptr(), place, "{shape:?}");
    }
}

#[test]
#[should_panic(expected = "a sketch added to one of another shape")]
fn sums_of_another_shape_are_refused() {
    parts([6, 20], false).sketch_onto(random(Entries::Rademacher, 5, 8), normal([5, 6], 1));
}

/// An embedding that is the output head as well, as models have it.
#[test]
fn a_tied_weight_has_one_sketch() {
    for shape in SHAPES {
        let map = LinearMap::dense(normal(shape, 5));
        let ids = Tensor::new(&[1_u32, 5, 2, 2, 0], [5], &Device::cpu());
        let loss = || map.apply_transposed(&map.rows(&ids).tanh()).tanh().sum_all();
        let p = random(Entries::Gaussian, 3, 4);
        let (mut sketch, mut dense) = (None, None);
        backward(loss(), &mut |_, gradient| {
            assert_eq!(gradient.factors.len(), 2);
            sketch = gradient.sketch(p);
        });
        backward(loss(), &mut |_, gradient| dense = gradient.densify());
        assert_near(&sketch.unwrap(), &p.sketch(&dense.unwrap()), &format!("{shape:?}"));
    }
}

/// No gradient of the weight's size appears on the way: 64 MB here, and 1 MB for the largest sketch.
#[test]
fn sketches_need_no_dense_gradient() {
    let device = Device::null();
    let zeros = |shape: [usize; 2]| Tensor::zeros(shape, DType::F32, &device);
    let product = Factors::Product { x: zeros([16, 4096]), dy: zeros([16, 4096]) };
    let ids = Tensor::zeros([16], DType::U32, &device);
    for (shape, factors) in [
        ([4096, 4096], vec![product]),
        ([8192, 2048], vec![Factors::Rows { ids: ids.clone(), dy: zeros([16, 2048]) }]),
        ([2048, 8192], vec![Factors::Rows { ids, dy: zeros([16, 8192]) }]),
    ] {
        device.ledger().reset_peak();
        let gradient = Gradient { shape: shape.into(), dense: None, factors };
        gradient.sketch(random(Entries::Rademacher, 32, 1));
        assert!(device.ledger().peak().total() < 4 << 20, "{shape:?}: {:?}", device.ledger().peak());
    }
}
