//! Kernels over rows and columns on a GPU, at sizes around those at which they change how threads share the work,
//! against double precision on the host.

use super::gpu;
use eckart::autograd::{jvp, vjp};
use eckart::ops::cross_entropy::IGNORED;
use eckart::{DType, Device, Seed, Tensor, ops::Input};

type Function = fn(&[Tensor]) -> Tensor;

/// A function of x [rows, columns] and of more operands.
struct Case {
    name: &'static str,
    f: Function,
    /// Further operands [columns] that move.
    rows: usize,
    /// Whether targets [rows] follow.
    targets: bool,
}

const fn case(name: &'static str, f: Function) -> Case {
    Case { name, f, rows: 0, targets: false }
}

const CASES: &[Case] = &[
    case("sum of rows", |x| x[0].sum(&[1])),
    case("sum of columns", |x| x[0].sum(&[0])),
    case("sum of all", |x| x[0].sum_all()),
    case("sum of the transposed", |x| x[0].t().sum(&[1])),
    case("sum of a part", |x| x[0].slice(0, 1, x[0].shape()[0] - 1).sum(&[1])),
    case("max of rows", |x| x[0].max(&[1])),
    case("min of columns", |x| x[0].min(&[0])),
    case("logsumexp", |x| x[0].logsumexp(&[1])),
    case("softmax", |x| x[0].softmax(1)),
    case("log_softmax", |x| x[0].log_softmax(1)),
];

/// Row counts and widths around those where lanes, fours and parts change.
const SIZES: &[[usize; 2]] = &[
    [1, 1],
    [300, 1],
    [3, 2],
    [70_000, 2],
    [300, 255],
    [3, 256],
    [1, 257],
    [300, 257],
    [3, 1000],
    [300, 1000],
    [1, 5000],
    [3, 5000],
    [300, 5000],
];

/// What a case gives: the value, its cotangents, its tangent.
fn outcomes(case: &Case, x: &[Tensor], random: &[Tensor], device: &Device, dtype: DType) -> Vec<Vec<f64>> {
    let carry = |t: &Tensor| match t.dtype() {
        DType::U32 => Tensor::new(&t.to_vec::<u32>().unwrap(), *t.shape(), device),
        _ if dtype == DType::F64 => t.cast(DType::F64),
        _ => Tensor::new(&t.to_vec::<f32>().unwrap(), *t.shape(), device),
    };
    let (x, random): (Vec<_>, Vec<_>) = (x.iter().map(carry).collect(), random.iter().map(carry).collect());
    let moving = 1 + case.rows;
    let with = |moved: &[Tensor]| (case.f)(&[moved, &x[moving..]].concat());
    let leaves: Vec<Tensor> = x[..moving].iter().map(Tensor::leaf).collect();
    let y = with(&leaves);
    // As many random numbers as there are results, from the operands' tangents.
    let c = random[0].reshape([random[0].count()]).slice(0, 0, y.count()).reshape(*y.shape());
    let pulled = vjp(&y, &c, &leaves.iter().collect::<Vec<_>>(), false);
    let along = random.iter().cloned().map(Some).collect();
    let pushed = jvp(with, &x[..moving], &[along]).1.remove(0);
    let numbers = |t: &Tensor| -> Vec<f64> {
        match t.dtype() {
            DType::F64 => t.to_vec::<f64>().unwrap(),
            _ => t.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
        }
    };
    [&y.detach()].into_iter().chain(&pulled).chain([&pushed]).map(numbers).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

fn compare(case: &Case, [rows, columns]: [usize; 2], device: &Device) {
    let host = Device::cpu();
    let draw = |seed: u64, shape: &[usize]| Input::normal(shape).tensor(Seed(seed), DType::F32, &host);
    let draw_all = |seed: u64| -> Vec<Tensor> {
        (0..=case.rows as u64)
            .map(|i| if i == 0 { draw(seed, &[rows, columns]) } else { draw(seed + i, &[columns]) })
            .collect()
    };
    let (mut x, random) = (draw_all(1), draw_all(11));
    if case.targets {
        let target = |i: usize| if i % 5 == 1 { IGNORED } else { (i * 7919 % columns) as u32 };
        x.push(Tensor::new(&Vec::from_iter((0..rows).map(target)), [rows], &host));
    }
    let found = outcomes(case, &x, &random, device, DType::F32);
    let expected = outcomes(case, &x, &random, &host, DType::F64);
    for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = norm(found.iter().zip(expected).map(|(a, b)| a - b));
        let bound = 1e-5 * norm(expected.iter().copied()).max(1.0);
        assert!(error <= bound, "{} of {rows} x {columns}, outcome {k}: {error:e} > {bound:e}", case.name);
    }
}

#[test]
fn rows_of_any_size_are_as_on_the_host() {
    let Some(device) = gpu::device() else { return };
    for case in CASES {
        for &size in SIZES {
            compare(case, size, &device);
        }
    }
    device.gpu().unwrap().check().unwrap();
    assert_eq!(device.gpu().unwrap().counters().host_ops, 0, "an op without a kernel");
}
