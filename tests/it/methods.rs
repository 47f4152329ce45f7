//! Methods that are written with ops, on numbers that one can check by hand.

use eckart::{Device, Tensor};

fn x() -> Tensor {
    Tensor::new(&[1.0, -2.0, 3.0, 4.0, 0.5, 6.5], [2, 3], &Device::cpu())
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_vec().unwrap()
}

fn assert_near(x: &Tensor, expected: &[f64]) {
    let found = numbers(x);
    assert!(found.len() == expected.len(), "{found:?}");
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14 * b.abs().max(1.0)), "{found:?}");
}

#[test]
fn sums_and_means() {
    assert_eq!(numbers(&x().sum(&[0])), [5.0, -1.5, 9.5]);
    assert_eq!(numbers(&x().sum(&[-1])), [2.0, 11.0]);
    assert_eq!(x().sum_keep(&[1]).shape()[..], [2, 1]);
    assert_eq!(numbers(&x().sum_all()), [13.0]);
    assert_near(&x().mean(&[0]), &[2.5, -0.75, 4.75]);
    assert_near(&x().mean(&[1]), &[2.0 / 3.0, 11.0 / 3.0]);
    assert_near(&x().mean(&[0, 1]), &[13.0 / 6.0]);
    assert_near(&x().mean_all(), &[13.0 / 6.0]);
}

#[test]
fn extremes() {
    assert_eq!(numbers(&x().max(&[0])), [4.0, 0.5, 6.5]);
    assert_eq!(numbers(&x().min(&[-1])), [-2.0, 0.5]);
    assert_eq!(numbers(&x().max_keep(&[0, 1])), [6.5]);
    assert_eq!(x().argmax(0).to_vec::<u32>().unwrap(), [1, 1, 1]);
    assert_eq!(x().argmax(-1).to_vec::<u32>().unwrap(), [2, 2]);
    let log = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>().ln();
    assert_near(&x().logsumexp(&[0]), &[log(&[1.0, 4.0]), log(&[-2.0, 0.5]), log(&[3.0, 6.5])]);
}

#[test]
fn softmax_of_either_dimension() {
    let share = |a: f64, b: f64| 1.0 / (1.0 + (b - a).exp());
    let (up, down) = ([share(1.0, 4.0), share(-2.0, 0.5), share(3.0, 6.5)], [share(4.0, 1.0), share(0.5, -2.0)]);
    let expected = [&up[..], &down, &[share(6.5, 3.0)]].concat();
    assert_near(&x().softmax(0), &expected);
    assert_near(&x().log_softmax(-2), &expected.iter().map(|p| p.ln()).collect::<Vec<_>>());
    assert_near(&x().t().softmax(1).t(), &expected);
}

#[test]
fn arithmetic() {
    assert_eq!(numbers(&-x()), [-1.0, 2.0, -3.0, -4.0, -0.5, -6.5]);
    assert_eq!(numbers(&x().powf(2.0)), [1.0, 4.0, 9.0, 16.0, 0.25, 42.25]);
    assert_eq!(numbers(&x().clamp(-1.0, 4.0)), [1.0, -1.0, 3.0, 4.0, 0.5, 4.0]);
    assert_eq!(numbers(&(x() / 2.0 - 1.0)), [-0.5, -2.0, 0.5, 1.0, -0.75, 2.25]);
}

/// The mean of two rows, one of them ignored, is the other.
#[test]
fn cross_entropy_counts_rows_that_count() {
    let targets = |targets: [u32; 2]| Tensor::new(&targets, [2], &Device::cpu());
    let log = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>().ln();
    let (first, second) = (log(&[1.0, -2.0, 3.0]) + 2.0, log(&[4.0, 0.5, 6.5]) - 4.0);
    assert_near(&x().cross_entropy(&targets([1, 0])), &[(first + second) / 2.0]);
    assert_near(&x().cross_entropy(&targets([1, u32::MAX])), &[first]);
    assert_near(&x().cross_entropy_sum(&targets([1, 0])), &[first + second]);
}
