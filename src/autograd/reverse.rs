//! Reverse mode: walks the traces, newest first, and frees them as it goes.

use super::record::{LeafId, Node, Trace, apply_onto};
use super::{Derivative, Factors, Gradient, Saved, fused};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Walks back from a scalar and hands each leaf's gradient to `sink` right after the leaf's last use.
///
/// Takes the loss by value so that what backward no longer needs is freed on the way; where the caller keeps no
/// other tensor of the graph, a leaf's storage is unique by the time its gradient arrives.
#[track_caller]
pub fn backward(loss: Tensor, sink: &mut dyn FnMut(LeafId, Gradient)) {
    let seed = seed(&loss);
    walk(loss, seed, &Want::Leaves, false, sink);
}

/// Gradients of the scalar `y`, one for each of `wrt`; zero where `y` does not depend on it. With `differentiable`
/// the gradients carry traces of their own.
#[track_caller]
pub fn grad(y: &Tensor, wrt: &[&Tensor], differentiable: bool) -> Vec<Tensor> {
    gradients(y.clone(), seed(y), wrt, differentiable)
}

/// Cotangents of `wrt` for cotangent `c` of `y`.
#[track_caller]
pub fn vjp(y: &Tensor, c: &Tensor, wrt: &[&Tensor], differentiable: bool) -> Vec<Tensor> {
    assert_eq!(y.shape(), c.shape(), "vjp: a cotangent has the shape of its tensor");
    gradients(y.clone(), c.clone(), wrt, differentiable)
}

/// Like [`grad`], with the graph freed on the way.
pub(crate) fn gradients(y: Tensor, c: Tensor, wrt: &[&Tensor], differentiable: bool) -> Vec<Tensor> {
    let ids: Vec<Option<u64>> = wrt.iter().map(|t| t.trace.as_ref().map(|trace| trace.id)).collect();
    let want = Want::These { ids: ids.iter().flatten().copied().collect(), stop: false };
    let mut found = collect(y, c, &want, differentiable);
    let gradient = |(id, t): (Option<u64>, &&Tensor)| {
        let found = id.and_then(|id| found.get_mut(&id)).and_then(|g| g.dense.clone());
        found.unwrap_or_else(|| t.zeros_like())
    };
    ids.into_iter().zip(wrt).map(gradient).collect()
}

/// Cotangents of `wrt`, taken as independent of each other; `None` where `y` does not depend on one.
pub(super) fn pull_back(y: Tensor, c: Tensor, wrt: &[&Tensor], differentiable: bool) -> Vec<Option<Tensor>> {
    let ids: Vec<u64> = wrt.iter().filter_map(|t| t.trace.as_ref().map(|trace| trace.id)).collect();
    let want = Want::These { ids: ids.iter().copied().collect(), stop: true };
    let mut found = collect(y, c, &want, differentiable);
    ids.iter().map(|id| found.remove(id).and_then(|g| g.dense)).collect()
}

fn collect(y: Tensor, c: Tensor, want: &Want, differentiable: bool) -> HashMap<u64, Gradient> {
    let mut found = HashMap::new();
    walk(y, c, want, differentiable, &mut |id, gradient| {
        let dense = Gradient { shape: gradient.shape, dense: gradient.densify(), factors: Vec::new() };
        found.insert(id.0, dense);
    });
    found
}

#[track_caller]
fn seed(y: &Tensor) -> Tensor {
    assert_eq!(y.count(), 1, "a gradient is that of a scalar, not of shape {:?}", y.shape());
    y.ones_like()
}

/// What the walk is for.
enum Want {
    /// Every leaf.
    Leaves,
    /// Leaves or intermediate tensors by trace number; with `stop`, nothing below them.
    These { ids: HashSet<u64>, stop: bool },
}

impl Want {
    fn has(&self, trace: &Trace) -> bool {
        match self {
            Want::Leaves => trace.node.is_none(),
            Want::These { ids, .. } => ids.contains(&trace.id),
        }
    }

    fn goes_below(&self, trace: &Trace) -> bool {
        trace.node.is_some() && !matches!(self, Want::These { ids, stop: true } if ids.contains(&trace.id))
    }
}

/// A trace that waits for cotangents from its uses.
struct Pending {
    uses: usize,
    gradient: Gradient,
}

/// Kahn's algorithm: leaves as soon as they are ready, so that their gradients do not pile up; else the newest first.
fn walk(y: Tensor, c: Tensor, want: &Want, differentiable: bool, sink: &mut dyn FnMut(LeafId, Gradient)) {
    let Some(root) = y.trace.clone() else { return };
    drop(y);
    let mut pending = count_uses(&root, want);
    let Some(start) = pending.get_mut(&root.id) else { return };
    start.gradient.add(c);
    let mut ready = Ready::from([(order(&root), root)]);
    while let Some(((_, id), trace)) = ready.pop_last() {
        let gradient = pending.remove(&id).expect("only pending traces become ready").gradient;
        let below = want.goes_below(&trace);
        let wanted = want.has(&trace);
        if wanted && !below {
            sink(LeafId(id), gradient);
            continue;
        }
        let Some(c) = gradient.densify() else {
            skip(&trace, &mut pending, &mut ready);
            continue;
        };
        if wanted {
            sink(LeafId(id), Gradient { dense: Some(c.clone()), ..Gradient::new(trace.shape) });
        }
        step(trace, c, differentiable, &mut pending, &mut ready);
    }
}

type Ready = BTreeMap<(bool, u64), Arc<Trace>>;

fn order(trace: &Trace) -> (bool, u64) {
    (trace.node.is_none(), trace.id)
}

/// Hands cotangents to the parents of one op.
fn step(trace: Arc<Trace>, c: Tensor, differentiable: bool, pending: &mut HashMap<u64, Pending>, ready: &mut Ready) {
    let node = trace.node.as_ref().expect("leaves have no parents");
    let mut needs: Vec<bool> =
        node.parents.iter().map(|p| p.as_ref().is_some_and(|p| pending.contains_key(&p.id))).collect();
    if !differentiable {
        add_on(node, &c, &mut needs, pending);
    }
    let cotangents = pull(&trace, node, &c, &needs, differentiable);
    let (parents, base) = (node.parents.clone(), node.base.clone());
    drop(trace); // frees what this op saved, before the next op allocates
    match base {
        Some(base) => settle(base, Part::Dense(c), pending, ready),
        None => drop(c),
    }
    for (parent, part) in parents.into_iter().zip(cotangents) {
        if let Some(parent) = parent {
            settle(parent, part, pending, ready);
        }
    }
}

/// Adds to what parents have, where a rule can do that in place: then they need nothing more of this op.
fn add_on(node: &Node, c: &Tensor, needs: &mut [bool], pending: &mut HashMap<u64, Pending>) {
    let Derivative::Custom(rule) = node.op.derivative() else { return };
    for (i, needed) in needs.iter_mut().enumerate().filter(|(_, needed)| **needed) {
        let parent = node.parents[i].as_ref().and_then(|parent| pending.get_mut(&parent.id));
        let Some(Pending { gradient: Gradient { dense, .. }, .. }) = parent else { continue };
        if let Some((op, ins)) = dense.as_ref().and_then(|_| rule.vjp_op(i, &node.saved, c)) {
            let ins: Vec<&Tensor> = ins.iter().collect();
            *dense = dense.take().map(|sum| apply_onto(op, &ins, sum));
            *needed = false;
        }
    }
}

/// A parent's use is done, with or without a cotangent.
fn settle(parent: Arc<Trace>, part: Part, pending: &mut HashMap<u64, Pending>, ready: &mut Ready) {
    let Some(entry) = pending.get_mut(&parent.id) else { return };
    match part {
        Part::Nothing => {}
        Part::Dense(c) => entry.gradient.add(c),
        Part::Factored(factors) => entry.gradient.factors.push(factors),
    }
    entry.uses -= 1;
    if entry.uses == 0 {
        ready.insert(order(&parent), parent);
    }
}

/// An op whose result did not matter: its parents lose a use.
fn skip(trace: &Trace, pending: &mut HashMap<u64, Pending>, ready: &mut Ready) {
    if let Some(node) = &trace.node {
        for parent in node.below() {
            settle(parent.clone(), Part::Nothing, pending, ready);
        }
    }
}

/// Uses of each trace between `root` and what is wanted; traces that lead to nothing wanted are left out.
fn count_uses(root: &Arc<Trace>, want: &Want) -> HashMap<u64, Pending> {
    let mut all: BTreeMap<u64, &Arc<Trace>> = BTreeMap::new();
    let mut stack = vec![root];
    while let Some(trace) = stack.pop() {
        if all.insert(trace.id, trace).is_none() && want.goes_below(trace) {
            let node = trace.node.as_ref().expect("only ops have something below");
            stack.extend(node.below());
        }
    }
    // Parents are older than what came of them, so one pass in order of age sees them first.
    let mut pending: HashMap<u64, Pending> = HashMap::new();
    for (id, trace) in &all {
        let mut leads = want.has(trace);
        if want.goes_below(trace)
            && let Some(node) = &trace.node
        {
            for parent in node.below() {
                if let Some(entry) = pending.get_mut(&parent.id) {
                    entry.uses += 1;
                    leads = true;
                }
            }
        }
        if leads {
            pending.insert(*id, Pending { uses: 0, gradient: Gradient::new(trace.shape) });
        }
    }
    pending
}

/// What one use contributes to a parent's gradient.
enum Part {
    Nothing,
    Dense(Tensor),
    Factored(Factors),
}

impl From<Option<Tensor>> for Part {
    fn from(c: Option<Tensor>) -> Part {
        c.map_or(Part::Nothing, Part::Dense)
    }
}

/// Cotangents of an op's operands: factored where a weight wants it so, the rest by class.
fn pull(trace: &Arc<Trace>, node: &Node, c: &Tensor, needs: &[bool], differentiable: bool) -> Vec<Part> {
    if differentiable && needs.contains(&true) {
        return rule(node, &reattach(trace, node), c, needs, true).into_iter().map(Part::from).collect();
    }
    let factored = |i: usize| needs[i] && node.parents[i].as_ref().is_some_and(|parent| parent.factored);
    let factors: Vec<Option<Factors>> =
        (0..needs.len()).map(|i| factored(i).then(|| node.op.factors(i, &node.saved, c)).flatten()).collect();
    let rest: Vec<bool> = needs.iter().zip(&factors).map(|(&needed, factors)| needed && factors.is_none()).collect();
    let dense = match rest.contains(&true) {
        true => rule(node, &node.saved, c, &rest, false),
        false => vec![None; rest.len()],
    };
    factors.into_iter().zip(dense).map(|(factors, dense)| factors.map_or(Part::from(dense), Part::Factored)).collect()
}

/// Cotangents of an op's operands, by its class.
fn rule(node: &Node, saved: &Saved, c: &Tensor, needs: &[bool], differentiable: bool) -> Vec<Option<Tensor>> {
    let wanted = (0..needs.len()).map(|i| needs[i].then_some(i));
    match node.op.derivative() {
        Derivative::Zero => vec![None; needs.len()],
        Derivative::Linear(linear) => wanted.map(|i| i.map(|i| linear.transpose(i, c, &saved.specs))).collect(),
        Derivative::Bilinear(rule) => {
            let transpose = |i: usize| rule.transpose(i, c, saved.input(1 - i), saved.spec(i));
            wanted.map(|i| i.map(transpose)).collect()
        }
        Derivative::Elementwise(local) => {
            let s = if local.saves_output() { saved.output() } else { saved.input(0) };
            wanted.map(|i| i.map(|_| local.scale(c, s))).collect()
        }
        Derivative::Custom(rule) => rule.vjp(saved, c, needs),
        Derivative::Fused(rule) => fused::pull(node.op.name(), rule, saved, c, needs, differentiable),
    }
}

/// Saved tensors with their traces again, so that what is computed from them can be differentiated.
fn reattach(trace: &Arc<Trace>, node: &Node) -> Saved {
    let with = |t: &Option<Tensor>, trace: &Option<Arc<Trace>>| {
        t.as_ref().map(|t| Tensor { trace: trace.clone(), ..t.clone() })
    };
    Saved {
        inputs: node.saved.inputs.iter().zip(&node.parents).map(|(t, parent)| with(t, parent)).collect(),
        output: with(&node.saved.output, &Some(trace.clone())),
        residuals: node.saved.residuals.clone(),
        specs: node.saved.specs.clone(),
    }
}
