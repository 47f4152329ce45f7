//! A strided view of a storage: what kernels read and write.

use super::{Buffer, Device, ledger::Tag};
use crate::dtype::{DType, Element};
use crate::shape::{Shape, Strides};
use std::sync::Arc;

/// Element type and sizes of an array that may not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Shape,
}

impl Spec {
    /// Element type and sizes.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Spec {
        Spec { dtype, shape: shape.into() }
    }

    /// Bytes of a storage for it.
    pub fn bytes(&self) -> usize {
        self.shape.count() * self.dtype.size()
    }
}

/// A view of a [`Buffer`]. Cloning it, transposing, slicing and broadcasting copy nothing.
#[derive(Clone)]
pub struct Array {
    buffer: Arc<Buffer>,
    offset: usize,
    dtype: DType,
    shape: Shape,
    strides: Strides,
}

impl Array {
    pub(super) fn new(buffer: Buffer, spec: Spec) -> Array {
        Array {
            buffer: Arc::new(buffer),
            offset: 0,
            dtype: spec.dtype,
            shape: spec.shape,
            strides: spec.shape.strides(),
        }
    }

    /// The device it lies on.
    pub fn device(&self) -> &Device {
        self.buffer.device()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Steps, in elements.
    pub fn strides(&self) -> &Strides {
        &self.strides
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.count()
    }

    /// Element type and sizes.
    pub fn spec(&self) -> Spec {
        Spec { dtype: self.dtype, shape: self.shape }
    }

    /// Whether it lies row by row without gaps.
    pub fn contiguous(&self) -> bool {
        self.strides.contiguous(&self.shape)
    }

    /// Whether nothing else refers to its storage, so that it may be written in place.
    pub fn unique(&self) -> bool {
        Arc::strong_count(&self.buffer) == 1
    }

    /// Another view of the same storage, `skip` elements further on.
    pub fn view(&self, skip: isize, shape: Shape, strides: Strides) -> Array {
        let offset = self.offset.checked_add_signed(skip).expect("a view starts inside its storage");
        Array { buffer: self.buffer.clone(), offset, dtype: self.dtype, shape, strides }
    }

    /// The same elements in another shape, if no copy is needed for it.
    pub fn reshaped(&self, shape: Shape) -> Option<Array> {
        let strides = self.strides.reshape(&self.shape, &shape)?;
        Some(self.view(0, shape, strides))
    }

    /// Read as a larger shape; stretched dimensions step by 0.
    pub fn broadcast(&self, shape: &Shape) -> Array {
        self.view(0, *shape, self.strides.broadcast(&self.shape, shape))
    }

    /// The storage from this view's first element on; walk it by [`Array::strides`]. An empty view may begin beyond
    /// its storage's end.
    pub fn raw<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype, "read as another element type");
        let storage = self.buffer.slice();
        &storage[self.offset.min(storage.len())..]
    }

    /// The elements, in order; panics unless contiguous.
    pub fn slice<T: Element>(&self) -> &[T] {
        assert!(self.contiguous(), "a strided view read as a slice");
        &self.raw()[..self.count()]
    }

    /// The elements, for writing; panics unless contiguous and unique.
    pub fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "written as another element type");
        assert!(self.contiguous(), "a strided view written as a slice");
        let (offset, count) = (self.offset, self.count());
        let buffer = Arc::get_mut(&mut self.buffer).expect("a shared storage is never written");
        &mut buffer.slice_mut()[offset..offset + count]
    }

    /// What its storage is counted under.
    pub fn tag(&self) -> Tag {
        self.buffer.tag()
    }

    /// Counts its storage under another tag from now on.
    pub fn retag(&self, tag: Tag) {
        self.buffer.retag(tag);
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}
