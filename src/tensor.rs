//! The tensor: a value, perhaps a trace, perhaps tangents. Its operations are methods, defined beside their kernels
//! in `ops`.

use crate::autograd::{LeafId, Lifted, Trace, apply};
use crate::device::{Array, Device, Spec, Tag};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::ops::Op;
use crate::shape::Shape;
use std::sync::Arc;

/// A strided view of elements on a device, with what differentiation needs of its past.
///
/// Cloning copies no elements. A tensor is `Send + Sync`. Wrong shapes or types in an expression are bugs of the
/// caller and panic, at the caller's line, naming the op and the shapes.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) value: Array,
    pub(crate) trace: Option<Arc<Trace>>,
    pub(crate) lifted: Option<Arc<Lifted>>,
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Tensor>()
};

impl Tensor {
    /// Copies `data`, row by row, to a device.
    ///
    /// ```
    /// # use eckart::{Device, Tensor};
    /// let x = Tensor::new(&[1.0_f32, 2.0, 3.0, 4.0], [2, 2], &Device::cpu());
    /// assert_eq!(x.t().to_vec::<f32>()?, [1.0, 3.0, 2.0, 4.0]);
    /// # Ok::<(), eckart::Error>(())
    /// ```
    #[track_caller]
    pub fn new<T: Element>(data: &[T], shape: impl Into<Shape>, device: &Device) -> Tensor {
        let shape = shape.into();
        assert_eq!(data.len(), shape.count(), "{} elements do not fill shape {shape:?}", data.len());
        Tensor::from_array(device.upload(data, shape))
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T, device: &Device) -> Tensor {
        Tensor::new(&[value], [], device)
    }

    /// One value everywhere. It is stored once.
    pub fn full(value: f64, spec: Spec, device: &Device) -> Tensor {
        let one = crate::element!(spec.dtype, T => device.constant(<T as Element>::from_f64(value)));
        Tensor::from_array(one.broadcast(&spec.shape))
    }

    /// Zeros; stored once.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Tensor {
        Tensor::full(0.0, Spec::new(dtype, shape), device)
    }

    /// Zeros of this tensor's type, shape and device; stored once.
    pub fn zeros_like(&self) -> Tensor {
        self.full_like(0.0)
    }

    /// Ones of this tensor's type, shape and device; stored once.
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }

    /// One value everywhere, with this tensor's type, shape and device; stored once.
    pub fn full_like(&self, value: f64) -> Tensor {
        Tensor::full(value, self.spec(), self.device())
    }

    /// A constant of this tensor's type that broadcasts against anything.
    pub fn constant_like(&self, value: f64) -> Tensor {
        Tensor::full(value, Spec::new(self.dtype(), []), self.device())
    }

    /// A tensor without a past.
    pub fn from_array(value: Array) -> Tensor {
        Tensor { value, trace: None, lifted: None }
    }

    /// The elements.
    pub fn array(&self) -> &Array {
        &self.value
    }

    /// The elements, and nothing else.
    pub fn into_array(self) -> Array {
        self.value
    }

    /// Sizes.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }

    /// Element type and sizes.
    pub fn spec(&self) -> Spec {
        self.value.spec()
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.value.count()
    }

    /// The device it lies on.
    pub fn device(&self) -> &Device {
        self.value.device()
    }

    /// Counts its storage under another tag from now on.
    pub fn tagged(self, tag: Tag) -> Tensor {
        self.value.retag(tag);
        self
    }

    /// Reads the elements, row by row, in their own type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if !self.device().computes() {
            return Err(Error::Device("the null device has no elements to read".into()));
        }
        if T::DTYPE != self.dtype() {
            return Err(Error::Config(format!("a {} tensor read as {}: cast it first", self.dtype(), T::DTYPE)));
        }
        Ok(self.value.to_host()?.slice().to_vec())
    }

    /// The same elements on another device, without a past; waits for a GPU that they come from.
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        let host = self.value.to_host()?;
        Ok(crate::element!(self.dtype(), T => Tensor::from_array(device.upload(host.slice::<T>(), *self.shape()))))
    }

    /// Reads the only element, widened to double precision.
    pub fn item(&self) -> Result<f64> {
        if self.count() != 1 {
            return Err(Error::Config(format!("a tensor of shape {:?} has no single value", self.shape())));
        }
        crate::element!(self.dtype(), T => Ok(self.to_vec::<T>()?[0].to_f64()))
    }

    /// Applies an op, built in or the user's own.
    #[track_caller]
    pub fn apply(op: impl Op + 'static, ins: &[&Tensor]) -> Tensor {
        apply(Arc::new(op), ins)
    }

    /// This value as a new leaf: gradients are taken with respect to it.
    pub fn leaf(&self) -> Tensor {
        self.leaf_as(LeafId::new(), false)
    }

    /// This value as the leaf `id`; `factored` if its gradient is wanted as factors where it is a weight.
    pub(crate) fn leaf_as(&self, id: LeafId, factored: bool) -> Tensor {
        Tensor { trace: Some(Trace::leaf(id, factored, *self.shape())), ..self.clone() }
    }

    /// The leaf this tensor is, if it is one.
    pub fn leaf_id(&self) -> Option<LeafId> {
        self.trace.as_ref().filter(|trace| trace.node.is_none()).map(|trace| LeafId(trace.id))
    }

    /// This value as a constant: no gradient flows through it, no tangent comes with it.
    pub fn detach(&self) -> Tensor {
        Tensor::from_array(self.value.clone())
    }

    /// Whether operations on it are recorded.
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// No trace; tangents stay.
    pub(crate) fn untraced(&self) -> Tensor {
        Tensor { value: self.value.clone(), trace: None, lifted: self.lifted.clone() }
    }

    /// Neither trace nor tangents.
    pub(crate) fn is_plain(&self) -> bool {
        self.trace.is_none() && self.lifted.is_none()
    }

    /// The sum, in the storage of one of the two where nothing else refers to it.
    pub(crate) fn sum_with(self, other: Tensor) -> Tensor {
        crate::ops::accumulate::sum(self, other)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {:?} on {:?}", self.value, self.device())
    }
}
