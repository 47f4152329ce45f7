//! Matrix products on a GPU, at sizes around the edges of every kernel's tiles, against double precision on the host.

use crate::gpu;
use eckart::ops::Input;
use eckart::ops::matmul::{Family, gpu_product};
use eckart::{DType, Device, Seed, Shape, Tensor};

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
enum Lie {
    Rows,
    Columns,
    /// Inside a larger matrix, whole fours from its edges.
    Inside,
    /// One element from the edges of a larger matrix: in no fours.
    Odd,
    /// Every row the same.
    Broadcast,
}

fn random(shape: impl Into<Shape>, lie: Lie, seed: u64, device: &Device) -> Tensor {
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

/// Compares with the host's product of the same numbers; the error may be that of as many roundings in random order.
fn assert_product(found: &Tensor, a: &Tensor, b: &Tensor, start: &Tensor, what: &str) {
    let (a, b, start) = (exact(a), exact(b), exact(start));
    let expected: Vec<f64> = (a.matmul(&b) + &start).to_vec().unwrap();
    let sizes: Vec<f64> = (a.abs().matmul(&b.abs()) + start.abs()).to_vec().unwrap();
    let terms = a.shape().last_size().max(1) as f64;
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
    let zero = before.zeros_like();
    let start = if held { before } else { zero.clone() } + if bias { &row + &zero } else { zero };
    let what = format!(
        "{:?} {:?} by {:?} {:?}, bias {bias}, held {held}, {family:?}",
        a.shape(),
        a.array().strides(),
        b.shape(),
        b.array().strides()
    );
    assert_product(&Tensor::from_array(y), a, b, &start, &what);
}

fn fits(family: Option<Family>, m: usize, n: usize) -> bool {
    family != Some(Family::Narrow) || m.min(n) <= 8
}

/// Every size with every kernel; how operands lie and what is added changes from one to the next.
#[test]
fn sizes_around_tiles() {
    let Some(device) = gpu::device() else { return };
    let sizes = [1, 2, 7, 8, 9, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129];
    let depths = [0, 1, 15, 16, 17, 3, 100, 1000];
    let lies = [Lie::Rows, Lie::Columns, Lie::Inside, Lie::Odd, Lie::Broadcast];
    let mut turn = 0;
    for m in sizes {
        for n in sizes {
            turn += 1;
            // All pairs would take minutes.
            if m > 9 && n > 9 && (turn % 3 != 0) {
                continue;
            }
            let k = depths[turn % depths.len()];
            let a = random([m, k], lies[turn % lies.len()], 1, &device);
            let b = random([k, n], lies[turn / lies.len() % lies.len()], 2, &device);
            let family = FAMILIES[turn % FAMILIES.len()];
            let family = if fits(family, m, n) { family } else { None };
            check(&device, &a, &b, turn % 2 == 0, turn % 3 == 0, family);
        }
    }
}

/// Every kernel with every way for operands to lie.
#[test]
fn operands_may_lie_anyhow() {
    let Some(device) = gpu::device() else { return };
    let lies = [Lie::Rows, Lie::Columns, Lie::Inside, Lie::Odd, Lie::Broadcast];
    for (i, &family) in FAMILIES.iter().enumerate() {
        for (j, left) in lies.into_iter().enumerate() {
            for (l, right) in lies.into_iter().enumerate() {
                let (m, k, n) = if (i + j + l) % 2 == 0 { (68, 36, 8) } else { (7, 37, 65) };
                let (a, b) = (random([m, k], left, 1, &device), random([k, n], right, 2, &device));
                check(&device, &a, &b, j == 0, l == 0, family);
            }
        }
    }
}

#[test]
fn batches_broadcast() {
    let Some(device) = gpu::device() else { return };
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[3, 33, 16], &[3, 16, 20]),
        (&[2, 1, 9, 17], &[3, 17, 5]),
        (&[5, 6, 4], &[4, 33]),
        (&[12, 7], &[2, 3, 7, 12]),
        (&[2, 3, 1, 2, 5, 4], &[3, 2, 1, 4, 8]),
        (&[0, 3, 4], &[4, 5]),
    ];
    for (i, (left, right)) in shapes.into_iter().enumerate() {
        for family in FAMILIES {
            for lie in [Lie::Rows, Lie::Columns, Lie::Odd] {
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
    let Some(device) = gpu::device() else { return };
    for (m, k, n) in [(8, 5000, 40), (40, 5001, 8), (1, 20000, 1), (20, 4100, 30), (130, 3000, 4)] {
        for family in FAMILIES.into_iter().filter(|&family| fits(family, m, n)) {
            for (left, right) in [(Lie::Rows, Lie::Rows), (Lie::Columns, Lie::Columns), (Lie::Columns, Lie::Rows)] {
                let (a, b) = (random([m, k], left, 1, &device), random([k, n], right, 2, &device));
                check(&device, &a, &b, true, m == 8, family);
            }
        }
    }
}

/// A step's products run on the GPU, with bias and cotangents, and give the same bits each time.
#[test]
fn linear_maps_stay_on_the_gpu() {
    let Some(device) = gpu::device() else { return };
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
    let zero = first[0].zeros_like();
    assert_product(&first[0], &x, &w, &(&zero + &b), "linear");
    assert_product(&first[1], &c, &w.t(), &x.zeros_like(), "dx");
    assert_product(&first[2], &x.reshape([60, 33]).t(), &c.reshape([60, 17]), &w.zeros_like(), "dw");
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(numbers(first), numbers(second));
    }
}
