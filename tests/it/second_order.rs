//! Derivatives of derivatives, against closed forms.

use eckart::autograd::{Direction, checkpoint, gauss_newton, grad, hvp, jvp, vjp};
use eckart::ops::Input;
use eckart::{DType, Device, Seed, Shape, Tensor};

fn scalar(x: f64) -> Tensor {
    Tensor::scalar(x, &Device::cpu())
}

fn random(shape: impl Into<Shape>, seed: u64, device: &Device) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, device)
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_vec().unwrap()
}

fn assert_near(found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= bound * b.abs().max(1.0), "{a} where {b} was expected");
    }
}

fn along(v: Tensor) -> [Direction; 1] {
    [vec![Some(v)]]
}

/// df/dx by forward mode.
fn forward(f: impl FnOnce(&Tensor) -> Tensor, x: &Tensor) -> Tensor {
    jvp(|x| f(&x[0]), std::slice::from_ref(x), &along(x.ones_like())).1.remove(0)
}

/// df/dx by reverse mode, to be differentiated again.
fn reverse(f: impl FnOnce(&Tensor) -> Tensor, x: &Tensor) -> Tensor {
    // A node of its own inside this derivative, whatever came before.
    let x = if x.is_traced() { x * 1.0 } else { x.leaf() };
    grad(&f(&x), &[&x], true).remove(0)
}

/// d/dx [x d/dy (x + y)] = 1: the inner derivative does not see the outer variable move. Every mix of modes.
#[test]
fn perturbations_are_not_confused() {
    type Mode = fn(&dyn Fn(&Tensor) -> Tensor, &Tensor) -> Tensor;
    let forward: Mode = |f, x| forward(f, x);
    let reverse: Mode = |f, x| reverse(f, x);
    for outer in [forward, reverse] {
        for inner in [forward, reverse] {
            let found = outer(&|x| x * &inner(&|y| x + y, &scalar(2.0)), &scalar(3.0));
            assert_eq!(numbers(&found), [1.0]);
            // d/dx [x d/dy (x y) at y = x] = d/dx x² = 2x: the same with something to confuse it with.
            let found = outer(&|x| x * &inner(&|y| x * y, x), &scalar(3.0));
            assert_eq!(numbers(&found), [6.0]);
        }
    }
}

/// tanh''' = −2 (1 − t²)(1 − 3t²), by all eight nestings of three modes.
#[test]
fn third_derivative_of_tanh() {
    type Mode = fn(&dyn Fn(&Tensor) -> Tensor, &Tensor) -> Tensor;
    let forward: Mode = |f, x| forward(f, x);
    let reverse: Mode = |f, x| reverse(f, x);
    for x in [-1.3, 0.0, 0.4] {
        let t = f64::tanh(x);
        let expected = -2.0 * (1.0 - t * t) * (1.0 - 3.0 * t * t);
        for a in [forward, reverse] {
            for b in [forward, reverse] {
                for c in [forward, reverse] {
                    let found = a(&|x| b(&|x| c(&|x| x.tanh(), x), x), &scalar(x));
                    assert_near(&numbers(&found), &[expected], 1e-14);
                }
            }
        }
    }
}

/// d⁴/dx⁴ x⁴ = 24 by reverse over reverse over reverse over reverse.
#[test]
fn reverse_mode_nests_to_any_order() {
    let quartic = |x: &Tensor| x * x * x * x;
    let found = reverse(|x| reverse(|x| reverse(|x| reverse(quartic, x), x), x), &scalar(1.7));
    assert_near(&numbers(&found), &[24.0], 1e-14);
}

/// Column after column by Hessian-vector products along the unit vectors, all in one pass.
fn hessian(f: impl FnOnce(&Tensor) -> Tensor, w: &Tensor) -> Vec<f64> {
    let n = w.count();
    let unit = |k: usize| (0..n).map(|i| if i == k { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let units: Vec<Direction> = (0..n).map(|k| vec![Some(Tensor::new(&unit(k), *w.shape(), w.device()))]).collect();
    let found = hvp(|w| f(&w[0]), std::slice::from_ref(w), &units);
    found.products.iter().flat_map(|column| numbers(&column[0])).collect()
}

/// The same by reverse over reverse, one row at a time.
fn hessian_by_reverse(f: impl Fn(&Tensor) -> Tensor, w: &Tensor) -> Vec<f64> {
    let w = w.leaf();
    let gradient = grad(&f(&w), &[&w], true).remove(0);
    let row = |k: usize| numbers(&grad(&gradient.slice(0, k, 1).sum_all(), &[&w], false)[0]);
    (0..w.count()).flat_map(row).collect()
}

/// ½‖Xw − y‖² has the Hessian XᵀX.
#[test]
fn hessian_of_linear_regression() {
    let device = Device::cpu();
    let (x, w, y) = (random([7, 4], 1, &device), random([4, 1], 2, &device), random([7, 1], 3, &device));
    let loss = |w: &Tensor| {
        let residual = x.matmul(w) - &y;
        (&residual * &residual).sum_all() * 0.5
    };
    let expected = numbers(&x.t().matmul(&x));
    assert_near(&hessian(loss, &w), &expected, 1e-13);
    assert_near(&hessian_by_reverse(loss, &w), &expected, 1e-13);
}

/// −Σ log p(yᵢ | xᵢ) with p = σ(xᵢ w) has the Hessian Xᵀ diag(p (1 − p)) X, whatever the labels.
#[test]
fn hessian_of_logistic_regression() {
    let device = Device::cpu();
    let (x, w) = (random([9, 4], 1, &device), random([4, 1], 2, &device));
    let signs = random([9, 1], 3, &device).sign();
    let loss = |w: &Tensor| ((-(&x.matmul(w) * &signs)).exp() + 1.0).log().sum_all();
    let p = x.matmul(&w).sigmoid();
    let weighted = &x * &(&p * &(-&p + 1.0));
    let expected = numbers(&x.t().matmul(&weighted));
    assert_near(&hessian(loss, &w), &expected, 1e-13);
    assert_near(&hessian_by_reverse(loss, &w), &expected, 1e-13);
}

/// What does not depend on a variable has a gradient, a tangent and a curvature of zeros there.
#[test]
fn absent_dependence_is_zero() {
    let device = Device::cpu();
    let (x, y) = (random([3], 1, &device), random([2], 2, &device));
    let f = |v: &[Tensor]| (&v[0] * &v[0]).sum_all();
    let still = vec![None, Some(y.ones_like())];
    let (_, tangents) = jvp(f, &[x.clone(), y.clone()], std::slice::from_ref(&still));
    assert_eq!(numbers(&tangents[0]), [0.0]);
    let found = hvp(f, &[x.clone(), y.clone()], &[still]);
    assert_eq!(numbers(&found.products[0][0]), [0.0; 3]);
    assert_eq!(numbers(&found.gradient[1]), [0.0; 2]);
    let (x, y) = (x.leaf(), y.leaf());
    assert_eq!(numbers(&grad(&f(&[x, y.clone()]), &[&y], false)[0]), [0.0; 2]);
}

/// A segment with a curvature in both operands and between them.
fn segment(x: &[Tensor]) -> Tensor {
    x[0].matmul(&x[1]).tanh().exp().sin()
}

/// First and second derivatives of ½‖f(x, w)‖² in every mix of modes.
fn derivatives(f: &dyn Fn(&[Tensor]) -> Tensor, at: &[Tensor], v: &Direction) -> Vec<Vec<f64>> {
    let loss = |x: &[Tensor]| {
        let y = f(x);
        (&y * &y).sum_all() * 0.5
    };
    let leaves: Vec<Tensor> = at.iter().map(Tensor::leaf).collect();
    let wrt: Vec<&Tensor> = leaves.iter().collect();
    let first = grad(&loss(&leaves), &wrt, true);
    let along = first.iter().zip(v.iter().flatten()).map(|(g, v)| (g * v).sum_all()).reduce(|a, b| a + b).unwrap();
    let forward = |x: &[Tensor]| jvp(loss, x, std::slice::from_ref(v)).1.remove(0);
    let twice = jvp(forward, at, std::slice::from_ref(v)).1;
    let mixed = grad(&forward(&leaves), &wrt, false);
    let products = hvp(loss, at, std::slice::from_ref(v)).products.remove(0);
    let all = [first, grad(&along, &wrt, false), twice, mixed, products].concat();
    all.iter().map(|t| numbers(&t.detach())).collect()
}

#[test]
fn checkpoints_change_no_derivative() {
    let device = Device::cpu();
    let at = [random([3, 4], 1, &device), random([4, 2], 2, &device)];
    let v: Direction = vec![Some(random([3, 4], 3, &device)), Some(random([4, 2], 4, &device))];
    let again = |x: &[Tensor]| checkpoint(segment, &x.iter().collect::<Vec<_>>());
    let (kept, replayed) = (derivatives(&segment, &at, &v), derivatives(&again, &at, &v));
    assert_eq!(kept.len(), 9);
    kept.iter().zip(&replayed).for_each(|(kept, replayed)| assert_near(replayed, kept, 1e-13));
}

#[test]
fn checkpoints_keep_their_operands_alone() {
    let device = Device::cpu();
    let (x, w) = (random([30, 40], 1, &device).leaf(), random([40, 20], 2, &device).leaf());
    let held = |f: &dyn Fn() -> Tensor| {
        let before = device.ledger().live().total();
        let y = f();
        let held = device.ledger().live().total() - before;
        (held, y.count() as u64 * 8)
    };
    let (kept, result) = held(&|| segment(&[x.clone(), w.clone()]));
    let (replayed, _) = held(&|| checkpoint(segment, &[&x, &w]));
    assert_eq!(replayed, result);
    assert!(kept >= 3 * result, "{kept} bytes kept");
}

/// Jᵀ H J v put together from its three factors; the model's own curvature has no part in it.
#[test]
fn gauss_newton_leaves_out_the_curvature_of_the_model() {
    let device = Device::cpu();
    let (x, w, v) = (random([7, 4], 1, &device), random([4, 2], 2, &device), random([4, 2], 3, &device));
    let weights = random([7, 2], 4, &device).exp();
    let model = |w: &[Tensor]| x.matmul(&w[0]).tanh();
    let loss = |y: &Tensor| (y * y * &weights).sum_all() * 0.5;
    let direction = vec![Some(v.clone())];
    let found = gauss_newton(model, loss, std::slice::from_ref(&w), &direction);
    let moved = jvp(model, std::slice::from_ref(&w), std::slice::from_ref(&direction)).1.remove(0);
    let leaf = w.leaf();
    let expected = vjp(&model(std::slice::from_ref(&leaf)), &(moved * &weights), &[&leaf], false);
    assert_near(&numbers(&found[0]), &numbers(&expected[0]), 1e-13);
    let whole = hvp(|w| loss(&model(w)), std::slice::from_ref(&w), &[direction]).products.remove(0);
    assert!(numbers(&(&found[0] - &whole[0])).iter().any(|gap| gap.abs() > 1e-2));
}
