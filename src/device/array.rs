//! A strided view of a storage: what kernels read and write.

use super::{Buffer, Device, kernel::Kernel, ledger::Tag};
use crate::dtype::{DType, Element};
use crate::error::Result;
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

    /// Whether it has a storage for itself and lies in it row by row from the start on, as what kernels write.
    pub fn owned(&self) -> bool {
        self.unique() && self.contiguous() && self.offset == 0
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

    /// Where it begins in its storage, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes that kernels see of its storage, when they see it whole.
    pub(super) fn storage_bytes(&self) -> usize {
        self.buffer.padded()
    }

    /// The GPU's handle of its storage.
    #[cfg(feature = "gpu")]
    pub(super) fn gpu_buffer(&self) -> Option<&wgpu::Buffer> {
        self.buffer.gpu()
    }

    /// The elements row by row, in host memory: a copy unless they lie so there. Waits for a GPU, and reports what went
    /// wrong on it.
    pub fn to_host(&self) -> Result<Array> {
        Ok(Array::all_to_host(&[self])?.remove(0))
    }

    /// The same of several arrays, with one wait for many. Those of a GPU have to be of one.
    #[track_caller]
    pub fn all_to_host(arrays: &[&Array]) -> Result<Vec<Array>> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = arrays.iter().find_map(|x| x.device().gpu()) {
            let device = arrays[0].device();
            assert!(arrays.iter().all(|x| x.device().is(device)), "arrays on several devices read together");
            return gpu.read(arrays);
        }
        Ok(arrays.iter().map(|x| x.to_contiguous()).collect())
    }

    /// One value everywhere; panics unless contiguous, unique and the whole storage.
    pub fn fill<T: Element>(&mut self, value: T) {
        if !self.device().is_gpu() {
            return self.slice_mut().fill(value);
        }
        assert!(self.owned(), "a view or shared storage written");
        // Two halves to a word; storages are padded to whole ones.
        let word = bytemuck::bytes_of(&value).iter().cycle().take(4).copied().collect::<Vec<u8>>();
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let size = self.dtype.size();
        for part in self.parts(super::part::unit(size)) {
            let count = (part.len() * size).div_ceil(4);
            let kernel = Kernel::new("fill", "fill").write_part(self, part);
            kernel.word(count).word(word as usize).run(count.div_ceil(256));
        }
    }

    /// Copies elements over all of it; panics unless contiguous, unique and the whole storage.
    pub fn fill_from<T: Element>(&mut self, data: &[T]) {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.device().clone().gpu() {
            assert!(self.owned(), "a view or shared storage written");
            assert_eq!((T::DTYPE, data.len()), (self.dtype, self.count()), "elements of another type or number");
            return gpu.write(self, bytemuck::cast_slice(data));
        }
        self.slice_mut().copy_from_slice(data);
    }

    /// Copies elements over the whole storage before all that is recorded later: for small storages that the host
    /// writes anew for every step. What was recorded before still reads the old ones. Does nothing on the null device.
    pub fn feed<T: Element>(&mut self, data: &[T]) {
        assert_eq!((T::DTYPE, data.len()), (self.dtype, self.count()), "elements of another type or number");
        #[cfg(feature = "gpu")]
        if let (Some(gpu), Some(buffer)) = (self.device().gpu(), self.gpu_buffer()) {
            return gpu.feed(buffer, bytemuck::cast_slice(data));
        }
        if self.device().computes() && !self.device().is_gpu() {
            self.slice_mut().copy_from_slice(data);
        }
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
