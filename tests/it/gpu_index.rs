//! Ops that pick, place and drop elements give the host's bits on a GPU, by kernels of their own.

use crate::gpu::device;
use eckart::ops::Input;
use eckart::{DType, Device, Seed, Tensor};

fn host_ops(device: &Device) -> u64 {
    device.gpu().unwrap().counters().host_ops
}

/// `f` of operands built on the host and on the GPU gives the same bits, and no kernel of the host runs for it.
fn same(gpu: &Device, what: &str, f: impl Fn(&Device) -> Tensor) {
    let before = host_ops(gpu);
    let found = f(gpu);
    assert_eq!(host_ops(gpu), before, "{what} ran on the host");
    equal(what, &found, &f(&Device::cpu()));
}

fn equal(what: &str, found: &Tensor, want: &Tensor) {
    let (found, want) = (bits(found), bits(want));
    assert_eq!(found.len(), want.len(), "{what}");
    if let Some(i) = (0..found.len()).find(|&i| found[i] != want[i]) {
        panic!("{what}: element {i} is {:x}, not {:x}", found[i], want[i]);
    }
}

/// Bits of all elements.
fn bits(x: &Tensor) -> Vec<u64> {
    let f32_bits = |x: &Tensor| x.to_vec::<f32>().unwrap().iter().map(|x| u64::from(x.to_bits())).collect();
    match x.dtype() {
        DType::F16 => x.to_vec::<half::f16>().unwrap().iter().map(|x| x.to_bits().into()).collect(),
        DType::BF16 => x.to_vec::<half::bf16>().unwrap().iter().map(|x| x.to_bits().into()).collect(),
        DType::U32 => x.to_vec::<u32>().unwrap().iter().map(|&x| x.into()).collect(),
        _ => f32_bits(x),
    }
}

fn random(shape: &[usize], seed: u64, device: &Device) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F32, device)
}

/// Indices below `rows`, small ones more often, as in text.
fn indices(count: usize, rows: usize, seed: u64) -> Vec<u32> {
    let word = |i: usize| Seed(seed).block(i as u64);
    (0..count).map(|i| (word(i)[0] as usize % rows).min(word(i)[1] as usize % rows) as u32).collect()
}

#[test]
fn gather_gives_the_hosts_bits() {
    let Some(gpu) = device() else { return };
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::U32] {
        for (rows, width, count) in [(5, 3, 7), (1, 1, 1), (9, 8, 300), (300, 65, 33), (4, 1, 6)] {
            let ids = indices(count, rows, 3);
            same(&gpu, &format!("{dtype} {rows} x {width} at {count}"), |device| {
                let table = random(&[rows, width], 1, device).cast(dtype);
                table.gather(&Tensor::new(&ids, [count], device))
            });
            // Table and indices that begin inside their storages, at odd places.
            same(&gpu, &format!("part of {dtype} {rows} x {width} at {count}"), |device| {
                let table = random(&[rows + 1, width], 2, device).cast(dtype).slice(0, 1, rows);
                let more = [&[7, 7, 7], &ids[..]].concat();
                table.gather(&Tensor::new(&more, [count + 3], device).slice(0, 3, count))
            });
        }
    }
}

#[test]
fn indices_beyond_the_table_give_nan() {
    let Some(gpu) = device() else { return };
    let ids = Tensor::new(&[1_u32, 2, u32::MAX, 0], [4], &gpu);
    for (dtype, nan) in [(DType::F32, 0x7fc0_0000), (DType::F16, 0x7fc0), (DType::BF16, 0x7fc0)] {
        let table = random(&[2, 3], 1, &gpu).cast(dtype);
        let found = bits(&table.gather(&ids));
        assert_eq!(found[3..9], [nan; 6], "{dtype}");
        assert!(found[..3].iter().chain(&found[9..]).all(|&bits| bits != nan), "{dtype}");
    }
    let sums = random(&[4, 8], 1, &gpu).scatter_add(&ids, 2).to_vec::<f32>().unwrap();
    assert!(sums.iter().all(|sum| sum.is_nan()));
}

#[test]
fn scatter_add_sums_in_the_hosts_order() {
    let Some(gpu) = device() else { return };
    let cases = [(1, 1, 1), (6, 4, 3), (255, 9, 4), (256, 300, 8), (257, 2, 5), (1300, 700, 12), (2000, 3, 64)];
    for (count, rows, width) in cases {
        let ids = indices(count, rows, 5);
        same(&gpu, &format!("{count} rows of {width} into {rows}"), |device| {
            random(&[count, width], 1, device).scatter_add(&Tensor::new(&ids, [count], device), rows)
        });
        same(&gpu, &format!("part of {count} rows of {width} into {rows}"), |device| {
            let more = [&[0], &ids[..]].concat();
            let ids = Tensor::new(&more, [count + 1], device).slice(0, 1, count);
            random(&[count + 1, width], 1, device).slice(0, 1, count).scatter_add(&ids, rows)
        });
    }
}

#[test]
fn scatter_add_of_nothing_is_zero() {
    let Some(gpu) = device() else { return };
    same(&gpu, "no rows", |device| random(&[0, 3], 1, device).scatter_add(&Tensor::new::<u32>(&[], [0], device), 2));
    same(&gpu, "rows without elements", |device| {
        random(&[2, 0], 1, device).scatter_add(&Tensor::new(&[0_u32, 1], [2], device), 2)
    });
}

#[test]
fn scatter_add_adds_to_what_is_there() {
    use eckart::ops::index::ScatterAdd;
    use eckart::ops::{Op, Outputs};
    let Some(gpu) = device() else { return };
    for width in [3, 8] {
        let ids = indices(500, 40, 9);
        let run = |device: &Device| {
            let (x, ids) = (random(&[500, width], 1, device), Tensor::new(&ids, [500], device));
            let mut y = random(&[60, width], 2, device).array().to_owned();
            let out = Outputs { y: &mut y, residuals: &mut [], scratch: None, add: true };
            let (op, ins) = (ScatterAdd { rows: 60 }, [x.array(), ids.array()]);
            if device.is_gpu() {
                op.gpu(&ins, out)
            } else {
                op.cpu(&ins, out)
            }
            y.to_host().unwrap().slice::<f32>().to_vec()
        };
        assert_eq!(run(&gpu), run(&Device::cpu()));
    }
}

#[test]
fn halves_are_padded_and_joined() {
    let Some(gpu) = device() else { return };
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let make = |shape: &[usize], seed, device: &Device| random(shape, seed, device).cast(dtype);
        for axis in 0..3 {
            for (before, after) in [(0, 0), (1, 0), (0, 1), (3, 2)] {
                same(&gpu, &format!("{dtype} padded by {before} and {after} along {axis}"), |device| {
                    make(&[3, 5, 7], 1, device).pad(axis, before, after)
                });
                same(&gpu, &format!("part of {dtype} padded by {before} and {after} along {axis}"), |device| {
                    make(&[3, 5, 7], 1, device).slice(2, 1, 5).t().slice(0, 1, 2).pad(axis, before, after)
                });
            }
            same(&gpu, &format!("{dtype} joined along {axis}"), |device| {
                let part = |size, seed| {
                    let mut shape = [3, 5, 7];
                    shape[axis as usize] = size;
                    make(&shape, seed, device)
                };
                Tensor::concat(&[&part(1, 1), &part(3, 2), &part(0, 3), &part(4, 4)], axis)
            });
        }
    }
}

#[test]
fn dropout_has_the_hosts_mask() {
    use eckart::autograd::grad;
    use eckart::ops::dropout::Mask;
    let Some(gpu) = device() else { return };
    for seed in [Seed(0), Seed(7), Seed(u64::MAX), Seed(0x1234_5678_9abc_def0)] {
        for (shape, probability) in [([1, 1], 0.5), ([3, 7], 0.3), ([16, 64], 0.1), ([37, 129], 0.9), ([5, 3], 0.0)] {
            let what = format!("{shape:?} with {seed:?}");
            same(&gpu, &what, |device| random(&shape, 1, device).dropout(probability, seed));
            same(&gpu, &format!("a part, {what}"), |device| {
                random(&[shape[0] + 1, shape[1]], 1, device).slice(0, 1, shape[0]).dropout(probability, seed)
            });
            same(&gpu, &format!("transposed, {what}"), |device| {
                random(&shape, 1, device).t().dropout(probability, seed)
            });
            same(&gpu, &format!("folded, {what}"), |device| {
                let mask = Mask::new(seed, device).fold(u64::MAX - 1);
                let once = random(&shape, 1, device).dropout_by(probability, &mask);
                once.dropout_by(probability, &mask.fold(1 << 40))
            });
            let backward = |device: &Device| {
                let x = random(&shape, 1, device).leaf();
                let y = x.dropout(probability, seed) * &random(&shape, 2, device);
                grad(&y.sum_all(), &[&x], false).remove(0)
            };
            equal(&format!("backward, {what}"), &backward(&gpu), &backward(&Device::cpu()));
        }
        same(&gpu, "one element stretched", |device| random(&[1], 1, device).broadcast_to([1000]).dropout(0.4, seed));
    }
}

/// Parameters from a uniform have other rules of layout.
#[test]
fn adapters_without_immediates_compute_the_same() {
    use eckart::device::gpu::Options;
    let Some(gpu) = device() else { return };
    let options = Options { immediates: false, ..Options::default() };
    let gpu = Device::open_gpu(&gpu.gpu().unwrap().about().name, options).unwrap();
    let ids = indices(70, 9, 1);
    same(&gpu, "gather", |device| random(&[9, 5], 1, device).gather(&Tensor::new(&ids, [70], device)));
    same(&gpu, "scatter_add", |device| random(&[70, 5], 1, device).scatter_add(&Tensor::new(&ids, [70], device), 9));
    same(&gpu, "pad", |device| random(&[3, 5], 1, device).t().pad(1, 1, 1).cast(DType::F16).pad(0, 1, 2));
    same(&gpu, "dropout", |device| random(&[30, 5], 1, device).t().dropout(0.5, Seed(3)));
    same(&gpu, "contiguous", |device| random(&[30, 5], 1, device).t().contiguous());
}
