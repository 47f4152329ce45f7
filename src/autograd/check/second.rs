//! Second order: Hessian-vector products of φ(x) = Σ w y²/2 + Σ u y, with y the op's result, three ways. The square
//! makes the cotangent move, so that linear ops are tried as well.

use super::report::larger;
use super::subject::{Subject, all_numbers, displaced, distance, dot, slope};
use super::{Kind, Report};
use crate::autograd::{Direction, grad, hvp, jvp};
use crate::tensor::Tensor;

pub(super) fn check(s: &Subject<'_>, report: &mut Report) {
    let all = s.direction(&s.moving, 3);
    Case { s, which: s.moving.clone(), v: all.clone() }.check(None, report);
    if s.moving.len() < 2 {
        return;
    }
    for (k, &i) in s.moving.iter().enumerate() {
        let v: Direction = all.iter().enumerate().map(|(j, t)| t.clone().filter(|_| j == k)).collect();
        Case { s, which: s.moving.clone(), v }.check(Some(i), report);
        Case { s, which: vec![i], v: vec![all[k].clone()] }.check(Some(i), report);
    }
}

/// Gradients wanted for the operands `which`, those with a tangent in `v` moving.
struct Case<'a> {
    s: &'a Subject<'a>,
    which: Vec<usize>,
    v: Direction,
}

impl Case<'_> {
    fn check(&self, operand: Option<usize>, report: &mut Report) {
        let exact = slope(|t| self.gradient(t));
        let reverse = self.reverse_over_reverse();
        let forward = self.forward_over_reverse();
        let mixed = self.reverse_over_forward();
        report.add(Kind::ReverseOverReverse, operand, distance(&reverse, &exact));
        report.add(Kind::ForwardOverReverse, operand, distance(&forward, &exact));
        report.add(Kind::ReverseOverForward, operand, distance(&mixed, &exact));
        let twice = distance(&[self.forward_over_forward()], &[self.along(&reverse)]);
        let modes = larger(distance(&forward, &reverse), distance(&mixed, &reverse));
        report.add(Kind::Agreement, operand, larger(modes, twice));
    }

    fn functional(&self, x: &[Tensor]) -> Tensor {
        let y = self.s.with(&self.which, x);
        let (u, w) = (self.s.random(y.shape(), 1), self.s.random(y.shape(), 2));
        (&y * &y * w).sum_all() * 0.5 + (y * u).sum_all()
    }

    /// ∇φ at x + t v.
    fn gradient(&self, t: f64) -> Vec<f64> {
        let x = displaced(&self.s.operands(&self.which), &self.v, t);
        let leaves: Vec<Tensor> = x.iter().map(Tensor::leaf).collect();
        all_numbers(&grad(&self.functional(&leaves), &leaves.iter().collect::<Vec<_>>(), false))
    }

    fn reverse_over_reverse(&self) -> Vec<f64> {
        let leaves = self.s.leaves(&self.which);
        let wrt: Vec<&Tensor> = leaves.iter().collect();
        let gradient = grad(&self.functional(&leaves), &wrt, true);
        let along = gradient.iter().zip(&self.v).filter_map(|(g, v)| v.as_ref().map(|v| (g * v).sum_all()));
        let along = along.reduce(|a, b| a + b).expect("something moves");
        all_numbers(&grad(&along, &wrt, false))
    }

    fn forward_over_reverse(&self) -> Vec<f64> {
        let x = self.s.operands(&self.which);
        all_numbers(&hvp(|x| self.functional(x), &x, std::slice::from_ref(&self.v)).products[0])
    }

    fn reverse_over_forward(&self) -> Vec<f64> {
        let leaves = self.s.leaves(&self.which);
        let along = self.slope_along(&leaves);
        all_numbers(&grad(&along, &leaves.iter().collect::<Vec<_>>(), false))
    }

    /// vᵀ H v.
    fn forward_over_forward(&self) -> f64 {
        let x = self.s.operands(&self.which);
        let twice = jvp(|x| self.slope_along(x), &x, std::slice::from_ref(&self.v)).1.remove(0);
        twice.item().expect("a scalar on the host")
    }

    /// ⟨∇φ, v⟩, by forward mode.
    fn slope_along(&self, x: &[Tensor]) -> Tensor {
        jvp(|x| self.functional(x), x, std::slice::from_ref(&self.v)).1.remove(0)
    }

    /// ⟨v, h⟩.
    fn along(&self, h: &[f64]) -> f64 {
        let zero = |k: usize| self.s.ins[self.which[k]].zeros_like();
        let v: Vec<Tensor> = self.v.iter().enumerate().map(|(k, v)| v.clone().unwrap_or_else(|| zero(k))).collect();
        dot(&all_numbers(&v), h)
    }
}
