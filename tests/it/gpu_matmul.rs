//! Matrix products on a GPU, at sizes around the edges of every kernel's tiles, against double precision on the host.

use eckart::ops::Input;
use eckart::ops::matmul::{Family, gpu_product};
use eckart::{DType, Device, Seed, Shape, Tag, Tensor};
use std::sync::OnceLock;

/// One device for all of them: kernels are compiled once.
fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(crate::gpu::device).clone()
}

const FAMILIES: [Option<Family>; 8] = [
    None,
    Some(Family::Naive),
    Some(Family::Direct),
    Some(Family::Narrow),
    Some(Family::Tiles(64, 16)),
    Some(Family::Tiles(32, 32)),
    Some(Family::Tiles(64, 64)),
    Some(Family::Tiles(128, 128)),
];

/// How an operand lies in its storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lie {
    Rows,
    Columns,
    /// Inside a larger matrix, whole fours from its edges.
    Inside,
    /// One element from the edges of a larger matrix: in no fours.
    Odd,
    /// Every row the same.
    Broadcast,
}

pub fn random(shape: impl Into<Shape>, lie: Lie, seed: u64, device: &Device) -> Tensor {
    let shape = shape.into();
    let draw = |shape: Shape| Input::normal(shape).tensor(Seed(seed), DType::F32, device);
    let (rows, columns) = (shape.len() - 2, shape.len() - 1);
    let larger = |by: usize| shape.with(rows, shape[rows] + by).with(columns, shape[columns] + by);
    let within = |x: Tensor, start: usize| x.slice(-2, start, shape[rows]).slice(-1, start, shape[columns]);
    match lie {
        Lie::Rows => draw(shape),
        Lie::Columns => draw(shape.with(rows, shape[columns]).with(columns, shape[rows])).t(),
        // A multiple of four apart, so that each row starts with one.
        Lie::Inside => within(draw(larger(8).with(columns, (shape[columns] + 8).next_multiple_of(4))), 4),
        Lie::Odd => within(draw(larger(2)), 1),
        Lie::Broadcast => draw(shape.with(rows, 1)).broadcast_to(shape),
    }
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.detach().cast(DType::F32).to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// The same numbers on the host, in double precision.
fn exact(x: &Tensor) -> Tensor {
    Tensor::new(&numbers(x), *x.shape(), &Device::cpu())
}

/// Compares with the host's sum of `starts` and `a b`; the error may be that of as many roundings in random order.
pub fn assert_product(found: &Tensor, a: &Tensor, b: &Tensor, starts: &[&Tensor], what: &str) {
    let (a, b) = (exact(a), exact(b));
    let sum = |product: Tensor, f: fn(&Tensor) -> Tensor| -> Vec<f64> {
        starts.iter().fold(product, |sum, start| sum + f(&exact(start))).to_vec().unwrap()
    };
    let (expected, sizes) = (sum(a.matmul(&b), Tensor::clone), sum(a.abs().matmul(&b.abs()), Tensor::abs));
    let terms = (a.shape().last_size() + starts.len()) as f64;
    for (i, (found, (expected, size))) in numbers(found).iter().zip(expected.iter().zip(&sizes)).enumerate() {
        let bound = 4.0 * terms.sqrt() * 2_f64.powi(-24) * size;
        assert!((found - expected).abs() <= bound, "{what}, element {i}: {found} for {expected}, bound {bound:e}");
    }
}

/// `a b` by one kernel, added to a bias and to what the result holds.
fn check(device: &Device, a: &Tensor, b: &Tensor, bias: bool, held: bool, family: Option<Family>) {
    let spec = Tensor::matmul(&exact(a), &exact(b)).spec();
    let row = Input::normal([spec.shape.last_size()]).tensor(Seed(5), DType::F32, device);
    let before = Input::normal(spec.shape).tensor(Seed(6), DType::F32, device);
    let mut y = before.array().to_owned();
    gpu_product(a.array(), b.array(), &mut y, bias.then_some(row.array()), held, family);
    let starts = [(bias, &row), (held, &before)].into_iter().filter(|(used, _)| *used).map(|(_, start)| start);
    let lie = |x: &Tensor| format!("{:?} {:?}", x.shape(), x.array().strides());
    let what = format!("{} by {}, bias {bias}, held {held}, {family:?}", lie(a), lie(b));
    assert_product(&Tensor::from_array(y), a, b, &starts.collect::<Vec<_>>(), &what);
}

fn fits(family: Option<Family>, m: usize, n: usize) -> bool {
    family != Some(Family::Narrow) || m.min(n) <= 8
}

/// All sizes; kernels, depths, layouts and what is added change from one to the next.
#[test]
fn sizes_around_tiles() {
    let Some(device) = device() else { return };
    let sizes = [1, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129];
    let depths = [0, 1, 15, 16, 17, 1000];
    let lies = [[Lie::Rows, Lie::Rows], [Lie::Rows, Lie::Columns], [Lie::Columns, Lie::Rows]];
    let pairs = sizes.into_iter().flat_map(|m| sizes.into_iter().map(move |n| (m, n)));
    for (i, (m, n)) in pairs.enumerate() {
        // Steps without common divisors, so that all combinations come up.
        let (family, k, lies) = (FAMILIES[i * 3 % 8], depths[i / 2 % 6], lies[i % 3]);
        let family = if fits(family, m, n) { family } else { None };
        let (a, b) = (random([m, k], lies[0], 1, &device), random([k, n], lies[1], 2, &device));
        check(&device, &a, &b, i % 5 < 2, i % 7 < 3, family);
    }
}

/// Kernels of every text with every way for operands to lie.
#[test]
fn operands_may_lie_anyhow() {
    let Some(device) = device() else { return };
    let lies = [Lie::Rows, Lie::Columns, Lie::Inside, Lie::Odd, Lie::Broadcast];
    for family in [None, Some(Family::Naive), Some(Family::Narrow), Some(Family::Tiles(32, 32))] {
        for left in lies {
            for right in lies {
                let (a, b) = (random([68, 36], left, 1, &device), random([36, 8], right, 2, &device));
                check(&device, &a, &b, left == right, left == Lie::Rows, family);
            }
        }
    }
}

#[test]
fn batches_broadcast() {
    let Some(device) = device() else { return };
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[3, 33, 16], &[3, 16, 20]),
        (&[2, 1, 9, 17], &[3, 17, 5]),
        (&[5, 6, 4], &[4, 33]),
        (&[12, 7], &[2, 3, 7, 12]),
        (&[2, 3, 1, 2, 5, 4], &[3, 2, 1, 4, 8]),
        (&[0, 3, 4], &[4, 5]),
    ];
    for (i, (left, right)) in shapes.into_iter().enumerate() {
        for family in [None, Some(Family::Naive), Some(Family::Narrow), Some(Family::Tiles(32, 32))] {
            for lie in [Lie::Rows, Lie::Columns] {
                let (a, b) = (random(left, lie, 1, &device), random(right, lie, 2, &device));
                let (m, n) = (left.iter().rev().skip(1).product(), right[right.len() - 1]);
                if fits(family, m, n) {
                    check(&device, &a, &b, i % 2 == 0, lie == Lie::Rows, family);
                }
            }
        }
    }
}

/// Few results of many terms: k is cut into parts, always the same ones.
#[test]
fn long_products_are_cut() {
    let Some(device) = device() else { return };
    for (m, k, n) in [(8, 5000, 40), (40, 2049, 8), (1, 9000, 1), (20, 2048, 30)] {
        for family in [None, Some(Family::Narrow), Some(Family::Tiles(64, 16)), Some(Family::Tiles(64, 64))] {
            for (left, right) in [(Lie::Rows, Lie::Rows), (Lie::Columns, Lie::Rows)] {
                let family = if fits(family, m, n) { family } else { None };
                let (a, b) = (random([m, k], left, 1, &device), random([k, n], right, 2, &device));
                check(&device, &a, &b, true, m == 8, family);
            }
        }
    }
}

/// A step's products run on the GPU, with bias and cotangents, and give the same bits each time.
#[test]
fn linear_maps_stay_on_the_gpu() {
    let Some(device) = device() else { return };
    let gpu = device.gpu().unwrap();
    let before = gpu.counters().host_ops;
    let draw = |shape: &[usize], seed: u64| Input::normal(shape).tensor(Seed(seed), DType::F32, &device);
    let (x, w, b, c) = (draw(&[3, 20, 33], 1), draw(&[33, 17], 2), draw(&[17], 3), draw(&[3, 20, 17], 4));
    let run = || {
        let [x, w] = [&x, &w].map(Tensor::leaf);
        let y = x.linear(&w, Some(&b));
        let pulled = eckart::autograd::vjp(&y, &c, &[&x, &w], false);
        [vec![y], pulled].concat()
    };
    let (first, second) = (run(), run());
    assert_eq!(gpu.counters().host_ops, before, "ops on the host");
    assert_product(&first[0], &x, &w, &[&b], "linear");
    assert_product(&first[1], &c, &w.t(), &[], "dx");
    assert_product(&first[2], &x.reshape([60, 33]).t(), &c.reshape([60, 17]), &[], "dw");
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(numbers(first), numbers(second));
    }
}

/// What parts of k need is counted where nothing is computed, so that it is planned.
#[test]
fn parts_are_planned() {
    let device = Device::null_gpu();
    let of = |shape: [usize; 2]| Tensor::zeros(shape, DType::F32, &device).contiguous();
    let (a, b) = (of([8, 100_000]), of([100_000, 8]));
    drop(a.matmul(&b));
    let workspace = device.ledger().peak().by_tag().find(|(tag, _)| *tag == Tag::Workspace).map(|(_, bytes)| bytes);
    assert!(workspace >= Some(2 * 8 * 8 * 4), "{workspace:?} bytes of workspace");
}
