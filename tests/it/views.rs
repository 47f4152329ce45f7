//! Strided views share their storage, and kernels read them as they lie.

use eckart::ops::Input;
use eckart::{DType, Device, Seed, Shape, Tensor};

fn random(shape: impl Into<Shape>, seed: u64, device: &Device) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, device)
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_vec().unwrap()
}

#[test]
fn views_copy_nothing() {
    let device = Device::cpu();
    let x = random([4, 1, 6], 1, &device);
    let before = (device.ledger().live(), device.ledger().peak());
    let views = [
        x.transpose(0, 2),
        x.permute(&[1, 2, 0]),
        x.slice(2, 1, 3),
        x.index(0, 2),
        x.broadcast_to([2, 4, 5, 6]),
        x.reshape([2, 12]),
        x.unsqueeze(0),
        x.contiguous(),
        x.slice(0, 1, 2).slice(2, 2, 4).t(),
        x.broadcast_to([4, 3, 6]).transpose(0, 1).index(0, 1).reshape([4, 2, 3]),
        x.cast(DType::F64),
        x.detach().leaf(),
    ];
    assert_eq!((device.ledger().live(), device.ledger().peak()), before);
    assert!(!x.array().unique());
    drop(views);
    assert!(x.array().unique());
}

/// Constants of any size take one element.
#[test]
fn constants_are_stored_once() {
    let device = Device::cpu();
    let ones = Tensor::full(1.0, eckart::Spec::new(DType::F32, [1000, 1000]), &device);
    assert_eq!(device.ledger().live().total(), 4);
    assert_eq!(ones.sum_all().item().unwrap(), 1e6);
}

#[test]
fn views_hold_the_right_elements() {
    let device = Device::cpu();
    let x = Tensor::new(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 3], &device);
    assert_eq!(numbers(&x.t()), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(numbers(&x.slice(1, 1, 2)), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(numbers(&x.index(1, 2)), [2.0, 5.0]);
    assert_eq!(numbers(&x.index(0, 1).broadcast_to([2, 3])), [3.0, 4.0, 5.0, 3.0, 4.0, 5.0]);
    assert_eq!(numbers(&x.t().reshape([2, 3])), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(numbers(&x.slice(1, 1, 2).pad(1, 1, 0)), [0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
}

/// The product, written out.
fn by_hand(a: &Tensor, b: &Tensor) -> Vec<f64> {
    let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
    let (a, b) = (numbers(a), numbers(b));
    let entry = |at: usize| (0..k).map(|j| a[at / n * k + j] * b[j * n + at % n]).sum();
    (0..m * n).map(entry).collect()
}

/// All four ways to lie, in sizes on both sides of the kernels' tiles.
#[test]
fn matmul_reads_transposed_operands() {
    let device = Device::cpu();
    for (m, k, n) in [(1, 1, 1), (3, 5, 2), (33, 17, 70), (1, 300, 9), (130, 2, 65)] {
        let (a, b) = (random([m, k], 1, &device), random([k, n], 2, &device));
        let expected = by_hand(&a, &b);
        for left in [a.clone(), a.t().contiguous().t()] {
            for right in [b.clone(), b.t().contiguous().t(), b.pad(1, 3, 2).slice(1, 3, n)] {
                let found = numbers(&left.matmul(&right));
                let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-12 * k as f64);
                assert!(near, "{m} x {k} x {n}");
            }
        }
    }
}

#[test]
fn empty_tensors_pass_through() {
    let device = Device::cpu();
    let x = random([0, 3], 1, &device);
    assert_eq!(numbers(&x.exp()), [0.0; 0]);
    assert_eq!(numbers(&x.sum(&[0])), [0.0; 3]);
    assert_eq!(numbers(&x.t().matmul(&random([0, 2], 2, &device))), [0.0; 6]);
    assert_eq!(x.matmul(&random([3, 2], 2, &device)).shape()[..], [0, 2]);
}
