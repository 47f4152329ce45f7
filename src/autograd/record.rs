//! Applying an op: peel tangents, run the kernel, record what backward needs.

use super::{Derivative, Saved, Saves, fused};
use crate::device::observe::{self, Stage};
use crate::device::{Array, Device, Spec};
use crate::ops::{self, Op, Outputs};
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One counter for leaves, recorded ops and levels, so that their numbers tell which began first.
static NEXT: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Which leaf a gradient belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeafId(pub(crate) u64);

impl LeafId {
    /// An identity that no other leaf has.
    pub(crate) fn new() -> LeafId {
        LeafId(next_id())
    }
}

/// Where a tensor came from: what backward needs of it and no more.
pub(crate) struct Trace {
    pub id: u64,
    /// Number of the oldest leaf it depends on.
    pub oldest: u64,
    /// Whether its gradient is wanted as factors.
    pub factored: bool,
    /// Shape of the tensor.
    pub shape: Shape,
    /// `None` for a leaf.
    pub node: Option<Node>,
}

/// A recorded op.
pub(crate) struct Node {
    pub op: Arc<dyn Op>,
    pub parents: Vec<Option<Arc<Trace>>>,
    /// What the result was added to: its cotangent is that of the sum.
    pub base: Option<Arc<Trace>>,
    pub saved: Saved,
}

impl Node {
    /// All that it came from.
    pub fn below(&self) -> impl Iterator<Item = &Arc<Trace>> {
        self.parents.iter().flatten().chain(&self.base)
    }
}

impl Trace {
    pub fn leaf(id: LeafId, factored: bool, shape: Shape) -> Arc<Trace> {
        Arc::new(Trace { id: id.0, oldest: id.0, factored, shape, node: None })
    }
}

/// A deep graph would overflow the stack if dropped by recursion.
impl Drop for Trace {
    fn drop(&mut self) {
        let mut stack: Vec<Arc<Trace>> = Vec::new();
        let take = |trace: &mut Trace, stack: &mut Vec<Arc<Trace>>| {
            if let Some(node) = trace.node.take() {
                stack.extend(node.parents.into_iter().flatten().chain(node.base));
            }
        };
        take(self, &mut stack);
        while let Some(parent) = stack.pop() {
            if let Some(mut parent) = Arc::into_inner(parent) {
                take(&mut parent, &mut stack);
            }
        }
    }
}

/// Applies an op to tensors; panics, at the caller's line, on operands that do not fit.
#[track_caller]
pub(crate) fn apply(op: Arc<dyn Op>, ins: &[&Tensor]) -> Tensor {
    let specs: Vec<Spec> = ins.iter().map(|t| t.value.spec()).collect();
    let out = match op.infer(&specs) {
        Ok(spec) => spec,
        Err(problem) => panic!("{}: {problem}", op.name()),
    };
    if op.contiguous() && ins.iter().any(|t| !t.value.contiguous()) {
        let ins: Vec<Tensor> = ins.iter().map(|t| t.contiguous()).collect();
        return forward(op, &ins.iter().collect::<Vec<_>>(), out, false).0;
    }
    forward(op, ins, out, false).0
}

/// `sum` plus the op's result, in the storage of `sum` and by one kernel where the op can add, nothing else refers to
/// that storage, and nothing moves along tangents.
#[track_caller]
pub(crate) fn apply_onto(op: Arc<dyn Op>, ins: &[&Tensor], mut sum: Tensor) -> Tensor {
    let specs: Vec<Spec> = ins.iter().map(|t| t.value.spec()).collect();
    match op.infer(&specs) {
        Ok(spec) => assert_eq!(spec, sum.value.spec(), "{}: added to what it does not fit", op.name()),
        Err(problem) => panic!("{}: {problem}", op.name()),
    }
    let fits = |t: &&Tensor| t.lifted.is_none() && (!op.contiguous() || t.value.contiguous());
    if !op.adds() || !sum.value.owned() || sum.lifted.is_some() || !ins.iter().all(fits) {
        return sum.sum_with(apply(op, ins));
    }
    let traced = ins.iter().any(|t| t.trace.is_some()) && !matches!(op.derivative(), Derivative::Zero);
    let device = sum.device().clone();
    let mut kept: Vec<Array> = match traced {
        true => op.residuals(&specs).into_iter().map(|spec| device.alloc(spec)).collect(),
        false => Vec::new(),
    };
    let arrays: Vec<&Array> = ins.iter().map(|t| &t.value).collect();
    launch(&device, &*op, &arrays, &mut sum.value, &mut kept, true);
    if !traced {
        return sum;
    }
    let base = sum.trace.take();
    record(op, ins, ins.iter().map(|t| t.trace.clone()).collect(), base, sum, Some(kept))
}

/// What a forward pass leaves: the result, and residuals unless it ran as the composition or kept none.
pub(super) type Forward = (Tensor, Option<Vec<Array>>);

fn forward(op: Arc<dyn Op>, ins: &[&Tensor], out: Spec, keep: bool) -> Forward {
    match ins.iter().filter_map(|t| t.level()).max() {
        None => plain(op, ins, out, keep),
        Some(level) => lifted(level, op, ins, out, keep),
    }
}

/// No tangents: one kernel, and a trace if an operand has one.
fn plain(op: Arc<dyn Op>, ins: &[&Tensor], out: Spec, keep: bool) -> Forward {
    let traced = ins.iter().any(|t| t.trace.is_some()) && !matches!(op.derivative(), Derivative::Zero);
    let arrays: Vec<&Array> = ins.iter().map(|t| &t.value).collect();
    let (value, residuals) = run(&*op, &arrays, out, keep || traced);
    let y = Tensor { value, trace: None, lifted: None };
    let residuals = Some(residuals);
    if !traced {
        return (y, residuals);
    }
    let traces: Vec<_> = ins.iter().map(|t| t.trace.clone()).collect();
    let kept = if keep { residuals.clone() } else { None };
    (record(op, ins, traces, None, y, residuals), kept)
}

/// Runs the kernel, or makes the view.
fn run(op: &dyn Op, ins: &[&Array], out: Spec, residuals: bool) -> (Array, Vec<Array>) {
    if let Some(view) = op.view(ins[0]) {
        return (view, Vec::new());
    }
    let device = ins[0].device().clone();
    let mut y = device.alloc(out);
    if !residuals {
        launch(&device, op, ins, &mut y, &mut [], false);
        return (y, Vec::new());
    }
    let specs: Vec<Spec> = ins.iter().map(|a| a.spec()).collect();
    let mut kept: Vec<Array> = op.residuals(&specs).into_iter().map(|spec| device.alloc(spec)).collect();
    launch(&device, op, ins, &mut y, &mut kept, false);
    (y, kept)
}

fn launch(device: &Device, op: &dyn Op, ins: &[&Array], y: &mut Array, residuals: &mut [Array], add: bool) {
    let specs: Vec<Spec> = ins.iter().map(|a| a.spec()).collect();
    let mut scratch = op.scratch(&specs).filter(|_| !device.is_gpu()).map(|spec| device.scratch(spec));
    if y.count() > 0 {
        let scratch = scratch.as_mut();
        let kernel = |y: &mut Array| ops::run(op, ins, Outputs { y, residuals, scratch, add });
        observe::launch(op.name(), Stage::Forward, y, kernel, |y| vec![y]);
    }
}

/// Tangents at `level`: the op on what lies below, its rule on the tangents, and a trace over both.
fn lifted(level: u64, op: Arc<dyn Op>, ins: &[&Tensor], out: Spec, keep: bool) -> Forward {
    let traces: Vec<_> = ins.iter().map(|t| over(t, level)).collect();
    let traced = traces.iter().any(Option::is_some) && !matches!(op.derivative(), Derivative::Zero);
    let lowered: Vec<(Tensor, &[Option<Tensor>])> = ins.iter().map(|t| t.lower(level)).collect();
    let primals: Vec<&Tensor> = lowered.iter().map(|(primal, _)| primal).collect();
    let (y, residuals) = if out.shape.count() > 0 && fused::needs_composition(&*op, &lowered) {
        let Derivative::Fused(fused) = op.derivative() else { unreachable!("only fused ops have compositions") };
        let plain: Vec<Tensor> =
            ins.iter().map(|t| if over(t, level).is_some() { t.untraced() } else { (*t).clone() }).collect();
        (fused.composition(&plain), None)
    } else {
        let (y, residuals) =
            forward(op.clone(), &primals, out, keep || traced || fused::has_kernels(&*op, ins[0].device()));
        let directions = lowered.iter().map(|(_, tangents)| tangents.len()).max().unwrap_or(0);
        let tangents = (0..directions)
            .map(|k| {
                let along: Vec<Option<Tensor>> = lowered.iter().map(|(_, t)| t.get(k).cloned().flatten()).collect();
                push(&op, &primals, &y, residuals.as_deref(), &along)
            })
            .collect();
        (y.lift(level, tangents), residuals)
    };
    if !traced {
        return (y, residuals);
    }
    let kept = if keep { residuals.clone() } else { None };
    (record(op, ins, traces, None, y, residuals), kept)
}

/// The trace that lies over the tangents of `level`, if any.
fn over(t: &Tensor, level: u64) -> Option<Arc<Trace>> {
    let outer = t.level() == Some(level) || t.traced_above(level);
    t.trace.clone().filter(|_| outer)
}

/// Tangent of the result along one direction; `None` if it does not move.
fn push(
    op: &Arc<dyn Op>,
    ins: &[&Tensor],
    y: &Tensor,
    residuals: Option<&[Array]>,
    along: &[Option<Tensor>],
) -> Option<Tensor> {
    if along.iter().all(Option::is_none) {
        return None;
    }
    match op.derivative() {
        Derivative::Zero => None,
        Derivative::Elementwise(local) => {
            let saved = if local.saves_output() { y } else { ins[0] };
            Some(local.scale(along[0].as_ref()?, saved))
        }
        Derivative::Linear(linear) => {
            let moving: Vec<usize> = (0..along.len()).filter(|&i| along[i].is_some()).collect();
            if let [i] = moving[..]
                && let Some(partial) = linear.partial(i, along[i].as_ref()?, &y.value.spec())
            {
                return Some(partial);
            }
            let filled: Vec<Tensor> =
                along.iter().zip(ins).map(|(t, x)| t.clone().unwrap_or_else(|| x.zeros_like())).collect();
            Some(apply(op.clone(), &filled.iter().collect::<Vec<_>>()))
        }
        Derivative::Bilinear(_) => {
            let left = along[0].as_ref().map(|t| apply(op.clone(), &[t, ins[1]]));
            match (left, &along[1]) {
                (Some(left), Some(t)) => Some(apply_onto(op.clone(), &[ins[0], t], left)),
                (None, Some(t)) => Some(apply(op.clone(), &[ins[0], t])),
                (left, None) => left,
            }
        }
        Derivative::Custom(rule) => {
            let ins: Vec<Tensor> = ins.iter().map(|&t| t.clone()).collect();
            rule.jvp(&ins, y, along)
        }
        Derivative::Fused(rule) => fused::push(op.name(), rule, ins, y, residuals, along),
    }
}

/// `y` with a trace: it came of `op` on `ins`, which had the traces `parents`, perhaps added to what had the trace `base`.
pub(crate) fn record(
    op: Arc<dyn Op>,
    ins: &[&Tensor],
    parents: Vec<Option<Arc<Trace>>>,
    base: Option<Arc<Trace>>,
    y: Tensor,
    residuals: Option<Vec<Array>>,
) -> Tensor {
    let needs: Vec<bool> = parents.iter().map(Option::is_some).collect();
    let saves = saves(&*op, &needs);
    let saved = Saved {
        inputs: ins.iter().enumerate().map(|(i, t)| saves.input(i).then(|| t.untraced())).collect(),
        output: saves.output.then(|| y.untraced()),
        residuals,
        specs: ins.iter().map(|t| t.value.spec()).collect(),
    };
    let node = Node { op, parents, base, saved };
    let oldest = node.below().map(|parent| parent.oldest).min().unwrap_or(0);
    let node = Some(node);
    let trace = Arc::new(Trace { id: next_id(), oldest, factored: false, shape: *y.shape(), node });
    Tensor { trace: Some(trace), ..y }
}

fn saves(op: &dyn Op, needs: &[bool]) -> Saves {
    match op.derivative() {
        Derivative::Zero | Derivative::Linear(_) => Saves::NONE,
        Derivative::Elementwise(local) if local.saves_output() => Saves::OUTPUT,
        Derivative::Elementwise(_) => Saves::inputs(&[0]),
        Derivative::Bilinear(_) => match needs {
            [true, true] => Saves::inputs(&[0, 1]),
            [true, _] => Saves::inputs(&[1]),
            _ => Saves::inputs(&[0]),
        },
        Derivative::Custom(rule) => rule.saves(needs),
        Derivative::Fused(rule) => rule.saves(needs),
    }
}
