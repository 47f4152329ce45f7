//! Linear maps: matrices that layers multiply by without knowing how they are stored.

use super::{Module, Parameter, Path};
use crate::ops::linear::Linear;
use crate::tensor::Tensor;
use std::any::Any;
use std::fmt::Debug;

/// A matrix W [in, out], however it is stored. Layers hold a [`LinearMap`]; the kinds are [`Dense`] and those of
/// `lowrank`.
pub trait Map: Module + Any + Debug + Send + Sync {
    /// `in` and `out`.
    fn sizes(&self) -> [usize; 2];

    /// `x W + b`: [.., in] to [.., out].
    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor;

    /// `x Wᵀ`: [.., out] to [.., in].
    fn apply_transposed(&self, x: &Tensor) -> Tensor;

    /// Rows `ids` of W: [..] indices below `in` to [.., out].
    fn rows(&self, _ids: &Tensor) -> Tensor {
        panic!("this kind of map is for products: leave embeddings out of the layers that get one")
    }

    /// Rows `start` to `start + count` of W, [count, out].
    fn rows_between(&self, _start: usize, _count: usize) -> Tensor {
        panic!("this kind of map is for products: leave embeddings out of the layers that get one")
    }

    /// The same parameters in a map of its own.
    fn boxed(&self) -> Box<dyn Map>;
}

/// A matrix that may only be multiplied by, forwards and transposed, or read by rows.
#[derive(Debug)]
pub struct LinearMap {
    map: Box<dyn Map>,
    /// Whether its place in the model is that of an embedding.
    embedding: bool,
}

impl Clone for LinearMap {
    fn clone(&self) -> LinearMap {
        LinearMap { map: self.map.boxed(), embedding: self.embedding }
    }
}

impl LinearMap {
    /// Any kind of map.
    pub fn new(map: impl Map) -> LinearMap {
        LinearMap { map: Box::new(map), embedding: false }
    }

    /// A table stored as [rows, width], read by rows; used as an output head too where that is tied to it.
    pub fn embedding(table: Tensor) -> LinearMap {
        LinearMap { embedding: true, ..LinearMap::dense(table) }
    }

    /// A weight stored as [in, out].
    pub fn dense(weight: Tensor) -> LinearMap {
        LinearMap::new(Dense { weight: Parameter::new(weight), transposed: false })
    }

    /// A weight stored as [out, in].
    pub fn transposed(weight: Tensor) -> LinearMap {
        LinearMap::new(Dense { weight: Parameter::new(weight), transposed: true })
    }

    /// Puts another map in the place of this one, which it is made from.
    pub fn replace<M: Map>(&mut self, with: impl FnOnce(LinearMap) -> M) {
        self.map = Box::new(with(self.clone()));
    }

    /// Whether its place in the model is that of an embedding, whatever kind of map it is.
    pub fn is_embedding(&self) -> bool {
        self.embedding
    }

    /// `in` and `out`.
    pub fn sizes(&self) -> [usize; 2] {
        self.map.sizes()
    }

    /// `x W + b`: [.., in] to [.., out].
    #[track_caller]
    pub fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.check(x, 0);
        self.map.apply(x, bias)
    }

    /// `x Wᵀ`: [.., out] to [.., in]; an embedding's map used so is a tied output head.
    #[track_caller]
    pub fn apply_transposed(&self, x: &Tensor) -> Tensor {
        self.check(x, 1);
        self.map.apply_transposed(x)
    }

    /// Rows `ids` of W: [..] indices below `in` to [.., out].
    #[track_caller]
    pub fn rows(&self, ids: &Tensor) -> Tensor {
        self.map.rows(ids)
    }

    /// Rows `start` to `start + count` of W, [count, out].
    #[track_caller]
    pub fn rows_between(&self, start: usize, count: usize) -> Tensor {
        let rows = self.sizes()[0];
        assert!(start + count <= rows, "rows {start} to {} of a map that has {rows}", start + count);
        self.map.rows_between(start, count)
    }

    /// Here, because a call by way of a table would forget the caller's line.
    #[track_caller]
    fn check(&self, x: &Tensor, side: usize) {
        let sizes = self.sizes();
        let fits = x.shape().last() == Some(&sizes[side]);
        assert!(fits, "linear: x of shape {:?} and a map of {sizes:?}, multiplied along {}", x.shape(), sizes[side]);
    }

    /// The map itself, if it is of this kind.
    pub fn get<M: Map>(&self) -> Option<&M> {
        (&*self.map as &dyn Any).downcast_ref()
    }

    /// The same, to change it.
    pub fn get_mut<M: Map>(&mut self) -> Option<&mut M> {
        (&mut *self.map as &mut dyn Any).downcast_mut()
    }
}

impl Module for LinearMap {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.map.visit(path, see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.map.visit_mut(path, see);
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        see(path, self);
    }
}

/// The matrix itself.
#[derive(Clone, Debug)]
pub struct Dense {
    /// [in, out], or [out, in] if transposed.
    pub weight: Parameter,
    /// Whether it is stored as [out, in].
    pub transposed: bool,
}
crate::module!(Dense: weight);

impl Map for Dense {
    fn sizes(&self) -> [usize; 2] {
        let shape = self.weight.tensor().shape();
        if self.transposed { [shape[1], shape[0]] } else { [shape[0], shape[1]] }
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        multiply(Linear { transposed: self.transposed }, x, self.weight.tensor(), bias)
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        multiply(Linear { transposed: !self.transposed }, x, self.weight.tensor(), None)
    }

    fn rows(&self, ids: &Tensor) -> Tensor {
        assert!(!self.transposed, "an embedding is stored as [rows, width]");
        self.weight.tensor().gather(ids)
    }

    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        assert!(!self.transposed, "an embedding is stored as [rows, width]");
        let weight = self.weight.tensor();
        // All of them are the weight itself: its gradient needs no padding.
        if (start, count) == (0, weight.shape()[0]) { weight.clone() } else { weight.slice(0, start, count) }
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

fn multiply(op: Linear, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    match bias {
        Some(bias) => Tensor::apply(op, &[x, weight, bias]),
        None => Tensor::apply(op, &[x, weight]),
    }
}
