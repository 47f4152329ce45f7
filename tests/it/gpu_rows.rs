//! Kernels over rows and columns on a GPU, at sizes around those at which they change how threads share the work,
//! against double precision on the host.

use super::gpu;
use eckart::autograd::{hvp, jvp, vjp};
use eckart::ops::cross_entropy::IGNORED;
use eckart::{DType, Device, Seed, Tensor, ops::Input};

type Function = fn(&[Tensor]) -> Tensor;

/// A function of x [rows, columns] and of more operands.
struct Case {
    name: &'static str,
    f: Function,
    /// How many operands [columns] follow.
    more: usize,
    /// Whether targets [rows] follow.
    targets: bool,
}

const fn case(name: &'static str, f: Function) -> Case {
    Case { name, f, more: 0, targets: false }
}

/// All but the first.
fn below(x: &Tensor) -> Tensor {
    x.slice(0, 1, x.shape()[0] - 1)
}

const CASES: &[Case] = &[
    case("sum of rows", |x| x[0].sum(&[1])),
    case("sum of columns", |x| x[0].sum(&[0])),
    case("sum of all", |x| x[0].sum_all()),
    case("sum of the transposed", |x| x[0].t().sum(&[1])),
    case("sum of a part", |x| below(&x[0]).sum(&[1])),
    case("max of rows", |x| x[0].max(&[1])),
    case("min of columns", |x| x[0].min(&[0])),
    case("logsumexp", |x| x[0].logsumexp(&[1])),
    case("softmax", |x| x[0].softmax(1)),
    case("log_softmax", |x| x[0].log_softmax(1)),
    case("softmax of a part", |x| below(&x[0]).softmax(1)),
    Case { more: 1, ..case("rms_norm of a part", |x| below(&x[0]).rms_norm(&x[1], 1e-2)) },
    Case { targets: true, ..case("cross_entropy of a part", |x| below(&x[0]).cross_entropy(&below(&x[1]))) },
    Case { more: 2, ..case("layer_norm", |x| x[0].layer_norm(&x[1], &x[2], 1e-2)) },
    Case { more: 1, ..case("rms_norm", |x| x[0].rms_norm(&x[1], 1e-2)) },
    Case { targets: true, ..case("cross_entropy", |x| x[0].cross_entropy(&x[1])) },
    Case { targets: true, ..case("cross_entropy_sum", |x| x[0].cross_entropy_sum(&x[1])) },
];

/// Row counts and widths around those where lanes, fours and parts change.
#[rustfmt::skip]
const SIZES: &[[usize; 2]] = &[
    [1, 1], [300, 1], [3, 2], [70_000, 2], [300, 255], [3, 256], [1, 257], [30, 257], [3, 1000], [20, 1000],
    [1, 5000], [3, 5000],
];

/// What a case gives: the value, its tangent, its cotangents and, unless it is large, tangents of the cotangents.
fn outcomes(case: &Case, x: &[Tensor], random: &[Tensor], device: &Device, dtype: DType) -> Vec<Vec<f64>> {
    let carry = |t: &Tensor| match t.dtype() {
        DType::U32 => Tensor::new(&t.to_vec::<u32>().unwrap(), *t.shape(), device),
        _ if dtype == DType::F64 => t.cast(DType::F64),
        _ => Tensor::new(&t.to_vec::<f32>().unwrap(), *t.shape(), device),
    };
    let (x, random): (Vec<_>, Vec<_>) = (x.iter().map(carry).collect(), random.iter().map(carry).collect());
    let moving = 1 + case.more;
    let with = |moved: &[Tensor]| (case.f)(&[&moved[..moving], &x[moving..]].concat());
    let leaves: Vec<Tensor> = x[..moving].iter().map(Tensor::leaf).collect();
    let y = with(&leaves);
    // As many random numbers as there are results, from the operands' tangents.
    let c = random[0].reshape([random[0].count()]).slice(0, 0, y.count()).reshape(*y.shape());
    let pulled = vjp(&y, &c, &leaves.iter().collect::<Vec<_>>(), false);
    let along: Vec<Option<Tensor>> = random.iter().cloned().map(Some).collect();
    let pushed = jvp(with, &x[..moving], std::slice::from_ref(&along)).1.remove(0);
    let value = y.detach();
    let first = [&value, &pushed].into_iter().chain(&pulled).map(numbers);
    if x[0].count() > 100_000 {
        return first.collect();
    }
    let variables = [&x[..moving], std::slice::from_ref(&c)].concat();
    let all = [along, vec![Some(&c * 0.5)]].concat();
    // Everything moves, x alone, the others.
    let some = |moves: fn(usize) -> bool| (0..).zip(&all).map(|(i, t)| t.clone().filter(|_| moves(i))).collect();
    let directions = [some(|_| true), some(|i| i == 0), some(|i| i != 0)];
    let bent = hvp(|x| (with(x) * x.last().unwrap()).sum_all(), &variables, &directions).products.concat();
    first.chain(bent.iter().map(numbers)).collect()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    match t.dtype() {
        DType::F64 => t.to_vec::<f64>().unwrap(),
        _ => t.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
    }
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

fn compare(case: &Case, [rows, columns]: [usize; 2], device: &Device) {
    let host = Device::cpu();
    let draw = |seed: u64, shape: &[usize]| Input::normal(shape).tensor(Seed(seed), DType::F32, &host);
    let draw_all = |seed: u64| -> Vec<Tensor> {
        (0..=case.more as u64)
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

#[test]
fn the_largest_is_found_in_rows_of_any_size() {
    let Some(device) = gpu::device() else { return };
    for &[rows, columns] in SIZES {
        let x = Input::normal([rows, columns]).tensor(Seed(3), DType::F32, &Device::cpu()) * 3.0;
        // Few different numbers, so that the first of many equals is asked for.
        let x: Vec<f32> = x.to_vec::<f32>().unwrap().into_iter().map(f32::round).collect();
        let found = |device| Tensor::new(&x, [rows, columns], device).argmax(1).to_vec::<u32>().unwrap();
        assert!(found(&device) == found(&Device::cpu()), "{rows} x {columns}");
    }
}

/// A class beyond the last is a bug of the caller, which a GPU cannot refuse.
#[test]
fn unknown_classes_make_the_loss_no_number() {
    let Some(device) = gpu::device() else { return };
    let x = Tensor::new(&[0.0_f32; 8], [2, 4], &device);
    for class in [4_u32, 1 << 30, u32::MAX - 1] {
        let loss = x.cross_entropy(&Tensor::new(&[1, class], [2], &device));
        assert!(loss.item().unwrap().is_nan());
    }
    assert_eq!(x.cross_entropy(&Tensor::new(&[IGNORED, IGNORED], [2], &device)).item().unwrap(), 0.0);
}

/// Masked logits, and logits far from 0.
#[test]
fn extreme_logits_give_numbers() {
    let Some(device) = gpu::device() else { return };
    let x = Tensor::new(&[-3.4e38_f32, 1e4, 1e4, -3.4e38, -3.4e38, -3.4e38], [2, 3], &device);
    let near = |found: Vec<f32>, expected: [f32; 6]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6), "{found:?}");
    };
    let third = 1.0 / 3.0;
    near(x.softmax(1).to_vec().unwrap(), [0.0, 0.5, 0.5, third, third, third]);
    assert!(x.log_softmax(1).to_vec::<f32>().unwrap().iter().all(|y| y.is_finite()));
    let losses = x.cross_entropy(&Tensor::new(&[1, 0], [2], &device)).item().unwrap();
    assert!((losses - (2_f64.ln() + 3_f64.ln()) / 2.0).abs() < 1e-6, "{losses}");
}

/// Each row gives what it gives alone.
#[test]
fn there_may_be_more_rows_than_a_grid_is_wide() {
    let Some(device) = gpu::device() else { return };
    let random = |seed: u64| Input::normal([257]).tensor(Seed(seed), DType::F32, &Device::cpu()).to_vec::<f32>();
    let row = |seed: u64| Tensor::new(&random(seed).unwrap(), [257], &device);
    let (x, w, b) = (row(1).broadcast_to([70_000, 257]), row(2), row(3));
    let functions: [&dyn Fn(&Tensor) -> Tensor; 5] = [
        &|x| x.sum_keep(&[1]),
        &|x| x.max_keep(&[1]),
        &|x| x.argmax(1).cast(DType::F32).unsqueeze(1),
        &|x| x.softmax(1),
        &|x| x.layer_norm(&w, &b, 1e-5),
    ];
    for (k, f) in functions.into_iter().enumerate() {
        let apart = (f(&x) - f(&x.slice(0, 0, 1).contiguous())).abs().sum_all();
        assert_eq!(apart.item().unwrap(), 0.0, "function {k}");
    }
    let targets = Tensor::new(&[200_u32], [1], &device);
    let alone = x.slice(0, 0, 1).cross_entropy(&targets).item().unwrap();
    let all = x.cross_entropy(&targets.broadcast_to([70_000])).item().unwrap();
    assert!((all - alone).abs() < 1e-5 * alone, "{all}, not {alone}");
}

/// All orders of the numbers below `n`.
fn orders(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else { return vec![vec![]] };
    let put = |order: Vec<usize>| (0..n).map(move |at| [&order[..at], &[last], &order[at..]].concat());
    orders(last).into_iter().flat_map(put).collect()
}

/// Sums over every set of dimensions of every order of them, for a whole tensor and for a part of one.
#[test]
fn sums_over_any_dimensions_of_any_view() {
    let Some(device) = gpu::device() else { return };
    for (shape, skip) in [([6, 5, 8, 12], 0), ([3, 4, 5, 7], 1), ([4, 3, 2100, 8], 0), ([2, 1100, 3, 5], 1)] {
        let values = Input::normal(shape).tensor(Seed(4), DType::F32, &Device::cpu()).to_vec::<f32>().unwrap();
        let doubles: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        let (x, host) = (Tensor::new(&values, shape, &device), Tensor::new(&doubles, shape, &Device::cpu()));
        let large = x.count() > 10_000;
        for order in orders(4).into_iter().step_by(if large { 5 } else { 1 }) {
            for set in (1..16).step_by(if large { 2 } else { 1 }) {
                let axes: Vec<isize> = (0..4).filter(|axis| set >> axis & 1 == 1).collect();
                let view = |x: &Tensor| x.slice(1, skip, x.shape()[1] - skip).permute(&order);
                let sum = |x: &Tensor| numbers(&view(x).sum(&axes));
                let largest = |x: &Tensor| numbers(&view(x).max(&axes));
                let (found, expected) = (sum(&x), sum(&host));
                let error = norm(found.iter().zip(&expected).map(|(a, b)| a - b));
                let bound = 1e-6 * norm(doubles.iter().copied());
                assert!(error <= bound, "{shape:?} in order {order:?} over {axes:?}: {error:e}");
                assert!(largest(&x) == largest(&host), "{shape:?} in order {order:?} over {axes:?}");
            }
        }
    }
}

/// Rounding errors that all have one sign stay small.
#[test]
fn long_sums_of_one_number_are_precise() {
    let Some(device) = gpu::device() else { return };
    let x = Tensor::full(0.1, eckart::Spec::new(DType::F32, [3_000_000]), &device).contiguous();
    let near = |sum: Tensor, count: f64| {
        let expected = count * f64::from(0.1_f32);
        for sum in sum.to_vec::<f32>().unwrap() {
            assert!((f64::from(sum) - expected).abs() < 4e-6 * expected, "{sum}, not {expected}");
        }
    };
    near(x.sum_all(), 3e6);
    near(x.reshape([1_000_000, 3]).sum(&[0]), 1e6);
    near(x.reshape([3, 1_000_000]).sum(&[1]), 1e6);
    near(x.reshape([1000, 3000]).sum(&[0]), 1e3);
}

/// Adapters without immediates read parameters from a uniform, whose layout has rules of its own.
#[test]
fn parameters_may_come_from_a_uniform() {
    if gpu::device().is_none() {
        return;
    }
    let name = std::env::var("ECKART_GPU").unwrap_or_else(|_| "llvmpipe".to_owned());
    let options = eckart::device::gpu::Options { immediates: false, ..Default::default() };
    let device = Device::open_gpu(&name, options).unwrap();
    let x = Input::normal([5, 260]).tensor(Seed(1), DType::F32, &Device::cpu()).to_vec::<f32>().unwrap();
    let row = Input::normal([260]).tensor(Seed(2), DType::F32, &Device::cpu()).to_vec::<f32>().unwrap();
    for case in CASES {
        let value = |device: &Device| {
            let mut x = vec![Tensor::new(&x, [5, 260], device)];
            x.extend((0..case.more).map(|_| Tensor::new(&row, [260], device)));
            x.extend(case.targets.then(|| Tensor::new(&[3_u32, IGNORED, 0, 259, 7], [5], device)));
            numbers(&(case.f)(&x))
        };
        let (found, expected) = (value(&device), value(&Device::cpu()));
        let error = norm(found.iter().zip(&expected).map(|(a, b)| a - b));
        assert!(error <= 1e-5 * norm(expected.into_iter()).max(1.0), "{}: {error:e}", case.name);
    }
}
