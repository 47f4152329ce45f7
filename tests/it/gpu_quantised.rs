//! Matrices in fewer bits on a GPU: products at sizes around the kernel's tiles, rows, storages that cannot be bound
//! whole, and what adapters learn beside them.

use crate::gpu;
use crate::gpu_matmul::{Lie, assert_product, random as operand};
use eckart::autograd::vjp;
use eckart::device::gpu::Options;
use eckart::nn::Arch;
use eckart::ops::Input;
use eckart::ops::quantised::{Format, Packed, Product, Rows};
use eckart::{DType, Device, Seed, Tensor};

/// Codes and scales on a device, and the matrix as the host unpacks it.
fn matrix(packed: Packed, device: &Device) -> ([Tensor; 2], Tensor) {
    let x = Input::normal([packed.rows, packed.columns]).tensor(Seed(9), DType::F32, &Device::cpu());
    let x = x.to_vec::<f32>().unwrap();
    let encoded = packed.encode(|i, j| x[i * packed.columns + j]);
    let on = |device: &Device| {
        let codes = Tensor::new(&encoded.codes, [encoded.codes.len()], device);
        [codes, Tensor::new(&encoded.scales, [encoded.scales.len()], device)]
    };
    let [codes, scales] = on(&Device::cpu());
    let dense = Tensor::apply(Rows { packed, range: Some(0..packed.rows) }, &[&codes, &scales]);
    (on(device), dense)
}

/// Forwards and backwards, with a bias and added to something.
fn check(packed: Packed, m: usize, lie: Lie, device: &Device) {
    let ([codes, scales], dense) = matrix(packed, device);
    for transposed in [false, true] {
        let w = if transposed { dense.t() } else { dense.clone() };
        let (product, what) = (Product { packed, transposed }, format!("{m} rows, {packed:?} {transposed} {lie:?}"));
        let x = operand([m, w.shape()[0]], lie, 1, device);
        let bias = operand([1, w.shape()[1]], Lie::Rows, 2, device).reshape([w.shape()[1]]);
        assert_product(&Tensor::apply(product, &[&x, &codes, &scales, &bias]), &x, &w, &[&bias], &what);
        let c = operand([m, w.shape()[1]], Lie::Rows, 3, device);
        // What is shared has the sum of both gradients, the second added to the first.
        let leaf = x.leaf();
        let y = || Tensor::apply(product, &[&leaf, &codes, &scales]);
        let found = vjp(&(y() + y()), &c, &[&leaf], false).remove(0);
        assert_product(&found, &c, &(w.t() * 2.0), &[], &format!("{what}, gradient"));
    }
}

/// Rows, sizes, formats and how x lies change from one to the next.
#[test]
fn products_at_sizes_around_tiles() {
    let Some(device) = gpu::device() else { return };
    let (rows, sides) = ([1, 8, 9, 31, 33, 64, 65, 130], [1, 5, 31, 32, 60, 64, 65, 129, 132]);
    let lies = [Lie::Rows, Lie::Columns, Lie::Inside, Lie::Odd, Lie::Broadcast];
    for i in 0..rows.len() * sides.len() {
        let format = Format::ALL[i % 4];
        let packed = Packed { format, rows: sides[i % sides.len()], columns: sides[(i / 4) % sides.len()] };
        check(packed, rows[i % rows.len()], lies[i % lies.len()], &device);
    }
    // Long enough to be cut into parts, and large enough for larger tiles.
    for format in Format::ALL {
        check(Packed { format, rows: 1030, columns: 36 }, 5, Lie::Rows, &device);
        check(Packed { format, rows: 50, columns: 1027 }, 40, Lie::Rows, &device);
        check(Packed { format, rows: 520, columns: 517 }, 520, Lie::Rows, &device);
    }
}

#[test]
fn rows_are_the_hosts_to_the_bit() {
    let Some(device) = gpu::device() else { return };
    for packed in Format::ALL.into_iter().flat_map(|format| {
        [[1, 1], [7, 129], [300, 64], [33, 31]].map(|[rows, columns]| Packed { format, rows, columns })
    }) {
        let ([codes, scales], dense) = matrix(packed, &device);
        let last = packed.rows as u32 - 1;
        let ids = [last, 0, last / 2, last / 3, last];
        let rows = Rows { packed, range: None };
        let found = Tensor::apply(rows, &[&codes, &scales, &Tensor::new(&ids, [5], &device)]);
        let expected = dense.gather(&Tensor::new(&ids, [5], &Device::cpu()));
        assert_eq!(found.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap(), "{packed:?}");
        let (start, count) = (packed.rows / 3, packed.rows / 2);
        let rows = Rows { packed, range: Some(start..start + count) };
        let found = Tensor::apply(rows, &[&codes, &scales]).to_vec::<f32>().unwrap();
        assert_eq!(found, dense.slice(0, start, count).to_vec::<f32>().unwrap(), "{packed:?}");
        // Beyond the matrix there is nothing.
        let beyond = Tensor::new(&[packed.rows as u32, u32::MAX], [2], &device);
        let found = Tensor::apply(Rows { packed, range: None }, &[&codes, &scales, &beyond]);
        assert!(found.to_vec::<f32>().unwrap().iter().all(|x| x.is_nan()));
    }
}

/// Every bit pattern of halves, as the host reads it.
#[test]
fn halves_are_the_hosts() {
    let Some(device) = gpu::device() else { return };
    for format in [Format::F16, Format::BF16] {
        let packed = Packed { format, rows: 256, columns: 256 };
        let words: Vec<u32> = (0..1 << 15).map(|i| (2 * i) | (2 * i + 1) << 16).collect();
        let read = |device: &Device| {
            let codes = Tensor::new(&words, [1 << 15], device);
            let scales = Tensor::zeros([0], DType::F32, device);
            let rows = Tensor::apply(Rows { packed, range: Some(0..256) }, &[&codes, &scales]);
            rows.to_vec::<f32>().unwrap()
        };
        for (found, expected) in read(&device).into_iter().zip(read(&Device::cpu())) {
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{found} {expected}");
        }
    }
}

/// Codes, x and results larger than what is bound: a device that binds 16 KiB.
#[test]
fn storages_too_large_to_bind_are_cut() {
    let Some(device) = gpu::device_with(Options { binding: Some(16 << 10), ..Options::default() }) else { return };
    for format in Format::ALL {
        let before = device.gpu().unwrap().counters().host_ops;
        check(Packed { format, rows: 301, columns: 257 }, 20, Lie::Rows, &device);
        check(Packed { format, rows: 260, columns: 256 }, 70, Lie::Rows, &device);
        let packed = Packed { format, rows: 301, columns: 257 };
        let ([codes, scales], dense) = matrix(packed, &device);
        let ids = [300, 0, 150, 7_u32];
        let found = Tensor::apply(Rows { packed, range: None }, &[&codes, &scales, &Tensor::new(&ids, [4], &device)]);
        let expected = dense.gather(&Tensor::new(&ids, [4], &Device::cpu()));
        assert_eq!(found.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap(), "{packed:?}");
        assert_eq!(device.gpu().unwrap().counters().host_ops, before, "{format} ran on the host");
    }
}

/// With parts of long sums as scratch, and without.
#[test]
fn a_plan_counts_what_a_gpu_takes() {
    let Some(device) = gpu::device() else { return };
    for (format, rows, side) in [(Format::Nf4, 5, 1024), (Format::Int8, 40, 512), (Format::F16, 300, 96)] {
        let peak = |device: &Device| crate::qlora::peak(device, rows, [side, side + 64], Some(format), None);
        assert_eq!(peak(&device), peak(&Device::null_gpu()), "{format} {rows} {side}");
    }
}

#[test]
fn a_gpu_learns_what_the_host_learns() {
    let Some(device) = gpu::device() else { return };
    for (arch, format, dora) in [(Arch::Gpt2, Format::Nf4, false), (Arch::Llama, Format::Int8, true)] {
        let run = |device: &Device| crate::qlora::losses(device, arch, format, dora, 6);
        let (here, there) = (run(&Device::cpu()), run(&device));
        assert!(there[5] < there[0] - 0.1, "{there:?}");
        for (here, there) in here.iter().zip(&there) {
            assert!((here - there).abs() < 2e-4, "{arch:?} {format}: {there} where the host has {here}");
        }
    }
}
