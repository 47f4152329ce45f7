//! Strided views as operands, cotangents and tangents: they give what contiguous copies give.

use super::subject::{Subject, apart, copied};
use super::{Kind, Report};
use crate::autograd::{Derivative, jvp, vjp};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// How elements may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Last two dimensions stored in the other order.
    Transposed,
    /// A part of something larger along the last dimension.
    Sliced,
    /// Without gaps, but behind three elements of something else.
    Shifted,
    /// The first index of a dimension everywhere along it, stored once.
    Broadcast(usize),
}

impl Layout {
    /// Layouts that tensors of this many dimensions can have.
    pub fn of(x: &Tensor) -> Vec<Layout> {
        let dims = x.shape().len();
        let mut layouts: Vec<Layout> = (0..dims).map(Layout::Broadcast).chain([Layout::Shifted]).collect();
        if dims > 0 {
            layouts.push(Layout::Sliced);
        }
        if dims > 1 {
            layouts.push(Layout::Transposed);
        }
        layouts
    }

    /// The same numbers (for a broadcast, the first ones) lying so. Tangents and traces are dropped.
    pub fn lay(self, x: &Tensor) -> Tensor {
        let x = x.detach();
        match self {
            Layout::Transposed => x.t().contiguous().t(),
            Layout::Sliced => x.pad(-1, 2, 1).slice(-1, 2, x.shape().last_size()),
            Layout::Shifted => x.reshape([x.count()]).pad(0, 3, 1).slice(0, 3, x.count()).reshape(*x.shape()),
            Layout::Broadcast(axis) if x.shape()[axis] == 0 => x,
            Layout::Broadcast(axis) => x.slice(axis as isize, 0, 1).contiguous().broadcast_to(*x.shape()),
        }
    }
}

pub(super) fn check(s: &Subject<'_>, report: &mut Report) {
    for i in 0..s.ins.len() {
        for layout in Layout::of(&s.ins[i]) {
            let strided = layout.lay(&s.ins[i]);
            let plain = copied(strided.array());
            report.add(Kind::Layouts, Some(i), apart(&outcomes(s, i, &strided), &outcomes(s, i, &plain)));
        }
    }
    if differentiates(s) {
        report.add(Kind::Layouts, None, cotangents(s));
        report.add(Kind::Layouts, None, tangents(s));
    }
}

fn differentiates(s: &Subject<'_>) -> bool {
    !matches!(s.sample.op.derivative(), Derivative::Zero) && !s.moving.is_empty() && !s.rounds()
}

/// Value, cotangents and tangent with operand `i` as given.
fn outcomes(s: &Subject<'_>, i: usize, operand: &Tensor) -> Vec<Tensor> {
    let value = s.with(&[i], std::slice::from_ref(operand));
    if !differentiates(s) {
        return vec![value];
    }
    let at = |j: usize| if j == i { operand.clone() } else { s.ins[j].clone() };
    let ins: Vec<Tensor> = (0..s.ins.len()).map(at).collect();
    let apply = |x: &[Tensor]| {
        let mut ins = ins.clone();
        s.moving.iter().zip(x).for_each(|(&j, x)| ins[j] = x.clone());
        s.sample.apply(&ins.iter().collect::<Vec<_>>())
    };
    let x: Vec<Tensor> = s.moving.iter().map(|&j| ins[j].clone()).collect();
    let leaves: Vec<Tensor> = x.iter().map(Tensor::leaf).collect();
    let c = s.random(value.shape(), 4);
    let pulled = vjp(&apply(&leaves), &c, &leaves.iter().collect::<Vec<_>>(), false);
    let pushed = jvp(apply, &x, &[s.direction(&s.moving, 4)]).1;
    [vec![value], pulled, pushed].concat()
}

/// Strided cotangents against copies: the largest error.
fn cotangents(s: &Subject<'_>) -> f64 {
    let leaves = s.leaves(&s.moving);
    let wrt: Vec<&Tensor> = leaves.iter().collect();
    let y = s.with(&s.moving, &leaves);
    let c = s.random(y.shape(), 5);
    let error = |layout: Layout| {
        let strided = layout.lay(&c);
        let plain = copied(strided.array());
        apart(&vjp(&y, &strided, &wrt, false), &vjp(&y, &plain, &wrt, false))
    };
    Layout::of(&c).into_iter().map(error).fold(0.0, super::report::larger)
}

/// Strided tangents against copies: the largest error.
fn tangents(s: &Subject<'_>) -> f64 {
    let x = s.operands(&s.moving);
    let v: Vec<Tensor> = s.direction(&s.moving, 6).into_iter().flatten().collect();
    let error = |k: usize, layout: Layout| {
        let strided = layout.lay(&v[k]);
        debug_assert_eq!(strided.dtype(), DType::F64);
        let with = |t: Tensor| {
            let direction = v.iter().enumerate().map(|(j, v)| Some(if j == k { t.clone() } else { v.clone() }));
            jvp(|x| s.with(&s.moving, x), &x, &[direction.collect()]).1
        };
        apart(&with(strided.clone()), &with(copied(strided.array())))
    };
    let cases = (0..v.len()).flat_map(|k| Layout::of(&v[k]).into_iter().map(move |layout| (k, layout)));
    cases.map(|(k, layout)| error(k, layout)).fold(0.0, super::report::larger)
}
