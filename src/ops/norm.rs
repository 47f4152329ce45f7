//! Layer normalisation (Ba, Kiros & Hinton 2016) and RMS normalisation (Zhang & Sennrich 2019) over the last dimension.

mod gpu;
mod tangent;

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Fused, GpuBackward, GpuTangents, Pull, Push, SavedArrays, Tangents};
use crate::device::cpu::row;
use crate::device::{Array, Spec, cpu};
use crate::float;
use crate::scalar::{Dual, Float, Real};
use crate::tensor::Tensor;
use row::Number;

/// See [`Tensor::layer_norm`] (centred, operands x, weight, bias) and [`Tensor::rms_norm`] (operands x, weight).
#[derive(Debug)]
pub struct Norm {
    centred: bool,
    epsilon: f64,
}

impl Norm {
    /// Numbers that are kept of a row.
    fn kept(&self) -> usize {
        1 + self.centred as usize
    }
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        if self.centred { "layer_norm" } else { "rms_norm" }
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let width = ins[0].shape.last_size();
        if !ins[0].dtype.computes() || ins[0].shape.is_empty() {
            return Err(format!("cannot normalise {} of shape {:?}", ins[0].dtype, ins[0].shape));
        }
        match ins[1..].iter().find(|spec| **spec != Spec::new(ins[0].dtype, [width])) {
            None => Ok(ins[0]),
            Some(wrong) => Err(format!("{} {:?} for rows of {width} {}", wrong.dtype, wrong.shape, ins[0].dtype)),
        }
    }

    fn contiguous(&self) -> bool {
        true
    }

    /// 1/σ of each row, and beside it its mean if centred.
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        let last = ins[0].shape.len() - 1;
        vec![Spec::new(ins[0].dtype, ins[0].shape.with(last, self.kept()))]
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            let still = vec![T::zero(); ins[0].shape().last_size()];
            let [x, w, b] = operands::<T, 3>(ins, &[], &still);
            let kept = out.residuals.first_mut().map(|array| array.slice_mut::<T>()).unwrap_or_default();
            forward::<T, T>(self, [x, w, b], out.y.slice_mut(), kept);
        })
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

/// An operand and its tangent, by rows. Without a tangent it stands still; an absent bias is 0.
#[derive(Clone, Copy)]
struct Operand<'a, T> {
    value: Option<&'a [T]>,
    tangent: Option<&'a [T]>,
    /// A row of zeros.
    still: &'a [T],
}

impl<'a, T> Operand<'a, T> {
    /// Row `i` of value and tangent. Weight and bias are one row, which serves all.
    #[inline(always)]
    fn row(&self, i: usize) -> [&'a [T]; 2] {
        let width = self.still.len();
        [self.value, self.tangent].map(|part| match part {
            Some(rows) => &rows[i * width..][..width],
            None => self.still,
        })
    }
}

fn operands<'a, T: Float, const N: usize>(
    ins: &[&'a Array],
    tangents: &[Option<&'a Array>],
    still: &'a [T],
) -> [Operand<'a, T>; N] {
    std::array::from_fn(|i| Operand {
        value: ins.get(i).map(|x| x.slice()),
        tangent: tangents.get(i).copied().flatten().map(|t| t.slice()),
        still,
    })
}

/// Mean (0 if not centred) and 1/σ of a row.
#[inline(always)]
fn statistics<T: Float, R: Number<T>>(op: &Norm, x: [&[T]; 2]) -> [R; 2] {
    let scale = R::of(1.0 / x[0].len() as f64);
    let mut mean = R::zero();
    if op.centred {
        let sum: R = row::sum(
            x,
            #[inline(always)]
            |[x, t]| R::new(x, t),
        );
        mean = sum * scale;
    }
    let square: R = row::sum(
        x,
        #[inline(always)]
        |[x, t]| {
            let d = R::new(x, t) - mean;
            d * d
        },
    );
    [mean, R::one() / (square * scale + R::of(op.epsilon)).sqrt()]
}

/// y = (x − mean)/σ · w + b, or its tangent; keeps 1/σ and mean in `kept`, where there is room.
fn forward<T: Float, R: Number<T>>(op: &Norm, [x, w, b]: [Operand<T>; 3], y: &mut [T], kept: &mut [T]) {
    let width = x.still.len();
    if y.is_empty() {
        return;
    }
    let group = cpu::rows_per_piece(width);
    let pieces = y.len().div_ceil(group * width);
    let numbers = if kept.is_empty() { 0 } else { group * op.kept() };
    cpu::split(pieces, [(y, group * width), (kept, numbers)], |piece, [y, kept]| {
        cpu::simd(
            #[inline(always)]
            || {
                let ([w, wt], [b, bt]) = (w.row(0), b.row(0));
                for (i, y) in y.chunks_exact_mut(width).enumerate() {
                    let x = x.row(piece * group + i);
                    let [mean, rstd] = statistics::<T, R>(op, x);
                    row::map(
                        [x[0], x[1], w, wt, b, bt],
                        y,
                        #[inline(always)]
                        |[x, xt, w, wt, b, bt]| {
                            let unit = (R::new(x, xt) - mean) * rstd;
                            unit.mul_add(R::new(w, wt), R::new(b, bt)).written()
                        },
                    );
                    for (kept, number) in kept.iter_mut().skip(i * op.kept()).zip([rstd, mean]).take(op.kept()) {
                        *kept = number.written();
                    }
                }
            },
        )
    });
}

/// dx = (g − mean g − x̂ mean(g x̂))/σ with g = c w and x̂ = (x − mean)/σ; without `mean g` if not centred.
#[inline(always)]
fn pull_row<T: Float, R: Number<T>>(op: &Norm, [x, c, w]: [[&[T]; 2]; 3], [mean, rstd]: [R; 2], dx: &mut [T]) {
    let scale = R::of(1.0 / dx.len() as f64);
    let ins = [x[0], x[1], c[0], c[1], w[0], w[1]];
    let [g, along]: [R; 2] = row::sums(
        ins,
        #[inline(always)]
        |[x, xt, c, ct, w, wt]| {
            let g = R::new(c, ct) * R::new(w, wt);
            [g, (R::new(x, xt) - mean) * rstd * g]
        },
    );
    let shift = if op.centred { g * scale } else { R::zero() };
    let along = along * scale;
    row::map(
        ins,
        dx,
        #[inline(always)]
        |[x, xt, c, ct, w, wt]| {
            let g = R::new(c, ct) * R::new(w, wt);
            let unit = (R::new(x, xt) - mean) * rstd;
            ((g - shift - unit * along) * rstd).written()
        },
    );
}

/// Adds a row's c x̂ to `dw` and its c to `db`.
#[inline(always)]
fn add_row<T: Float, R: Number<T>>([x, c]: [[&[T]; 2]; 2], [mean, rstd]: [R; 2], dw: &mut [T], db: &mut [T]) {
    row::accumulate(
        [x[0], x[1], c[0], c[1]],
        dw,
        #[inline(always)]
        |[x, xt, c, ct]| (R::new(c, ct) * ((R::new(x, xt) - mean) * rstd)).written(),
    );
    row::accumulate(
        c,
        db,
        #[inline(always)]
        |[c, ct]| R::new(c, ct).written(),
    );
}

/// Partial sums of the gradients of weight and bias: [pieces, 2, width], each over `group` rows.
struct Partial {
    rows: usize,
    group: usize,
    spec: Spec,
}

impl Partial {
    fn new(x: Spec) -> Partial {
        let width = x.shape.last_size();
        let rows = x.shape.leading(1).iter().product();
        let group = cpu::summed_rows(rows);
        Partial { rows, group, spec: Spec::new(x.dtype, [rows.div_ceil(group), 2, width]) }
    }
}

/// Gradients of x, weight and bias, where wanted, or their tangents, in one pass over the rows. `statistics` gives
/// mean and 1/σ of a row.
fn backward<T: Float, R: Number<T>>(
    op: &Norm,
    [x, c, w]: [Operand<T>; 3],
    statistics: impl Fn(usize, [&[T]; 2]) -> [R; 2] + Sync,
    grads: &mut [Option<Array>],
    (plan, partial): (Partial, &mut Array),
) {
    let (width, group) = (x.still.len(), plan.group);
    let partial = partial.slice_mut::<T>();
    let summed = grads[1..].iter().any(Option::is_some);
    let dx = grads[0].as_mut().map_or((&mut [][..], 0), |dx| (dx.slice_mut::<T>(), group * width));
    cpu::split(plan.spec.shape[0], [dx, (&mut *partial, 2 * width)], |piece, [dx, partial]| {
        cpu::simd(
            #[inline(always)]
            || {
                partial.fill(T::zero());
                let (dw, db) = partial.split_at_mut(width);
                let mut dx = dx.chunks_exact_mut(width);
                for i in piece * group..((piece + 1) * group).min(plan.rows) {
                    let (x, c) = (x.row(i), c.row(i));
                    let statistics = statistics(i, x);
                    if let Some(dx) = dx.next() {
                        pull_row(op, [x, c, w.row(0)], statistics, dx);
                    }
                    if summed {
                        add_row([x, c], statistics, dw, db);
                    }
                }
            },
        )
    });
    for (k, grad) in grads[1..].iter_mut().enumerate() {
        if let Some(grad) = grad {
            let sum = grad.slice_mut::<T>();
            sum.fill(T::zero());
            for part in partial.chunks_exact(width).skip(k).step_by(2) {
                row::accumulate([part], sum, |[part]| part);
            }
        }
    }
}

impl Fused for Norm {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let scale = 1.0 / ins[0].shape().last_size() as f64;
        let mean = |x: &Tensor| x.sum_keep(&[-1]) * scale;
        let x = if self.centred { &ins[0] - &mean(&ins[0]) } else { ins[0].clone() };
        let y = &x * &(mean(&(&x * &x)) + self.epsilon).rsqrt() * &ins[1];
        if self.centred { y + &ins[2] } else { y }
    }

    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Partial::new(ins[0]).spec)
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        float!(c.dtype(), T => {
            let still = vec![T::zero(); c.shape().last_size()];
            let ins = operands(&[saved.input(0), c, saved.input(1)], &[], &still);
            let kept = saved.residuals[0].slice::<T>();
            let partial = (Partial::new(c.spec()), scratch.expect("declared"));
            let mean = |i: usize| if self.centred { kept[2 * i + 1] } else { T::zero() };
            backward::<T, T>(self, ins, |i, _| [mean(i), kept[i * self.kept()]], grads, partial);
        })
    }

    fn tangents(&self) -> Option<&dyn Tangents> {
        Some(self)
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

/// The same kernels on duals, which find their statistics again.
impl Tangents for Norm {
    fn forward(&self, push: Push<'_>, out: &mut Array, _: Option<&mut Array>) {
        let Push { ins, tangents, .. } = push;
        float!(out.dtype(), T => {
            let still = vec![T::zero(); out.shape().last_size()];
            let ins = operands(ins, tangents, &still);
            forward::<T, Dual<T>>(self, ins, out.slice_mut(), Default::default());
        })
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        let Pull { saved, c, tangents, dc } = pull;
        float!(c.dtype(), T => {
            let still = vec![T::zero(); c.shape().last_size()];
            let ins = operands(&[saved.input(0), c, saved.input(1)], &[tangents[0], dc, tangents[1]], &still);
            let plan = Partial::new(c.spec());
            backward::<T, Dual<T>>(self, ins, #[inline(always)] |_, x| statistics(self, x), grads, (plan, scratch.expect("declared")));
        })
    }
    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(Partial::new(ins[0]).spec)
    }

    fn gpu(&self) -> Option<&dyn GpuTangents> {
        Some(self)
    }
}

impl Tensor {
    /// y = (x − mean x)/√(var x + ε) · weight + bias over the last dimension, with the biased variance; `weight` and
    /// `bias` are `[width]`.
    #[track_caller]
    pub fn layer_norm(&self, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Tensor {
        Tensor::apply(Norm { centred: true, epsilon }, &[self, weight, bias])
    }

    /// y = x/√(mean x² + ε) · weight over the last dimension; `weight` is `[width]`.
    #[track_caller]
    pub fn rms_norm(&self, weight: &Tensor, epsilon: f64) -> Tensor {
        Tensor::apply(Norm { centred: false, epsilon }, &[self, weight])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |centred: bool, shape: &[usize]| {
        let x = Input::normal(shape);
        let row = || Input::normal([x.shape.last_size()]);
        let inputs = if centred { vec![x.clone(), row(), row()] } else { vec![x.clone(), row()] };
        Sample::new(Norm { centred, epsilon: 1e-2 }, inputs)
    };
    let shapes: [&[usize]; 6] = [&[2, 3, 4], &[3, 7], &[2, 33], &[2, 65], &[70, 3], &[2, 131]];
    let with_one_column = [sample(true, &[3, 1]), sample(false, &[3, 1])];
    shapes.into_iter().flat_map(|shape| [sample(true, shape), sample(false, shape)]).chain(with_one_column).collect()
}
