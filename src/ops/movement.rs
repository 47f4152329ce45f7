//! Ops that move elements without changing them: views where strides allow, copies elsewhere.

use super::{Input, Op, Outputs, Sample, elementwise};
use crate::autograd::{Derivative, Transpose};
use crate::device::kernel::{Kernel, Views};
use crate::device::{Array, Spec};
use crate::element;
use crate::shape::{Shape, Strides};
use crate::tensor::Tensor;

/// Copies row by row, see [`Tensor::contiguous`].
#[derive(Debug)]
pub struct Contiguous;

impl Op for Contiguous {
    fn name(&self) -> &'static str {
        "contiguous"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        Ok(ins[0])
    }
    fn view(&self, x: &Array) -> Option<Array> {
        x.contiguous().then(|| x.clone())
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        element!(ins[0].dtype(), T => elementwise::map::<T, T>(ins[0], out.y, |x| x))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        elementwise::record_copy(ins[0], out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Contiguous {
    fn transpose(&self, _: usize, c: &Tensor, _: &[Spec]) -> Tensor {
        c.clone()
    }
}

impl Array {
    /// The same elements row by row; a copy only if they do not lie so.
    pub fn to_contiguous(&self) -> Array {
        if self.contiguous() { self.clone() } else { self.to_owned() }
    }

    /// The same elements row by row in a storage of their own.
    pub fn to_owned(&self) -> Array {
        let mut y = self.device().alloc(self.spec());
        if y.count() > 0 {
            super::run(&Contiguous, &[self], Outputs { y: &mut y, residuals: &mut [], scratch: None, add: false });
        }
        y
    }
}

/// The same elements in another shape, see [`Tensor::reshape`].
#[derive(Debug)]
pub struct Reshape(Shape);

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        match ins[0].shape.count() == self.0.count() {
            true => Ok(Spec { shape: self.0, ..ins[0] }),
            false => Err(format!("{:?} and {:?} have different numbers of elements", ins[0].shape, self.0)),
        }
    }
    fn view(&self, x: &Array) -> Option<Array> {
        x.reshaped(self.0)
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        element!(ins[0].dtype(), T => {
            let x = ins[0].to_contiguous();
            out.y.slice_mut::<T>().copy_from_slice(x.slice::<T>());
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        elementwise::record_copy(ins[0], out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Reshape {
    fn transpose(&self, _: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        c.reshape(specs[0].shape)
    }
}

/// Dimensions in another order, see [`Tensor::permute`].
#[derive(Debug)]
pub struct Permute(Vec<usize>);

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let shape = &ins[0].shape;
        let mut seen = self.0.clone();
        seen.sort_unstable();
        if !seen.iter().copied().eq(0..shape.len()) {
            return Err(format!("{:?} is no order of the dimensions of {shape:?}", self.0));
        }
        let sizes: Vec<usize> = self.0.iter().map(|&axis| shape[axis]).collect();
        Ok(Spec { shape: Shape::new(&sizes), ..ins[0] })
    }
    fn view(&self, x: &Array) -> Option<Array> {
        let sizes: Vec<usize> = self.0.iter().map(|&axis| x.shape()[axis]).collect();
        let steps: Vec<isize> = self.0.iter().map(|&axis| x.strides()[axis]).collect();
        Some(x.view(0, Shape::new(&sizes), Strides::new(&steps)))
    }
    fn cpu(&self, _: &[&Array], _: Outputs<'_>) {
        unreachable!("always a view")
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Permute {
    fn transpose(&self, _: usize, c: &Tensor, _: &[Spec]) -> Tensor {
        let mut back = vec![0; self.0.len()];
        for (to, &from) in self.0.iter().enumerate() {
            back[from] = to;
        }
        c.permute(&back)
    }
}

/// Stretching by repetition, see [`Tensor::broadcast_to`].
#[derive(Debug)]
pub struct Broadcast(Shape);

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast_to"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        match ins[0].shape.broadcast(&self.0) == Some(self.0) {
            true => Ok(Spec { shape: self.0, ..ins[0] }),
            false => Err(format!("{:?} does not broadcast to {:?}", ins[0].shape, self.0)),
        }
    }
    fn view(&self, x: &Array) -> Option<Array> {
        Some(x.broadcast(&self.0))
    }
    fn cpu(&self, _: &[&Array], _: Outputs<'_>) {
        unreachable!("always a view")
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Broadcast {
    fn transpose(&self, _: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        c.sum_to(&specs[0].shape)
    }
}

/// Part of one dimension, see [`Tensor::slice`].
#[derive(Debug)]
pub struct Slice {
    axis: usize,
    start: usize,
    size: usize,
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let shape = ins[0].shape;
        match self.start + self.size <= shape[self.axis] {
            true => Ok(Spec { shape: shape.with(self.axis, self.size), ..ins[0] }),
            false => {
                Err(format!("{}..{} of dimension {} of shape {shape:?}", self.start, self.start + self.size, self.axis))
            }
        }
    }
    fn view(&self, x: &Array) -> Option<Array> {
        let skip = self.start as isize * x.strides()[self.axis];
        Some(x.view(skip, x.shape().with(self.axis, self.size), *x.strides()))
    }
    fn cpu(&self, _: &[&Array], _: Outputs<'_>) {
        unreachable!("always a view")
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Slice {
    fn transpose(&self, _: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        let after = specs[0].shape[self.axis] - self.start - self.size;
        c.pad(self.axis as isize, self.start, after)
    }
}

/// Zeros before and after along one dimension, see [`Tensor::pad`].
#[derive(Debug)]
pub struct Pad {
    axis: usize,
    before: usize,
    after: usize,
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let shape = ins[0].shape;
        Ok(Spec { shape: shape.with(self.axis, self.before + shape[self.axis] + self.after), ..ins[0] })
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        element!(ins[0].dtype(), T => {
            out.y.slice_mut::<T>().fill(bytemuck::Zeroable::zeroed());
            place::<T>(ins[0], out.y, self.axis, self.before)
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        element!(out.y.dtype(), T => out.y.fill::<T>(bytemuck::Zeroable::zeroed()));
        record_place(ins[0], out.y, self.axis, self.before);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Pad {
    fn transpose(&self, _: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        c.slice(self.axis as isize, self.before, specs[0].shape[self.axis])
    }
}

/// Tensors behind each other along one dimension, see [`Tensor::concat`].
#[derive(Debug)]
pub struct Concat(usize);

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let first = ins[0];
        let fits = |spec: &Spec| spec.dtype == first.dtype && spec.shape.len() == first.shape.len();
        let like = |spec: &Spec| spec.shape.with(self.0, 0) == first.shape.with(self.0, 0);
        if let Some(other) = ins.iter().find(|spec| !fits(spec) || !like(spec)) {
            return Err(format!("{} {:?} beside {} {:?}", other.dtype, other.shape, first.dtype, first.shape));
        }
        let size = ins.iter().map(|spec| spec.shape[self.0]).sum();
        Ok(Spec { shape: first.shape.with(self.0, size), ..first })
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let mut start = 0;
        for x in ins {
            element!(x.dtype(), T => place::<T>(x, out.y, self.0, start));
            start += x.shape()[self.0];
        }
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let mut start = 0;
        for x in ins {
            record_place(x, out.y, self.0, start);
            start += x.shape()[self.0];
        }
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Concat {
    fn transpose(&self, i: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        let start = specs[..i].iter().map(|spec| spec.shape[self.0]).sum();
        c.slice(self.0 as isize, start, specs[i].shape[self.0])
    }
}

/// Copies `x` into `y` from index `start` of `axis` on.
fn place<T: crate::dtype::Element>(x: &Array, y: &mut Array, axis: usize, start: usize) {
    let run: usize = x.shape()[axis..].iter().product();
    let step: usize = y.shape()[axis..].iter().product();
    let inner: usize = y.shape()[axis + 1..].iter().product();
    if run == 0 {
        return;
    }
    let x = x.to_contiguous();
    let rows = y.slice_mut::<T>().chunks_mut(step).zip(x.slice::<T>().chunks(run));
    for (row, part) in rows {
        row[start * inner..][..run].copy_from_slice(part);
    }
}

/// The same on a GPU: a thread for every word of `x`, or, as two halves share a word, for every word of `y`.
fn record_place(x: &Array, y: &mut Array, axis: usize, start: usize) {
    let run: usize = x.shape()[axis..].iter().product();
    let step: usize = y.shape()[axis..].iter().product();
    let inner: usize = y.shape()[axis + 1..].iter().product();
    let (count, size) = (x.count(), y.count());
    if count == 0 {
        return;
    }
    let (entry, threads) = if x.dtype().size() == 2 { ("place_halves", size.div_ceil(2)) } else { ("place", count) };
    let kernel = Kernel::new("copy", entry).write(y).read(x).words([run, step, start * inner, size]);
    Views::new(&[x]).fill(kernel, count).run(threads.div_ceil(256));
}

/// The tensor itself, as a node of its own: lets a replay tell its operands apart from what they came of.
#[derive(Debug)]
struct Alias;

impl Op for Alias {
    fn name(&self) -> &'static str {
        "alias"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        Ok(ins[0])
    }
    fn view(&self, x: &Array) -> Option<Array> {
        Some(x.clone())
    }
    fn cpu(&self, _: &[&Array], _: Outputs<'_>) {
        unreachable!("always a view")
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(&Contiguous)
    }
}

impl Tensor {
    pub(crate) fn alias(&self) -> Tensor {
        Tensor::apply(Alias, &[self])
    }

    /// The same elements row by row; a copy only if they do not lie so.
    #[track_caller]
    pub fn contiguous(&self) -> Tensor {
        if self.value.contiguous() { self.clone() } else { Tensor::apply(Contiguous, &[self]) }
    }

    /// The same elements in another shape; a view where strides allow, else a copy.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        Tensor::apply(Reshape(shape.into()), &[self])
    }

    /// Dimensions in the order `order`, as a view.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Tensor {
        Tensor::apply(Permute(order.to_vec()), &[self])
    }

    /// Two dimensions exchanged, as a view; negative counts from the end.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        let mut order: Vec<usize> = (0..self.shape().len()).collect();
        order.swap(self.shape().axis(a), self.shape().axis(b));
        self.permute(&order)
    }

    /// The last two dimensions exchanged, as a view.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        self.transpose(-2, -1)
    }

    /// Stretched to a larger shape by repetition, as a view.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if shape == *self.shape() { self.clone() } else { Tensor::apply(Broadcast(shape), &[self]) }
    }

    /// Indices `start .. start + size` of dimension `axis`, as a view.
    #[track_caller]
    pub fn slice(&self, axis: isize, start: usize, size: usize) -> Tensor {
        let axis = self.shape().axis(axis);
        Tensor::apply(Slice { axis, start, size }, &[self])
    }

    /// Index `index` of dimension `axis`, without that dimension, as a view.
    #[track_caller]
    pub fn index(&self, axis: isize, index: usize) -> Tensor {
        let axis = self.shape().axis(axis);
        let mut sizes = self.shape().to_vec();
        sizes.remove(axis);
        self.slice(axis as isize, index, 1).reshape(&sizes[..])
    }

    /// Zeros added before and after along dimension `axis`.
    #[track_caller]
    pub fn pad(&self, axis: isize, before: usize, after: usize) -> Tensor {
        let axis = self.shape().axis(axis);
        Tensor::apply(Pad { axis, before, after }, &[self])
    }

    /// Tensors behind each other along dimension `axis`.
    #[track_caller]
    pub fn concat(parts: &[&Tensor], axis: isize) -> Tensor {
        assert!(!parts.is_empty(), "concat: no tensors");
        Tensor::apply(Concat(parts[0].shape().axis(axis)), parts)
    }

    /// A dimension of size 1 inserted before `axis`.
    #[track_caller]
    pub fn unsqueeze(&self, axis: usize) -> Tensor {
        let mut sizes = self.shape().to_vec();
        sizes.insert(axis, 1);
        self.reshape(&sizes[..])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let x = || [Input::normal([3, 4])];
    vec![
        Sample::new(Contiguous, x()),
        Sample::new(Alias, x()),
        Sample::new(Reshape(Shape::new(&[2, 6])), x()),
        Sample::new(Permute(vec![2, 0, 1]), [Input::normal([2, 3, 4])]),
        Sample::new(Broadcast(Shape::new(&[2, 3, 4])), [Input::normal([3, 1])]),
        Sample::new(Slice { axis: 1, start: 1, size: 2 }, x()),
        Sample::new(Pad { axis: 0, before: 2, after: 1 }, x()),
        Sample::new(Concat(1), [Input::normal([3, 4]), Input::normal([3, 2])]),
    ]
}
