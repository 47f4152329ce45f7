//! First order: both modes against differences and against each other.

use super::subject::{Subject, all_numbers, apart, displaced, distance, dot, norm, numbers, slope};
use super::{Kind, Report};
use crate::autograd::{Derivative, Direction, LeafId, jvp, vjp};
use crate::tensor::Tensor;

/// ∂y/∂xᵢ as columns, one for each element of operand i.
type Jacobian = Vec<Vec<f64>>;

pub(super) fn check(s: &Subject<'_>, report: &mut Report) {
    let reverse = by_reverse(s);
    let forward: Vec<Jacobian> = s.moving.iter().map(|&i| by_forward(s, i)).collect();
    for (k, &i) in s.moving.iter().enumerate() {
        let exact = by_differences(s, i).concat();
        report.add(Kind::Vjp, Some(i), distance(&reverse[k].concat(), &exact));
        report.add(Kind::Jvp, Some(i), distance(&forward[k].concat(), &exact));
    }
    for draw in 0..3 {
        report.add(Kind::Dot, None, dot_test(s, draw));
    }
    for subset in s.subsets() {
        let operand = if let [i] = subset[..] { Some(i) } else { None };
        report.add(Kind::Subsets, operand, subset_of_reverse(s, &subset));
        report.add(Kind::Subsets, operand, subset_of_forward(s, &subset));
    }
    report.add(Kind::Directions, None, directions(s));
    composition(s, report);
}

/// The rule of an op that rounds its result: the cotangent, cast back.
pub(super) fn check_cast(s: &Subject<'_>, report: &mut Report) {
    for &i in &s.moving {
        let x = s.ins[i].leaf();
        let y = s.with(&[i], std::slice::from_ref(&x));
        let c = s.random(y.shape(), 0).cast(y.dtype());
        let pulled = vjp(&y, &c, &[&x], false);
        report.add(Kind::Vjp, Some(i), apart(&pulled, &[c]));
    }
}

fn by_differences(s: &Subject<'_>, i: usize) -> Jacobian {
    let x = s.operands(&[i]);
    let column = |k: usize| {
        let unit = vec![Some(s.unit(x[0].shape(), k))];
        slope(|t| numbers(&s.with(&[i], &displaced(&x, &unit, t))))
    };
    (0..x[0].count()).map(column).collect()
}

/// Row after row, for all operands together.
fn by_reverse(s: &Subject<'_>) -> Vec<Jacobian> {
    let leaves = s.leaves(&s.moving);
    let y = s.with(&s.moving, &leaves);
    let wrt: Vec<&Tensor> = leaves.iter().collect();
    let mut columns: Vec<Jacobian> = leaves.iter().map(|x| vec![Vec::new(); x.count()]).collect();
    for k in 0..y.count() {
        for (columns, row) in columns.iter_mut().zip(vjp(&y, &s.unit(y.shape(), k), &wrt, false)) {
            columns.iter_mut().zip(numbers(&row)).for_each(|(column, x)| column.push(x));
        }
    }
    columns
}

/// All columns in one pass.
fn by_forward(s: &Subject<'_>, i: usize) -> Jacobian {
    let x = s.operands(&[i]);
    let units: Vec<Direction> = (0..x[0].count()).map(|k| vec![Some(s.unit(x[0].shape(), k))]).collect();
    jvp(|x| s.with(&[i], x), &x, &units).1.iter().map(numbers).collect()
}

/// |⟨u, Jv⟩ − ⟨Jᵀu, v⟩| / (‖u‖ ‖Jv‖).
fn dot_test(s: &Subject<'_>, draw: usize) -> f64 {
    let v = s.direction(&s.moving, draw);
    let pushed = numbers(&push(s, &s.moving, &v));
    let (u, pulled) = pull(s, &s.moving, draw);
    let along: Vec<f64> = v.iter().flatten().flat_map(numbers).collect();
    let difference = dot(&u, &pushed) - dot(&all_numbers(&pulled), &along);
    difference.abs() / (norm(&u) * norm(&pushed)).max(f64::MIN_POSITIVE)
}

/// Tangent of the result along one direction of the operands `which`.
fn push(s: &Subject<'_>, which: &[usize], v: &Direction) -> Tensor {
    jvp(|x| s.with(which, x), &s.operands(which), std::slice::from_ref(v)).1.remove(0)
}

/// A random cotangent, and what it gives for the operands `which` when only they are leaves.
fn pull(s: &Subject<'_>, which: &[usize], draw: usize) -> (Vec<f64>, Vec<Tensor>) {
    let leaves = s.leaves(which);
    let y = s.with(which, &leaves);
    let u = s.random(y.shape(), 100 * draw + 99);
    let pulled = vjp(&y, &u, &leaves.iter().collect::<Vec<_>>(), false);
    (numbers(&u), pulled)
}

fn subset_of_reverse(s: &Subject<'_>, subset: &[usize]) -> f64 {
    let all = pull(s, &s.moving, 0).1;
    let part = pull(s, subset, 0).1;
    let same = |i: &usize| s.moving.iter().position(|j| j == i).expect("a subset of what moves");
    let expected: Vec<Tensor> = subset.iter().map(|i| all[same(i)].clone()).collect();
    apart(&part, &expected)
}

/// Operands that do not move, against the same with tangents of zeros.
fn subset_of_forward(s: &Subject<'_>, subset: &[usize]) -> f64 {
    let v = s.direction(subset, 0);
    let tangent = |i: &usize| match subset.iter().position(|j| j == i) {
        Some(k) => v[k].clone(),
        None => Some(s.ins[*i].zeros_like()),
    };
    let filled: Direction = s.moving.iter().map(tangent).collect();
    let absent: Direction = s.moving.iter().map(|i| tangent(i).filter(|_| subset.contains(i))).collect();
    let all = push(s, &s.moving, &filled);
    let constants = apart(&[push(s, subset, &v)], std::slice::from_ref(&all));
    super::report::larger(constants, apart(&[push(s, &s.moving, &absent)], &[all]))
}

/// Two directions, one that does not move, and one in which only the first operand moves.
fn directions(s: &Subject<'_>) -> f64 {
    let first_only = s.direction(&s.moving, 2).into_iter().enumerate().map(|(k, t)| t.filter(|_| k == 0)).collect();
    let still = vec![None; s.moving.len()];
    let directions = [s.direction(&s.moving, 0), still, s.direction(&s.moving, 1), first_only];
    let together = jvp(|x| s.with(&s.moving, x), &s.operands(&s.moving), &directions).1;
    let one_by_one: Vec<Tensor> = directions.iter().map(|v| push(s, &s.moving, v)).collect();
    apart(&together, &one_by_one)
}

/// Kernels against what they stand for.
fn composition(s: &Subject<'_>, report: &mut Report) {
    match s.sample.op.derivative() {
        Derivative::Fused(rule) => {
            let composed = |x: &[Tensor]| {
                let mut ins = s.ins.clone();
                s.moving.iter().zip(x).for_each(|(&i, x)| ins[i] = x.clone());
                rule.composition(&ins)
            };
            let x = s.operands(&s.moving);
            let directions = [s.direction(&s.moving, 0), s.direction(&s.moving, 1)];
            let (y, pushed) = jvp(composed, &x, &directions);
            let leaves = s.leaves(&s.moving);
            let (u, pulled) = pull(s, &s.moving, 0);
            let u = Tensor::new(&u, *y.shape(), &s.device);
            let expected = vjp(&composed(&leaves), &u, &leaves.iter().collect::<Vec<_>>(), false);
            report.add(Kind::Composition, None, apart(&[s.value()], &[y]));
            for ((&i, pulled), expected) in s.moving.iter().zip(pulled).zip(expected) {
                report.add(Kind::Composition, Some(i), apart(&[pulled], &[expected]));
            }
            let own: Vec<Tensor> = directions.iter().map(|v| push(s, &s.moving, v)).collect();
            report.add(Kind::Composition, None, apart(&own, &pushed));
        }
        Derivative::Elementwise(local) => {
            let y = s.value();
            let c = s.random(y.shape(), 0);
            let saved = if local.saves_output() { &y } else { &s.ins[0] };
            report.add(Kind::Composition, None, apart(&[local.scale(&c, saved)], &[&c * &local.slope(saved)]));
        }
        _ => {}
    }
    for &i in &s.moving {
        report.add(Kind::Composition, Some(i), factored(s, i));
    }
}

/// The gradient of operand `i` as factors, multiplied out, against the dense one.
fn factored(s: &Subject<'_>, i: usize) -> f64 {
    let leaf = s.ins[i].leaf_as(LeafId::new(), true);
    let y = s.with(&[i], std::slice::from_ref(&leaf));
    let u = s.random(y.shape(), 99);
    apart(&vjp(&y, &u, &[&leaf], false), &pull(s, &[i], 0).1)
}
