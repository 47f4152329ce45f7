//! Trainable tensors.

use super::{Module, Path};
use crate::autograd::LeafId;
use crate::device::{Array, Tag, tagged};
use crate::tensor::Tensor;

/// A trainable tensor with an identity of its own: copies of it are the same leaf.
#[derive(Clone, Debug)]
pub struct Parameter {
    tensor: Tensor,
    id: LeafId,
}

impl Parameter {
    /// Counts the value under weights. Its gradient comes in factors where it is used as a linear map.
    pub fn new(value: Tensor) -> Parameter {
        let id = LeafId::new();
        let tensor = value.detach().tagged(Tag::Weights).leaf_as(id, true);
        Parameter { tensor, id }
    }

    /// What the model computes with.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Which leaf its gradients arrive under.
    pub fn id(&self) -> LeafId {
        self.id
    }

    /// Whether gradients are taken with respect to it.
    pub fn trains(&self) -> bool {
        self.tensor.is_traced()
    }

    /// Makes it a constant.
    pub fn freeze(&mut self) {
        self.tensor = self.tensor.detach();
    }

    /// Replaces the value.
    pub fn set(&mut self, value: Tensor) {
        let value = value.detach().tagged(Tag::Weights);
        self.tensor = if self.trains() { value.leaf_as(self.id, true) } else { value };
    }

    /// Lets the model compute with another tensor in its place, such as one that moves along a tangent.
    pub fn bind(&mut self, tensor: Tensor) {
        self.tensor = tensor;
    }

    /// The value, to change it: its own storage if nothing else refers to that, else a copy.
    pub fn value_mut(&mut self) -> &mut Array {
        if !self.tensor.value.owned() {
            let copy = tagged(Tag::Weights, || self.tensor.value.to_owned());
            self.tensor.value = copy;
        }
        &mut self.tensor.value
    }
}

impl Module for Parameter {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        see(path, self);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        see(path, self);
    }
}
