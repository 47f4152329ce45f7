//! Tangents: every result is a sum of products of two matrices, so that its tangent is twice as many, of which those are
//! left out in which nothing moves.

use super::gpu::rows;
use super::{Lora, Sizes, cpu, stored, turned};
use crate::autograd::{GpuTangents, Pull, Push, Tangents};
use crate::device::cpu::{Matrix, Start, matmul};
use crate::device::{Array, Spec, Tag, tagged};
use crate::float;
use crate::ops::matmul::gpu_product;
use crate::ops::{elementwise, reduce};
use crate::scalar::Float;

/// A matrix that products are made of.
trait Operand: Clone {
    fn t(&self) -> Self;
}

/// [rows, columns] in host memory.
#[derive(Clone, Copy)]
struct Host<'a, T> {
    matrix: Matrix<'a, T>,
    sizes: [usize; 2],
}

impl<T: Float> Operand for Host<'_, T> {
    fn t(&self) -> Self {
        let [rows, columns] = self.sizes;
        Host { matrix: self.matrix.t(), sizes: [columns, rows] }
    }
}

impl Operand for Array {
    fn t(&self) -> Self {
        turned(self, true)
    }
}

/// A matrix and its tangent, where they are there.
#[derive(Clone)]
struct Moving<M> {
    value: Option<M>,
    tangent: Option<M>,
}

impl<M: Operand> Moving<M> {
    fn t(&self) -> Self {
        let turned = |matrix: &Option<M>| matrix.as_ref().map(Operand::t);
        Moving { value: turned(&self.value), tangent: turned(&self.tangent) }
    }

    /// What the tangent of a product is the sum of.
    fn times(&self, other: &Self) -> Vec<[M; 2]> {
        let first = self.tangent.clone().zip(other.value.clone());
        first.into_iter().chain(self.value.clone().zip(other.tangent.clone())).map(|(a, b)| [a, b]).collect()
    }
}

/// x [rows, in], W [in, out], A [in, r] and B [r, out], however they are stored.
struct Operands<M> {
    x: Moving<M>,
    w: Moving<M>,
    a: Moving<M>,
    b: Moving<M>,
}

impl<M: Operand> Operands<M> {
    /// `view` makes a matrix of these sides of an array that holds it, perhaps turned.
    fn new<'a>(
        op: &Lora,
        Sizes { rows, input, output, rank }: Sizes,
        value: impl Fn(usize) -> Option<&'a Array>,
        tangent: impl Fn(usize) -> Option<&'a Array>,
        view: impl Fn(&'a Array, [usize; 2], bool) -> M,
    ) -> Self {
        let moving = |i: usize, sizes: [usize; 2], turned: bool| {
            let see = |array: &'a Array| view(array, sizes, turned);
            Moving { value: value(i).map(see), tangent: tangent(i).map(see) }
        };
        Operands {
            x: moving(0, [rows, input], false),
            w: moving(1, [input, output], op.transposed),
            a: moving(2, [input, rank], op.adapter_transposed),
            b: moving(3, [rank, output], op.adapter_transposed),
        }
    }
}

/// What `outer(x, z)` is: `xᵀ z`, or turned.
fn outer<M: Operand>(x: &Moving<M>, z: &Moving<M>, turned: bool) -> Vec<[M; 2]> {
    if turned { z.t().times(x) } else { x.t().times(z) }
}

/// The terms of each result's tangent.
impl<M: Operand> Operands<M> {
    fn of_y(&self, h: &Moving<M>) -> Vec<[M; 2]> {
        [self.x.times(&self.w), h.times(&self.b)].concat()
    }

    fn of_dx(&self, c: &Moving<M>, hd: &Moving<M>) -> Vec<[M; 2]> {
        [c.times(&self.w.t()), hd.times(&self.a.t())].concat()
    }
}

// ---- on the host

/// `y = start + the sum of terms`.
fn sum<T: Float>(terms: &[[Host<'_, T>; 2]], start: Start<'_, T>, y: &mut [T]) {
    for (i, [a, b]) in terms.iter().enumerate() {
        let sizes = (a.sizes[0], a.sizes[1], b.sizes[1]);
        matmul(sizes, a.matrix, b.matrix, y, if i == 0 { start } else { Start::Held });
    }
    match start {
        Start::Nothing if terms.is_empty() => y.fill(T::zero()),
        Start::Row(row) if terms.is_empty() => y.chunks_exact_mut(row.len()).for_each(|y| y.copy_from_slice(row)),
        _ => {}
    }
}

/// `factor times the sum of terms` as a matrix in `room`; nothing if there are none.
fn narrow<'a, T: Float>(
    terms: &[[Host<'_, T>; 2]],
    factor: f64,
    room: &'a mut [T],
    sizes: [usize; 2],
) -> Option<Host<'a, T>> {
    if terms.is_empty() {
        return None;
    }
    sum(terms, Start::Nothing, room);
    let factor = T::of(factor);
    room.iter_mut().for_each(|h| *h = *h * factor);
    Some(Host { matrix: stored(room, sizes, false), sizes })
}

fn view<T: Float>(array: &Array, sizes: [usize; 2], turned: bool) -> Host<'_, T> {
    Host { matrix: stored(array.slice(), sizes, turned), sizes }
}

impl Lora {
    fn push<T: Float>(&self, push: Push<'_>, out: &mut Array, scratch: &mut Array) {
        let Push { ins, residuals, tangents, .. } = push;
        let sizes = self.sizes(&[0, 1, 2, 3].map(|i| ins[i].spec()));
        let all = Operands::new(self, sizes, |i| Some(ins[i]), |i| tangents[i], view::<T>);
        let thin = [sizes.rows, sizes.rank];
        let tangent = narrow(&all.x.times(&all.a), self.scale, scratch.slice_mut(), thin);
        let h = Moving { value: Some(view(&residuals[0], thin, false)), tangent };
        let bias = tangents.get(4).copied().flatten();
        sum(&all.of_y(&h), bias.map_or(Start::Nothing, |bias| Start::Row(bias.slice::<T>())), out.slice_mut());
    }

    fn pull<T: Float>(&self, pull: Pull<'_>, grads: &mut [Option<Array>], scratch: &mut Array) {
        let Pull { saved, c, tangents, dc } = pull;
        let sizes = cpu::kept_sizes(self, saved, c);
        let all = Operands::new(self, sizes, |i| saved.inputs[i], |i| tangents[i], view::<T>);
        let (wide, thin) = ([sizes.rows, sizes.output], [sizes.rows, sizes.rank]);
        let see = |array| view(array, wide, false);
        let c = Moving { value: Some(see(c)), tangent: dc.map(see) };
        let (first, rest) = scratch.slice_mut::<T>().split_at_mut(thin[0] * thin[1]);
        let (second, third) = rest.split_at_mut(thin[0] * thin[1]);
        let back = all.b.t();
        let still = c.value.zip(back.value).map(|(c, b)| [c, b]);
        let hd = Moving {
            value: narrow(still.as_slice(), self.scale, first, thin),
            tangent: narrow(&c.times(&back), self.scale, second, thin),
        };
        let h = Moving {
            value: Some(view(&saved.residuals[0], thin, false)),
            tangent: narrow(&all.x.times(&all.a), self.scale, third, thin),
        };
        let turned = self.adapter_transposed;
        let mut write = |i: usize, terms: Vec<[Host<'_, T>; 2]>| {
            if let Some(grad) = &mut grads[i] {
                sum(&terms, Start::Nothing, grad.slice_mut());
            }
        };
        write(0, all.of_dx(&c, &hd));
        write(1, outer(&all.x, &c, self.transposed));
        write(2, outer(&all.x, &hd, turned));
        write(3, outer(&h, &c, turned));
        if let Some(Some(bias)) = grads.get_mut(4) {
            match dc {
                Some(dc) => cpu::column_sums(dc.slice::<T>(), bias.slice_mut::<T>()),
                None => bias.slice_mut().fill(T::zero()),
            }
        }
    }

    fn thin(&self, ins: &[Spec], count: usize) -> Spec {
        let Sizes { rows, rank, .. } = self.sizes(ins);
        Spec::new(ins[0].dtype, [count, rows, rank])
    }
}

impl Tangents for Lora {
    fn forward(&self, push: Push<'_>, out: &mut Array, scratch: Option<&mut Array>) {
        float!(out.dtype(), T => self.push::<T>(push, out, scratch.expect("declared")))
    }

    /// The tangent of s x A.
    fn forward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(self.thin(ins, 1))
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        float!(pull.c.dtype(), T => self.pull::<T>(pull, grads, scratch.expect("declared")))
    }

    /// s c Bᵀ, its tangent, and that of s x A.
    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(self.thin(ins, 3))
    }

    fn gpu(&self) -> Option<&dyn GpuTangents> {
        Some(self)
    }
}

// ---- on a GPU

fn record(terms: &[[Array; 2]], start: Option<&Array>, y: &mut Array) {
    for (i, [a, b]) in terms.iter().enumerate() {
        gpu_product(a, b, y, start.filter(|_| i == 0), i > 0, None);
    }
    match start {
        _ if !terms.is_empty() => {}
        Some(row) => elementwise::record_copy(&row.broadcast(y.shape()), y),
        None => y.fill(0.0_f32),
    }
}

/// `factor times the sum of terms`, [rows, rank]; nothing if there are none.
fn record_narrow(terms: &[[Array; 2]], factor: f64, spec: Spec) -> Option<Array> {
    let [a, _] = terms.first()?;
    let mut h = a.device().scratch(spec);
    record(terms, None, &mut h);
    if factor != 1.0 && h.count() > 0 {
        let factor = tagged(Tag::Workspace, || h.device().constant(factor as f32));
        elementwise::record_update("times_f32", &factor, &mut h);
    }
    Some(h)
}

fn on_card(array: &Array, _: [usize; 2], is_turned: bool) -> Array {
    turned(&rows(array), is_turned)
}

impl GpuTangents for Lora {
    fn forward(&self, push: Push<'_>, out: &mut Array) {
        let Push { ins, residuals, tangents, .. } = push;
        let sizes = self.sizes(&[0, 1, 2, 3].map(|i| ins[i].spec()));
        let all = Operands::new(self, sizes, |i| Some(ins[i]), |i| tangents[i], on_card);
        let h = rows(&residuals[0]);
        let tangent = record_narrow(&all.x.times(&all.a), self.scale, h.spec());
        let h = Moving { value: Some(h), tangent };
        record(&all.of_y(&h), tangents.get(4).copied().flatten(), out);
    }

    fn backward(&self, pull: Pull<'_>, grads: &mut [Option<Array>]) {
        let Pull { saved, c, tangents, dc } = pull;
        let sizes = cpu::kept_sizes(self, saved, c);
        let all = Operands::new(self, sizes, |i| saved.inputs[i], |i| tangents[i], on_card);
        let c = Moving { value: Some(rows(c)), tangent: dc.map(rows) };
        let (h, back) = (rows(&saved.residuals[0]), all.b.t());
        let thin = h.spec();
        let still: Vec<[Array; 2]> = c.value.clone().zip(back.value.clone()).map(|(c, b)| [c, b]).into_iter().collect();
        let hd = Moving {
            value: record_narrow(&still, self.scale, thin),
            tangent: record_narrow(&c.times(&back), self.scale, thin),
        };
        let h = Moving { value: Some(h), tangent: record_narrow(&all.x.times(&all.a), self.scale, thin) };
        let turned = self.adapter_transposed;
        let mut write = |i: usize, terms: Vec<[Array; 2]>| {
            if let Some(grad) = &mut grads[i] {
                record(&terms, None, grad);
            }
        };
        write(0, all.of_dx(&c, &hd));
        write(1, outer(&all.x, &c, self.transposed));
        write(2, outer(&all.x, &hd, turned));
        write(3, outer(&h, &c, turned));
        if let Some(Some(bias)) = grads.get_mut(4) {
            match &c.tangent {
                Some(dc) => reduce::gpu::record(reduce::gpu::SUM, dc, &[0], bias),
                None => bias.fill(0.0_f32),
            }
        }
    }
}
