//! Negative log-likelihood of target classes under logits.

mod gpu;

use super::{Input, Op, Outputs, Sample, reduce::add_up, softmax::log_sum_exp};
use crate::autograd::{Derivative, Fused, GpuBackward, GpuTangents, Pull, Push, SavedArrays, Tangents};
use crate::device::cpu::row;
use crate::device::{Array, Spec, cpu};
use crate::dtype::DType;
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;

/// Target of a row that does not count.
pub const IGNORED: u32 = u32::MAX;

/// How the losses of rows make one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Σ over rows that count.
    Sum,
    /// The sum divided by their number; 0 if there are none.
    Mean,
}

/// Cross-entropy of logits [.., classes] and targets [..] (u32), a scalar, see [`Tensor::cross_entropy`].
#[derive(Debug)]
pub struct CrossEntropy {
    reduction: Reduction,
}

impl CrossEntropy {
    /// What one row's loss weighs in the result.
    fn weight<T: Float>(&self, targets: &[u32]) -> T {
        let counted = targets.iter().filter(|&&target| target != IGNORED).count();
        match self.reduction {
            Reduction::Sum => T::one(),
            Reduction::Mean => T::of(1.0 / counted.max(1) as f64),
        }
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (x, targets) = (&ins[0], &ins[1]);
        if !x.dtype.computes() || targets.dtype != DType::U32 {
            return Err(format!("logits are f32 or f64 and targets u32, not {} and {}", x.dtype, targets.dtype));
        }
        if x.shape.is_empty() || x.shape.leading(1) != &targets.shape[..] {
            return Err(format!("logits of shape {:?} for targets of shape {:?}", x.shape, targets.shape));
        }
        Ok(Spec::new(x.dtype, []))
    }

    fn contiguous(&self) -> bool {
        true
    }

    /// ln Σ eˣ of each row, and what a row's loss weighs.
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        vec![Spec { dtype: ins[0].dtype, shape: ins[1].shape }, Spec::new(ins[0].dtype, [])]
    }

    /// The loss of each row.
    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Spec { dtype: ins[0].dtype, shape: ins[1].shape })
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let losses = out.scratch.expect("declared");
        float!(ins[0].dtype(), T => {
            let targets = ins[1].slice();
            let logs = out.residuals.first_mut().map_or(&mut [][..], |logs| logs.slice_mut::<T>());
            forward(ins[0], targets, losses.slice_mut(), logs);
            let weight = self.weight::<T>(targets);
            if let Some(kept) = out.residuals.get_mut(1) {
                kept.slice_mut()[0] = weight;
            }
            out.y.slice_mut()[0] = add_up(losses.slice::<T>()) * weight;
        })
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

/// An unknown class is a bug of the caller, like any index out of bounds.
fn check(target: u32, classes: usize) -> usize {
    assert!((target as usize) < classes, "target {target} of {classes} classes");
    target as usize
}

/// Loss and, where wanted, log-sum-exp of each row.
fn forward<T: Float>(x: &Array, targets: &[u32], losses: &mut [T], logs: &mut [T]) {
    let classes = x.shape().last_size();
    let x = x.slice::<T>();
    let group = cpu::rows_per_piece(classes);
    let kept = if logs.is_empty() { 0 } else { group };
    let pieces = targets.len().div_ceil(group);
    cpu::split(pieces, [(losses, group), (logs, kept)], |piece, [losses, logs]| {
        let first = piece * group;
        cpu::simd(
            #[inline(always)]
            || {
                for (i, loss) in losses.iter_mut().enumerate() {
                    let x = &x[(first + i) * classes..][..classes];
                    let log = log_sum_exp(x);
                    *loss = match targets[first + i] {
                        IGNORED => T::zero(),
                        target => log - x[check(target, classes)],
                    };
                    if let Some(kept) = logs.get_mut(i) {
                        *kept = log;
                    }
                }
            },
        )
    });
}

/// Calls `f(row, target, dx)` for each row of `dx`; rows that do not count get 0.
fn by_rows<T: Float>(targets: &[u32], dx: &mut Array, f: impl Fn(usize, usize, &mut [T]) + Sync + Send) {
    let classes = dx.shape().last_size();
    cpu::rows(dx.slice_mut::<T>(), classes, |first, out| {
        cpu::simd(
            #[inline(always)]
            || {
                for (i, dx) in out.chunks_exact_mut(classes).enumerate() {
                    match targets[first + i] {
                        IGNORED => dx.fill(T::zero()),
                        target => f(first + i, target as usize, dx),
                    }
                }
            },
        )
    });
}

/// Σⱼ pⱼ tⱼ of a row, the tangent of its log-sum-exp.
#[inline(always)]
fn expected<T: Float>(x: &[T], log: T, t: &[T]) -> T {
    row::sum(
        [x, t],
        #[inline(always)]
        |[x, t]| (x - log).exp() * t,
    )
}

impl Fused for CrossEntropy {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let (x, targets) = (&ins[0], &ins[1]);
        let classes = x.shape().last_size();
        let ids = Tensor::new(&Vec::from_iter(0..classes as u32), [classes], x.device());
        let hit = targets.unsqueeze(targets.shape().len()).equal(&ids); // [.., classes], all 0 where ignored
        let losses = x.logsumexp(&[-1]).unsqueeze(targets.shape().len()) - x;
        let sum = hit.select(&losses, &losses.zeros_like()).sum_all();
        match self.reduction {
            Reduction::Sum => sum,
            Reduction::Mean => {
                let ignored = Tensor::full(IGNORED as f64, Spec::new(DType::U32, []), x.device());
                sum / targets.less(&ignored).cast(x.dtype()).sum_all().maximum(&x.constant_like(1.0))
            }
        }
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], _: Option<&mut Array>) {
        if let Some(dx) = &mut grads[0] {
            float!(c.dtype(), T => self.pull::<T>(saved, c, dx))
        }
    }

    fn tangents(&self) -> Option<&dyn Tangents> {
        Some(self)
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

impl Tangents for CrossEntropy {
    fn forward(&self, push: Push<'_>, out: &mut Array, scratch: Option<&mut Array>) {
        let Push { ins, residuals: logs, tangents, .. } = push;
        let along = tangents[0].expect("only logits move");
        float!(along.dtype(), T => self.push::<T>(ins, logs, along, out, scratch.expect("declared")))
    }

    /// What each row adds to the tangent.
    fn forward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Spec { dtype: ins[0].dtype, ..ins[1] })
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>], _: Option<&mut Array>) {
        let Pull { saved, c, tangents, dc } = pull;
        if let Some(dx) = &mut grads[0] {
            float!(c.dtype(), T => self.pull_along::<T>(saved, c, tangents[0], dc, dx))
        }
    }

    fn gpu(&self) -> Option<&dyn GpuTangents> {
        Some(self)
    }
}

impl CrossEntropy {
    /// dx = (p − one-hot) c weight, with p = softmax x.
    fn pull<T: Float>(&self, saved: &SavedArrays<'_>, c: &Array, dx: &mut Array) {
        let (x, targets, logs) = operands::<T>(saved);
        let scale = c.slice::<T>()[0] * saved.residuals[1].slice::<T>()[0];
        by_rows(
            targets,
            dx,
            #[inline(always)]
            |i, target, dx: &mut [T]| {
                let (x, log, scale) = (&x[i * dx.len()..][..dx.len()], logs[i], scale);
                row::map(
                    [x],
                    dx,
                    #[inline(always)]
                    |[x]| (x - log).exp() * scale,
                );
                dx[target] = dx[target] - scale;
            },
        )
    }

    /// Tangent of the loss, Σ (Σⱼ pⱼ tⱼ − t_target) weight.
    fn push<T: Float>(&self, ins: &[&Array], kept: &[Array], along: &Array, out: &mut Array, moves: &mut Array) {
        let (x, targets, logs, t) = (ins[0].slice::<T>(), ins[1].slice(), kept[0].slice::<T>(), along.slice::<T>());
        let classes = along.shape().last_size();
        let group = cpu::rows_per_piece(classes);
        cpu::blocks_into(moves.slice_mut::<T>(), group, |piece, moves| {
            cpu::simd(
                #[inline(always)]
                || {
                    for (i, y) in (piece * group..).zip(moves) {
                        let (x, t) = (&x[i * classes..][..classes], &t[i * classes..][..classes]);
                        *y = match targets[i] {
                            IGNORED => T::zero(),
                            target => expected(x, logs[i], t) - t[target as usize],
                        };
                    }
                },
            )
        });
        out.slice_mut()[0] = add_up(moves.slice::<T>()) * kept[1].slice::<T>()[0];
    }

    /// Tangent of [`CrossEntropy::pull`]: p (t − Σ p t) c weight + (p − one-hot) dc weight.
    fn pull_along<T: Float>(
        &self,
        saved: &SavedArrays<'_>,
        c: &Array,
        along: Option<&Array>,
        dc: Option<&Array>,
        dx: &mut Array,
    ) {
        let (x, targets, logs) = operands::<T>(saved);
        let weight = saved.residuals[1].slice::<T>()[0];
        let scale = c.slice::<T>()[0] * weight;
        let bend = dc.map_or(T::zero(), |dc| dc.slice::<T>()[0] * weight);
        let still = vec![T::zero(); dx.shape().last_size()];
        let along = along.map(|t| t.slice::<T>());
        by_rows(
            targets,
            dx,
            #[inline(always)]
            |i, target, dx: &mut [T]| {
                let row = i * dx.len()..(i + 1) * dx.len();
                let t = along.map_or(&still[..], |t| &t[row.clone()]);
                let (x, log, scale) = (&x[row], logs[i], scale);
                let shift = bend - expected(x, log, t) * scale;
                row::map(
                    [x, t],
                    dx,
                    #[inline(always)]
                    |[x, t]| (x - log).exp() * t.mul_add(scale, shift),
                );
                dx[target] = dx[target] - bend;
            },
        )
    }
}

/// Logits, targets, and ln Σ eˣ by row.
fn operands<'a, T: Float>(saved: &'a SavedArrays<'_>) -> (&'a [T], &'a [u32], &'a [T]) {
    (saved.input(0).slice(), saved.input(1).slice(), saved.residuals[0].slice())
}

impl Tensor {
    /// Mean over rows of ln Σⱼ e^(xⱼ) − x_target: these logits [.., classes] against targets [..] (u32), in nats.
    /// Rows whose target is [`IGNORED`] do not count; if none counts, the loss is 0 and so is its gradient.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &Tensor) -> Tensor {
        Tensor::apply(CrossEntropy { reduction: Reduction::Mean }, &[self, targets])
    }

    /// Like [`Tensor::cross_entropy`], but the sum over rows.
    #[track_caller]
    pub fn cross_entropy_sum(&self, targets: &Tensor) -> Tensor {
        Tensor::apply(CrossEntropy { reduction: Reduction::Sum }, &[self, targets])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |reduction, sizes: [usize; 2], targets: &[u32]| {
        let inputs = [Input::normal(sizes), Input::indices([sizes[0]], targets)];
        Sample::new(CrossEntropy { reduction }, inputs)
    };
    vec![
        sample(Reduction::Mean, [3, 7], &[6, IGNORED, 0]),
        sample(Reduction::Mean, [2, 1], &[0, 0]),
        sample(Reduction::Mean, [2, 65], &[64, 3]),
        sample(Reduction::Mean, [2, 5], &[IGNORED, IGNORED]),
        sample(Reduction::Sum, [3, 33], &[1, IGNORED, 32]),
        sample(Reduction::Sum, [2, 131], &[130, 5]),
        Sample::new(CrossEntropy { reduction: Reduction::Sum }, [Input::normal([2, 2, 5]), Input::index([2, 2], 5)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::grad;
    use crate::device::Device;

    fn loss_and_gradient(x: &[f32], targets: &[u32]) -> (f64, Vec<f32>) {
        let device = Device::cpu();
        let x = Tensor::new(x, [targets.len(), x.len() / targets.len()], &device).leaf();
        let loss = x.cross_entropy(&Tensor::new(targets, [targets.len()], &device));
        let dx = grad(&loss, &[&x], false)[0].to_vec().unwrap();
        (loss.item().unwrap(), dx)
    }

    #[test]
    fn ignored_rows_do_not_count() {
        let (loss, dx) = loss_and_gradient(&[0.0, 0.0, 5.0, 7.0], &[1, IGNORED]);
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-7);
        assert_eq!(dx, [0.5, -0.5, 0.0, 0.0]);
    }

    #[test]
    fn no_row_counts_and_nothing_is_nan() {
        assert_eq!(loss_and_gradient(&[1.0, 2.0], &[IGNORED]), (0.0, vec![0.0, 0.0]));
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let (loss, dx) = loss_and_gradient(&[1e5, -1e5, -3.4e38, 0.0], &[1, 1]);
        assert_eq!((loss, dx), (1e5, vec![0.5, -0.5, 0.0, 0.0]));
    }

    #[test]
    #[should_panic(expected = "target 2 of 2 classes")]
    fn unknown_classes_are_refused() {
        loss_and_gradient(&[0.0, 0.0], &[2]);
    }
}
