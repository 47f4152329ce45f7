//! Storages larger than what a kernel can bind: products, elementwise functions and rows by index are cut, what cannot
//! be is an error. A device that binds 64 KiB has all of it without gigabytes.

use crate::gpu::device_with;
use crate::gpu_matmul::{Lie, assert_product, random};
use eckart::autograd::vjp;
use eckart::device::Spec;
use eckart::device::gpu::Options;
use eckart::ops::Input;
use eckart::ops::attention::Attention;
use eckart::ops::matmul::{Family, gpu_product};
use eckart::optim::{Adam, Chain, Gradients, Group, Momentum, Optimizer};
use eckart::{DType, Device, Error, Parameter, Seed, Tensor};

const BINDING: u64 = 64 << 10;

fn device() -> Option<Device> {
    device_with(Options { binding: Some(BINDING), ..Options::default() })
}

fn normal(shape: &[usize], seed: u64, device: &Device) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F32, device)
}

fn numbers(x: &Tensor) -> Vec<f32> {
    let x = if x.dtype() == DType::F32 { x.clone() } else { x.cast(DType::F32) };
    x.to_vec().unwrap()
}

/// `f` of operands built on the host and on the GPU gives the same numbers, up to a few roundings, and no kernel of the
/// host runs for it.
fn same(gpu: &Device, what: &str, f: impl Fn(&Device) -> Tensor) {
    let before = gpu.gpu().unwrap().counters().host_ops;
    let found = f(gpu);
    let (found, want) = (numbers(&found), numbers(&f(&Device::cpu())));
    assert_eq!(gpu.gpu().unwrap().counters().host_ops, before, "{what} ran on the host");
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (found, want)) in found.iter().zip(&want).enumerate() {
        let bound = 1e-6 * (1.0 + want.abs());
        assert!((found - want).abs() <= bound, "{what}, element {i}: {found} for {want}");
    }
}

#[test]
fn elementwise_functions_are_cut() {
    let Some(gpu) = device() else { return };
    // Of several units, of a few elements more, and of odd rows.
    for shape in [[2, 16384], [1, 70_001], [1001, 37], [3, 51_200], [70_000, 1]] {
        let what = |name: &str| format!("{name} of {shape:?}");
        let x = |seed: u64, device: &Device| normal(&shape, seed, device);
        same(&gpu, &what("x y + x"), |device| &(&x(1, device) * &x(2, device)) + &x(1, device));
        same(&gpu, &what("tanh"), |device| x(1, device).tanh());
        same(&gpu, &what("a scalar"), |device| &x(1, device) * &normal(&[], 2, device));
        same(&gpu, &what("a row"), |device| &x(1, device) + &normal(&[shape[1]], 2, device));
        same(&gpu, &what("a column"), |device| &x(1, device) + &normal(&[shape[0], 1], 2, device));
        same(&gpu, &what("a choice"), |device| x(1, device).less(&x(2, device)).select(&x(3, device), &x(4, device)));
        same(&gpu, &what("copy"), |device| Tensor::full(2.5, Spec::new(DType::F32, shape), device).contiguous());
        for dtype in [DType::F16, DType::BF16, DType::U32] {
            same(&gpu, &what("cast"), |device| x(1, device).cast(dtype));
            same(&gpu, &what("copy of a part"), |device| {
                x(1, device).cast(dtype).reshape([shape[0] * shape[1]]).slice(0, 5, 30_000).contiguous()
            });
        }
    }
}

/// A view that begins inside a storage, at any place.
#[test]
fn parts_begin_anywhere() {
    let Some(gpu) = device() else { return };
    for start in [0, 1, 4, 63, 64, 20_001] {
        same(&gpu, &format!("from {start} on"), |device| {
            &normal(&[50_000], 1, device).slice(0, start, 20_000) * &normal(&[20_000], 2, device)
        });
    }
}

#[test]
fn values_fill_all_of_it() {
    let Some(gpu) = device() else { return };
    let mut x = normal(&[40_001], 1, &gpu).array().to_owned();
    x.fill(3.0_f32);
    assert_eq!(numbers(&Tensor::from_array(x)), vec![3.0; 40_001]);
    let mut x = normal(&[70_001], 1, &gpu).cast(DType::BF16).array().to_owned();
    x.fill(half::bf16::ONE);
    assert_eq!(numbers(&Tensor::from_array(x)), vec![1.0; 70_001]);
}

/// `a b` with bias and held values, operands drawn alike on both sides.
fn product(gpu: &Device, sizes: [&[usize]; 2], lies: [Lie; 2], bias: bool, held: bool, family: Option<Family>) {
    let host = Device::cpu();
    let draw = |device: &Device| [0, 1].map(|i| random(sizes[i], lies[i], i as u64, device));
    let ([a, b], [host_a, host_b]) = (draw(gpu), draw(&host));
    let shape = *host_a.matmul(&host_b).shape();
    let row = |device: &Device| normal(&[shape.last_size()], 5, device);
    let before = |device: &Device| normal(&shape, 6, device);
    let (added, mut y) = (row(gpu), before(gpu).array().to_owned());
    gpu_product(a.array(), b.array(), &mut y, bias.then_some(added.array()), held, family);
    let starts = [(bias, row(&host)), (held, before(&host))];
    let starts: Vec<&Tensor> = starts.iter().filter(|(used, _)| *used).map(|(_, start)| start).collect();
    let what = format!("{sizes:?}, {lies:?}, bias {bias}, held {held}, {family:?}");
    assert_product(&Tensor::from_array(y), &host_a, &host_b, &starts, &what);
}

#[test]
fn products_are_cut_along_any_side() {
    let Some(gpu) = device() else { return };
    let sizes: [[&[usize]; 2]; 10] = [
        // The result alone, each operand alone, all.
        [&[200, 8], &[8, 200]],
        [&[300, 100], &[100, 20]],
        [&[20, 100], &[100, 300]],
        [&[300, 200], &[200, 150]],
        [&[301, 203], &[203, 151]],
        [&[1, 300], &[300, 500]],
        [&[100, 40], &[40, 1000]],
        // Long sums.
        [&[8, 9000], &[9000, 8]],
        [&[1, 20_000], &[20_000, 1]],
        [&[40, 2000], &[2000, 30]],
    ];
    let lies = [Lie::Rows, Lie::Columns, Lie::Inside, Lie::Odd, Lie::Broadcast];
    let families = [None, Some(Family::Naive), Some(Family::Tiles(64, 64)), Some(Family::Tiles(64, 16))];
    for (i, sizes) in sizes.into_iter().enumerate() {
        for (j, left) in lies.into_iter().enumerate() {
            for (l, right) in lies.into_iter().enumerate() {
                // A third of all pairs with each of the sizes.
                if (i + j + l) % 3 != 0 {
                    continue;
                }
                let family = families[(j + l + i / 3) % 4];
                product(&gpu, sizes, [left, right], (i + j) % 2 == 0, (j + l) % 3 == 0, family);
            }
        }
    }
}

#[test]
fn batches_are_cut() {
    let Some(gpu) = device() else { return };
    let sizes: [[&[usize]; 2]; 5] = [
        [&[6, 100, 32], &[6, 32, 64]],
        [&[3, 130, 70], &[70, 90]],
        [&[3, 130, 70], &[3, 70, 90]],
        [&[2, 3, 64, 70], &[3, 70, 90]],
        [&[3, 8, 5000], &[3, 5000, 8]],
    ];
    for (i, sizes) in sizes.into_iter().enumerate() {
        for lies in [[Lie::Rows, Lie::Rows], [Lie::Columns, Lie::Rows], [Lie::Rows, Lie::Columns]] {
            product(&gpu, sizes, lies, i % 2 == 0, i % 3 == 0, None);
        }
    }
}

/// Layer, and both of its gradients, with a weight stored either way.
#[test]
fn linear_maps_and_their_gradients_are_cut() {
    let Some(gpu) = device() else { return };
    for transposed in [false, true] {
        let of = |device: &Device| {
            let (x, c) = (normal(&[3, 100, 64], 1, device).leaf(), normal(&[3, 100, 300], 2, device));
            let w = normal(if transposed { &[300, 64] } else { &[64, 300] }, 3, device).leaf();
            let b = normal(&[300], 4, device);
            let y = if transposed { x.linear_transposed(&w, Some(&b)) } else { x.linear(&w, Some(&b)) };
            let [dx, dw]: [Tensor; 2] = vjp(&y, &c, &[&x, &w], false).try_into().unwrap();
            [x, c, w, b, y, dx, dw]
        };
        let [x, c, w, b, ..] = of(&Device::cpu()).map(|x| x.detach());
        let w = if transposed { w.t() } else { w };
        let [.., y, dx, dw] = of(&gpu);
        let rows = |x: &Tensor, width: usize| x.reshape([300, width]);
        assert_product(&y, &x, &w, &[&b], "y");
        assert_product(&dx, &c, &w.t(), &[], "dx");
        let [x, c] = [rows(&x, 64), rows(&c, 300)];
        let [left, right] = if transposed { [c, x] } else { [x, c] };
        assert_product(&dw, &left.t(), &right, &[], "dw");
    }
}

#[test]
fn rows_by_index_are_cut() {
    let Some(gpu) = device() else { return };
    let word = |i: usize, rows: usize| (Seed(3).block(i as u64)[0] as usize % rows) as u32;
    // The table alone, the result alone, both, indices too; rows of odd widths.
    for (rows, width, count) in [(500, 40, 30), (30, 40, 700), (700, 33, 900), (10_000, 1, 40_000), (90, 1000, 70)] {
        let ids: Vec<u32> = (0..count).map(|i| word(i, rows)).collect();
        let ids = |device: &Device| Tensor::new(&ids, [count], device);
        let what = format!("{count} of {rows} rows of {width}");
        for dtype in [DType::F32, DType::F16] {
            let table = |device: &Device| normal(&[rows, width], 1, device).cast(dtype);
            same(&gpu, &what, |device| table(device).gather(&ids(device)));
            let later = |device: &Device| table(device).slice(0, 7, rows - 7);
            let ids = |device: &Device| Tensor::new(&vec![3_u32; count], [count], device);
            same(&gpu, &what, |device| later(device).gather(&ids(device)));
        }
        same(&gpu, &format!("gradient of {what}"), |device| {
            let table = normal(&[rows, width], 1, device).leaf();
            let y = table.gather(&ids(device));
            vjp(&y, &normal(&[count, width], 2, device), &[&table], false).remove(0)
        });
    }
}

#[test]
fn indices_beyond_a_cut_table_give_nan() {
    let Some(gpu) = device() else { return };
    let ids = Tensor::new(&[3_u32, 1000, 999, u32::MAX, 0], [5], &gpu);
    for dtype in [DType::F32, DType::BF16] {
        let found = numbers(&normal(&[1000, 45], 1, &gpu).cast(dtype).gather(&ids));
        let lost = found.chunks(45).map(|row| row.iter().filter(|x| x.is_nan()).count());
        assert_eq!(lost.collect::<Vec<_>>(), [0, 45, 0, 45, 0], "{dtype}");
        // A part without rows of a table that is large.
        let none = normal(&[1000, 45], 1, &gpu).cast(dtype).slice(0, 1000, 0).gather(&ids);
        assert!(numbers(&none).iter().all(|x| x.is_nan()), "{dtype}");
    }
}

type Made = fn(&Device) -> Tensor;

/// What is not cut is an error at the next read, and leaves nothing behind.
#[test]
fn what_cannot_be_cut_is_an_error() {
    let cases: [(&str, Made); 4] = [
        ("softmax", |device| normal(&[300, 100], 1, device).softmax(-1)),
        ("reduce", |device| normal(&[300, 100], 1, device).sum(&[0])),
        ("attention", |device| normal(&[2, 80, 6, 32], 1, device).attention(Attention::new(2, true), None)),
        ("copy", |device| normal(&[300, 100], 1, device).t().contiguous()),
    ];
    for (what, f) in cases {
        let Some(device) = device() else { return };
        let y = f(&device);
        let Err(error) = y.to_vec::<f32>() else { panic!("{what} was computed") };
        assert_eq!(error.exit_code(), 3, "{what}: {error}");
        let Error::Memory { needed, limit, advice } = error else { panic!("{what}: {error}") };
        assert!(needed > BINDING && limit == BINDING && advice.contains(what), "{what}: {needed}, {limit}, {advice}");
        drop(y);
        assert_eq!(device.ledger().live().total(), 0, "{what}");
    }
}

/// Cutting takes no scratch that a plan does not count.
#[test]
fn cut_products_need_no_more_than_planned() {
    let Some(gpu) = device() else { return };
    let peak = |device: &Device| {
        let (a, b) = (normal(&[40, 9000], 1, device), normal(&[9000, 30], 2, device));
        drop(a.matmul(&b));
        device.ledger().peak().total()
    };
    assert!(peak(&gpu) <= peak(&Device::null_gpu()));
}

#[derive(Clone)]
struct Weights {
    large: Parameter,
    small: Parameter,
}
eckart::module!(Weights: large, small);

/// Three steps with clipping, by each optimizer's kernels.
#[test]
fn steps_of_optimizers_are_cut() {
    let Some(gpu) = device() else { return };
    let adam = || Optimizer::new(Adam::default(), Group::decay_matrices(0.1));
    let momentum = || Optimizer::new(Momentum { beta: 0.9 }, Group::decay_matrices(0.1));
    let chain = || Optimizer::new(Chain(vec![Box::new(Adam::default())]), Group::decay_matrices(0.1));
    let plain = || Optimizer::new(Momentum { beta: 0.0 }, Group::decay_matrices(0.1));
    let makers: [&dyn Fn() -> Optimizer; 4] = [&adam, &momentum, &chain, &plain];
    for make in makers {
        same(&gpu, "step", |device| {
            let parameter = |shape: &[usize], seed| Parameter::new(normal(shape, seed, device));
            let mut model = Weights { large: parameter(&[301, 101], 1), small: parameter(&[50], 2) };
            let mut optimizer = make();
            for step in 0..3 {
                let (mut gradients, mut squares) = (Gradients::new(), 0.0);
                for (i, parameter) in [&model.large, &model.small].into_iter().enumerate() {
                    let gradient = normal(parameter.tensor().shape(), 10 * step + i as u64, device);
                    squares += numbers(&gradient).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
                    gradients.insert(parameter.id(), gradient.into_array());
                }
                let stepped = optimizer.step(&mut model, gradients, step, 0.1, Some(1.0));
                assert!((stepped.norm / squares.sqrt() - 1.0).abs() < 1e-5, "{stepped:?}, squares {squares}");
            }
            model.large.tensor().clone()
        });
    }
}
