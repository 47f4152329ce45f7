//! Fused ops: kernels where the operands are plain, tangent kernels for one level of tangents, the composition for
//! everything else.

use super::{Derivative, Fused, Pull, Push, Saved, SavedArrays, reverse};
use crate::device::observe::{self, Stage};
use crate::device::{Array, Device, Spec};
use crate::ops::Op;
use crate::tensor::Tensor;

/// Operands taken apart at one level.
type Lowered<'a> = (Tensor, &'a [Option<Tensor>]);

/// Whether a forward pass with tangents has to run as the composition.
pub(super) fn needs_composition(op: &dyn Op, ins: &[Lowered<'_>]) -> bool {
    let Derivative::Fused(rule) = op.derivative() else { return false };
    let moves = ins.iter().any(|(_, tangents)| tangents.iter().any(Option::is_some));
    moves && (!moves_by_kernel(rule, ins[0].0.device()) || !all_plain(ins))
}

/// Whether there are kernels for tangents on this device.
fn moves_by_kernel(rule: &dyn Fused, device: &Device) -> bool {
    rule.tangents().is_some_and(|kernels| !device.is_gpu() || kernels.gpu().is_some())
}

/// Whether kernels may read these: no trace, no tangent below the level they were taken apart at.
fn all_plain(ins: &[Lowered<'_>]) -> bool {
    ins.iter().all(|(primal, tangents)| primal.is_plain() && tangents.iter().flatten().all(Tensor::is_plain))
}

pub(super) fn has_kernels(op: &dyn Op, device: &Device) -> bool {
    matches!(op.derivative(), Derivative::Fused(rule) if moves_by_kernel(rule, device))
}

/// Tangent of the result by the op's kernel; only after [`needs_composition`] said no.
pub(super) fn push(
    op: &'static str,
    rule: &dyn Fused,
    ins: &[&Tensor],
    y: &Tensor,
    residuals: Option<&[Array]>,
    along: &[Option<Tensor>],
) -> Option<Tensor> {
    let kernels = rule.tangents()?;
    let arrays: Vec<&Array> = ins.iter().map(|t| &t.value).collect();
    let along = contiguous(along);
    let device = y.value.device();
    let mut out = device.alloc(y.value.spec());
    let specs: Vec<Spec> = arrays.iter().map(|array| array.spec()).collect();
    let scratch = kernels.forward_scratch(&specs).filter(|_| !device.is_gpu());
    let mut scratch = scratch.map(|spec| device.scratch(spec));
    if (device.computes() || device.is_gpu()) && out.count() > 0 {
        let (residuals, along) = (residuals.unwrap_or_default(), as_refs(&along));
        let scratch = scratch.as_mut();
        let push = Push { ins: &arrays, y: &y.value, residuals, tangents: &along };
        let kernel = |out: &mut Array| match kernels.gpu().filter(|_| device.is_gpu()) {
            Some(kernels) => kernels.forward(push, out),
            None => kernels.forward(push, out, scratch),
        };
        observe::launch(op, Stage::Tangent, &mut out, kernel, |out| vec![out]);
    }
    Some(Tensor::from_array(out))
}

fn contiguous(tensors: &[Option<Tensor>]) -> Vec<Option<Array>> {
    tensors.iter().map(|t| t.as_ref().map(|t| t.value.to_contiguous())).collect()
}

fn as_refs(arrays: &[Option<Array>]) -> Vec<Option<&Array>> {
    arrays.iter().map(Option::as_ref).collect()
}

/// Cotangents of the operands.
pub(super) fn pull(
    op: &'static str,
    rule: &dyn Fused,
    saved: &Saved,
    c: &Tensor,
    needs: &[bool],
    differentiable: bool,
) -> Vec<Option<Tensor>> {
    let by_kernel = match (differentiable, &saved.residuals) {
        (false, Some(residuals)) => pull_by_kernel(op, rule, saved, residuals, c, needs),
        _ => None,
    };
    by_kernel.or_else(|| rule.formula(saved, c, needs)).unwrap_or_else(|| replay(rule, saved, c, needs, differentiable))
}

fn pull_by_kernel(
    op: &'static str,
    rule: &dyn Fused,
    saved: &Saved,
    residuals: &[Array],
    c: &Tensor,
    needs: &[bool],
) -> Option<Vec<Option<Tensor>>> {
    if c.count() == 0 {
        // Kernels need not know about results without elements.
        let zeros = |spec: &Spec| Tensor::zeros(spec.shape, spec.dtype, c.device());
        return Some(needs.iter().zip(&saved.specs).map(|(&needed, spec)| needed.then(|| zeros(spec))).collect());
    }
    let tensors = || saved.inputs.iter().chain([&saved.output]).flatten().chain([c]);
    match tensors().filter_map(Tensor::level).max() {
        None if tensors().all(Tensor::is_plain) => {
            let there = !c.device().is_gpu() || rule.gpu().is_some();
            there.then(|| kernel(op, rule, saved, residuals, c, needs))
        }
        None => None,
        Some(level) => pull_lifted(level, op, rule, saved, residuals, c, needs),
    }
}

/// The backward kernel.
fn kernel(
    op: &'static str,
    rule: &dyn Fused,
    saved: &Saved,
    residuals: &[Array],
    c: &Tensor,
    needs: &[bool],
) -> Vec<Option<Tensor>> {
    let device = c.value.device();
    let c = c.value.to_contiguous();
    let mut grads = allocate(&c, saved, needs);
    let scratch = rule.backward_scratch(&saved.specs).filter(|_| !device.is_gpu());
    let mut scratch = scratch.map(|spec| device.scratch(spec));
    if device.computes() || device.is_gpu() {
        let saved = arrays(saved, residuals);
        let kernel = |grads: &mut Vec<_>| match rule.gpu().filter(|_| device.is_gpu()) {
            Some(kernels) => kernels.backward(&saved, &c, grads),
            None => rule.backward(&saved, &c, grads, scratch.as_mut()),
        };
        observe::launch(op, Stage::Backward, &mut grads, kernel, |grads| grads.iter().flatten().collect());
    }
    grads.into_iter().map(|grad| grad.map(Tensor::from_array)).collect()
}

fn allocate(c: &Array, saved: &Saved, needs: &[bool]) -> Vec<Option<Array>> {
    needs.iter().zip(&saved.specs).map(|(&needed, &spec)| needed.then(|| c.device().alloc(spec))).collect()
}

fn arrays<'a>(saved: &'a Saved, residuals: &'a [Array]) -> SavedArrays<'a> {
    SavedArrays {
        inputs: saved.inputs.iter().map(|t| t.as_ref().map(|t| &t.value)).collect(),
        output: saved.output.as_ref().map(|t| &t.value),
        residuals,
    }
}

/// The backward pass with tangents of one level: linear in the cotangent, by kernels in the operands.
fn pull_lifted(
    level: u64,
    op: &'static str,
    rule: &dyn Fused,
    saved: &Saved,
    residuals: &[Array],
    c: &Tensor,
    needs: &[bool],
) -> Option<Vec<Option<Tensor>>> {
    let below = lower(saved, level);
    let (c0, dc) = c.lower(level);
    let directions = directions(saved, c, level);
    let moving = |k: usize| saved_tangents(saved, level, k).iter().any(Option::is_some);
    if (0..directions).any(moving) {
        let there = moves_by_kernel(rule, c0.device()) && (!c0.device().is_gpu() || rule.gpu().is_some());
        let kernels = rule.tangents().filter(|kernels| there && kernels.has_backward())?;
        let plain = |t: &Tensor| t.is_plain();
        let below_plain = below.inputs.iter().flatten().all(plain) && c0.is_plain();
        if !below_plain || saved.inputs.iter().all(Option::is_none) {
            return None;
        }
        let gradients = kernel(op, rule, &below, residuals, &c0, needs);
        let c_array = c0.value.to_contiguous();
        let along = (0..directions).map(|k| {
            let tangents = contiguous(&saved_tangents(saved, level, k));
            let dc = dc.get(k).and_then(Option::as_ref).map(|t| t.value.to_contiguous());
            let mut grads = allocate(&c_array, saved, needs);
            let device = c_array.device();
            let scratch = kernels.backward_scratch(&saved.specs).filter(|_| !device.is_gpu());
            let mut scratch = scratch.map(|spec| device.scratch(spec));
            if device.computes() || device.is_gpu() {
                let (saved, along) = (arrays(&below, residuals), as_refs(&tangents));
                let pull = Pull { saved: &saved, c: &c_array, tangents: &along, dc: dc.as_ref() };
                let kernel = |grads: &mut Vec<_>| match kernels.gpu().filter(|_| device.is_gpu()) {
                    Some(kernels) => kernels.backward(pull, grads),
                    None => kernels.backward(pull, grads, scratch.as_mut()),
                };
                observe::launch(op, Stage::Tangent, &mut grads, kernel, |grads| grads.iter().flatten().collect());
            }
            grads.into_iter().map(|grad| grad.map(Tensor::from_array)).collect()
        });
        return Some(lift_all(level, gradients, along.collect()));
    }
    let gradients = pull(op, rule, &below, &c0, needs, false);
    let along = (0..directions).map(|k| match dc.get(k).and_then(Option::as_ref) {
        Some(dc) => pull(op, rule, &below, dc, needs, false),
        None => vec![None; needs.len()],
    });
    Some(lift_all(level, gradients, along.collect()))
}

fn lift_all(level: u64, gradients: Vec<Option<Tensor>>, along: Vec<Vec<Option<Tensor>>>) -> Vec<Option<Tensor>> {
    let lift = |(i, gradient): (usize, Option<Tensor>)| {
        gradient.map(|g| g.lift(level, along.iter().map(|direction| direction[i].clone()).collect()))
    };
    gradients.into_iter().enumerate().map(lift).collect()
}

fn lower(saved: &Saved, level: u64) -> Saved {
    let lower = |t: &Option<Tensor>| t.as_ref().map(|t| t.lower(level).0);
    Saved {
        inputs: saved.inputs.iter().map(lower).collect(),
        output: lower(&saved.output),
        residuals: saved.residuals.clone(),
        specs: saved.specs.clone(),
    }
}

fn directions(saved: &Saved, c: &Tensor, level: u64) -> usize {
    let tensors = saved.inputs.iter().chain([&saved.output]).flatten().chain([c]);
    tensors.map(|t| t.lower(level).1.len()).max().unwrap_or(0)
}

/// Tangents of the saved operands along direction `k`; of the saved result where no operand is saved.
fn saved_tangents(saved: &Saved, level: u64, k: usize) -> Vec<Option<Tensor>> {
    let tangent = |t: &Option<Tensor>| t.as_ref().and_then(|t| t.lower(level).1.get(k).cloned().flatten());
    if saved.inputs.iter().all(Option::is_none) {
        return vec![tangent(&saved.output)];
    }
    saved.inputs.iter().map(tangent).collect()
}

/// Runs the composition on aliases of the operands and walks that.
pub(super) fn replay(
    rule: &dyn Fused,
    saved: &Saved,
    c: &Tensor,
    needs: &[bool],
    differentiable: bool,
) -> Vec<Option<Tensor>> {
    let alias = |(t, &needed): (&Option<Tensor>, &bool)| {
        let t = t.as_ref().expect("an op without a formula saves all operands");
        match (needed, differentiable) {
            (false, _) => t.clone(),
            (true, true) => t.alias(),
            (true, false) => t.untraced().leaf(),
        }
    };
    let aliases: Vec<Tensor> = saved.inputs.iter().zip(needs).map(alias).collect();
    let y = rule.composition(&aliases);
    let wanted: Vec<&Tensor> = aliases.iter().zip(needs).filter(|(_, needed)| **needed).map(|(t, _)| t).collect();
    let mut grads = reverse::pull_back(y, c.clone(), &wanted, differentiable).into_iter();
    needs.iter().map(|&needed| if needed { grads.next().flatten() } else { None }).collect()
}
