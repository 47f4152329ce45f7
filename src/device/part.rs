//! Storages larger than what a kernel may bind: the parts of them that it binds instead.

use super::kernel::{Kernel, Views};
use super::{Array, Device};
use std::ops::Range;

/// Bytes that a part begins at a multiple of: the most that any adapter asks for.
const START: usize = 256;
/// Bytes that a part ends at a multiple of, as storages do.
const END: usize = super::memory::UNIT;

/// Elements of `size` bytes to bind, so that these can be read.
pub(super) fn window(reach: Range<usize>, size: usize) -> Range<usize> {
    let [start, end] = [START, END].map(|bytes| bytes / size);
    reach.start / start * start..reach.end.next_multiple_of(end)
}

/// Elements of `size` bytes that a part of a result begins at a multiple of.
pub fn unit(size: usize) -> usize {
    START / size
}

/// Most elements of `size` bytes that can be bound, in whole units.
pub fn most(device: &Device, size: usize) -> usize {
    let bytes = usize::try_from(device.binding()).unwrap_or(usize::MAX);
    (bytes / START).max(1).saturating_mul(unit(size)).min(isize::MAX as usize)
}

/// Fewest rows of `inner` elements each that make whole units.
pub fn rows_of_units(inner: usize, unit: usize) -> usize {
    unit >> inner.trailing_zeros().min(unit.trailing_zeros())
}

impl Array {
    /// Whether kernels can bind its whole storage.
    pub fn fits(&self) -> bool {
        self.storage_bytes() as u64 <= self.device().binding()
    }

    /// Elements of its storage from its first to its last; where there are none, the storage's first.
    pub fn reach(&self) -> Range<usize> {
        if self.count() == 0 {
            return 0..1;
        }
        let last: usize =
            self.shape().iter().zip(self.strides().iter()).map(|(n, step)| (n - 1) * *step as usize).sum();
        self.offset()..self.offset() + last + 1
    }

    /// Where it begins in what [`Kernel::read_view`] binds.
    pub fn start(&self) -> usize {
        if self.fits() { self.offset() } else { self.offset() % unit(self.dtype().size()) }
    }

    /// Whether [`Kernel::read_view`] can bind it.
    pub fn seen(&self) -> bool {
        self.fits() || fits(self.device(), self.reach(), self.dtype().size())
    }

    /// All elements of a contiguous array that begins its storage, as far as they are bound together: cut at multiples of
    /// `step`, which a part may begin at.
    pub fn parts(&self, step: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (count, most) = (self.count(), most(self.device(), self.dtype().size()));
        let together = if self.fits() { count.max(1) } else { (most / step).max(1) * step };
        (0..count).step_by(together).map(move |first| first..count.min(first + together))
    }

    /// Those `len` of its parts along `axis` that begin with `start`.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Array {
        self.view(start as isize * self.strides()[axis], self.shape().with(axis, len), *self.strides())
    }
}

/// Whether so many elements of `size` bytes can be bound.
pub fn fits(device: &Device, reach: Range<usize>, size: usize) -> bool {
    (window(reach, size).len() * size) as u64 <= device.binding()
}

/// A part of a result, and the views of operands that it is made of.
pub struct Piece {
    /// The views, counted from where the parts of operands begin.
    pub views: Views,
    /// Elements.
    pub count: usize,
    /// What is bound of the result and of each operand; everything where none.
    parts: Option<Vec<Range<usize>>>,
}

impl Piece {
    /// Views `ins` and the result `y` of one shape, whole if they can be bound so or cannot be cut.
    pub fn cut(ins: &[&Array], y: &Array) -> Vec<Piece> {
        let views = Views::new(ins);
        let whole = || vec![Piece { views: views.clone(), count: y.count(), parts: None }];
        if y.count() == 0 || y.fits() && ins.iter().all(|x| x.fits()) {
            return whole();
        }
        let mut pieces = Vec::new();
        if cut(views.clone(), 0, ins, y, &mut pieces) { pieces } else { whole() }
    }

    /// Binds the result and the operands.
    pub fn bind<'a>(
        &self,
        kernel: Kernel<'a>,
        y: &'a mut Array,
        ins: impl IntoIterator<Item = &'a Array>,
    ) -> Kernel<'a> {
        let Some(parts) = &self.parts else { return ins.into_iter().fold(kernel.write(y), Kernel::read) };
        let kernel = kernel.write_part(y, parts[0].clone());
        ins.into_iter().zip(&parts[1..]).fold(kernel, |kernel, (x, part)| kernel.read_part(x, part.clone()))
    }
}

/// Pieces of the result from element `start` on: its outermost dimension is halved until all parts fit. False if they
/// never do.
fn cut(mut views: Views, start: usize, ins: &[&Array], y: &Array, pieces: &mut Vec<Piece>) -> bool {
    let count = views.count();
    let reaches = std::iter::once(start..start + count).chain((0..ins.len()).map(|i| views.reach(i)));
    let sizes = [y].into_iter().chain(ins.iter().copied()).map(|x| x.dtype().size());
    let reaches: Vec<_> = reaches.zip(sizes).collect();
    if reaches.iter().all(|(reach, size)| fits(y.device(), reach.clone(), *size)) {
        let mut parts: Vec<_> = reaches.into_iter().map(|(reach, size)| window(reach, size)).collect();
        views.offsets.iter_mut().zip(&parts[1..]).for_each(|(offset, part)| *offset -= part.start);
        parts[0].end = start + count;
        pieces.push(Piece { views, count, parts: Some(parts) });
        return true;
    }
    let Some((size, _)) = views.dims.last() else { return false };
    if *size == 1 {
        views.dims.pop();
        return cut(views, start, ins, y, pieces);
    }
    let inner = count / size;
    let first = (size / 2).max(1).next_multiple_of(rows_of_units(inner, unit(y.dtype().size())));
    if first >= *size {
        return false;
    }
    let [low, high] = views.halves(first);
    cut(low, start, ins, y, pieces) && cut(high, start + first * inner, ins, y, pieces)
}

impl Views {
    fn count(&self) -> usize {
        self.dims.iter().map(|(size, _)| size).product()
    }

    fn reach(&self, i: usize) -> Range<usize> {
        let last: usize = self.dims.iter().map(|(size, steps)| (size - 1) * steps[i]).sum();
        self.offsets[i]..self.offsets[i] + last + 1
    }

    /// The first `first` of the outermost dimension, and the rest.
    fn halves(self, first: usize) -> [Views; 2] {
        let [mut low, mut high] = [self.clone(), self];
        if let (Some(low), Some((size, steps))) = (low.dims.last_mut(), high.dims.last_mut()) {
            low.0 = first;
            *size -= first;
            high.offsets.iter_mut().zip(steps).for_each(|(offset, step)| *offset += first * *step);
        }
        [low, high]
    }
}
