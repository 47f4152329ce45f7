//! Random projections on a GPU: the host's entries, and its products at sizes around the kernel's tiles.

use crate::gpu;
use crate::gpu_matmul::{Lie, assert_product, random as operand};
use crate::project::{ALL, random};
use eckart::autograd::Gradient;
use eckart::ops::project::{Entries, Random};
use eckart::{DType, Device, Tensor};

/// Units in the last place that entries are from the host's, at most; finite numbers of the same sign alone are near.
fn apart(p: Random, size: usize, device: &Device) -> u32 {
    let [here, there] = [&Device::cpu(), device].map(|on| p.matrix(size, DType::F32, on).to_vec::<f32>().unwrap());
    let units = |(a, b): (&f32, &f32)| match a.is_finite() && a.is_sign_positive() == b.is_sign_positive() {
        true => a.to_bits().abs_diff(b.to_bits()),
        false => u32::MAX,
    };
    here.iter().zip(&there).map(units).max().unwrap()
}

/// Signs are the same bits. Normal numbers come of the same formula, but drivers may round products and sums together or
/// apart, and square roots by two or three units: eight are allowed, and llvmpipe takes three.
fn allowed(entries: Entries) -> u32 {
    if entries == Entries::Gaussian { 8 } else { 0 }
}

/// Over a million of each, in rows that begin at no whole words or blocks of words.
#[test]
fn entries_are_the_hosts() {
    let Some(device) = gpu::device() else { return };
    for entries in ALL {
        let units = apart(random(entries, 64, 11), 16_421, &device);
        eprintln!("{entries:?}: {units} units in the last place");
        assert!(units <= allowed(entries), "{entries:?}: {units} units in the last place");
    }
}

/// Ranks, sizes, columns and how they lie change from one to the next.
#[test]
fn products_at_sizes_around_tiles() {
    let Some(device) = gpu::device() else { return };
    let ranks = [1, 3, 8, 9, 16, 17, 31, 33, 64, 65, 130];
    let sizes = [1, 5, 31, 33, 64, 127, 129, 260, 300];
    let columns = [1, 4, 31, 32, 33, 63, 64, 65, 68];
    let lies = [Lie::Rows, Lie::Columns, Lie::Inside, Lie::Odd, Lie::Broadcast];
    for i in 0..ranks.len() * sizes.len() {
        let (rank, size) = (ranks[i % ranks.len()], sizes[i % sizes.len()]);
        let (n, lie) = (columns[(i + i / 9) % columns.len()], lies[i % lies.len()]);
        check(random(ALL[i / 2 % 3], rank, i as u64), size, n, lie, &device);
    }
    // Long enough to be cut into parts, and, back, large enough for larger tiles.
    for entries in ALL {
        check(random(entries, 3, 1), 1029, 2020, Lie::Rows, &device);
        check(random(entries, 8, 1), 2000, 5, Lie::Columns, &device);
        check(random(entries, 33, 1), 1409, 36, Lie::Rows, &device);
    }
}

/// There and back, and added to something.
fn check(p: Random, size: usize, n: usize, lie: Lie, device: &Device) {
    let what = format!("{p:?}, {size} by {n}, {lie:?}");
    assert!(apart(p, size, device) <= allowed(p.entries), "{what}: entries");
    let matrix = p.matrix(size, DType::F32, device);
    let (x, c) = (operand([size, n], lie, 1, device), operand([p.rank, n], lie, 2, device));
    assert_product(&x.project(p), &matrix, &x, &[], &what);
    assert_product(&c.project_back(p, size), &matrix.t(), &c, &[], &format!("{what}, back"));
    let (x, c) = (operand([n, size], lie, 1, device), operand([n, p.rank], lie, 2, device));
    assert_product(&x.project_rows(p), &x, &matrix.t(), &[], &format!("{what}, rows"));
    assert_product(&c.project_rows_back(p, size), &c, &matrix, &[], &format!("{what}, rows back"));
    if size <= n {
        let x = x.t();
        let before = operand([p.rank, n], Lie::Rows, 3, device);
        let gradient = Gradient { shape: *x.shape(), dense: Some(x.clone()), factors: Vec::new() };
        let sum = gradient.sketch_onto(p, Tensor::from_array(before.array().to_owned()));
        assert_product(&sum, &matrix, &x, &[&before], &format!("{what}, onto a sum"));
    }
}

#[test]
fn nothing_projected_is_nothing() {
    let Some(device) = gpu::device() else { return };
    let zeros = |shape: [usize; 2]| Tensor::zeros(shape, DType::F32, &device);
    let p = random(Entries::Gaussian, 3, 1);
    assert_eq!(zeros([0, 2]).project(p).to_vec::<f32>().unwrap(), [0.0; 6]);
    assert_eq!(zeros([5, 0]).project(p).shape()[..], [3, 0]);
    assert_eq!(zeros([3, 2]).project_back(p, 0).shape()[..], [0, 2]);
    assert_eq!(zeros([2, 0]).project_rows(p).to_vec::<f32>().unwrap(), [0.0; 6]);
    assert_eq!(zeros([2, 3]).project_rows_back(p, 0).shape()[..], [2, 0]);
}

/// The transfer between two subspaces, in several parts.
#[test]
fn overlaps_are_the_hosts() {
    let Some(device) = gpu::device() else { return };
    for entries in ALL {
        let (new, old) = (random(entries, 9, 1), random(Entries::Rademacher, 20, 2));
        let [a, b] = [new, old].map(|p| p.matrix(2500, DType::F32, &device));
        let found = new.overlap(old, 2500, DType::F32, &device);
        assert_product(&found, &a, &b.t(), &[], &format!("{entries:?}"));
    }
}
