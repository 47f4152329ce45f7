//! Gradients as they come out of the walk: dense, or as the factors of a linear map's weight gradient.

use super::apply_onto;
use crate::ops::index::ScatterAdd;
use crate::ops::matmul::Matmul;
use crate::ops::project::{Random, compresses_rows};
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::sync::Arc;

/// A weight gradient not yet multiplied out. The consumer chooses: densify, sketch, take its norm.
pub enum Factors {
    /// xᵀ dy, for y = x W: `x` is [rows, in], `dy` is [rows, out].
    Product {
        /// Input of the map.
        x: Tensor,
        /// Cotangent of its output.
        dy: Tensor,
    },
    /// Row `ids[i]` gets `dy[i]` added, for `y = W[ids]`: `ids` is `[rows]`, `dy` is `[rows, width]`.
    Rows {
        /// Which row of the weight each row of `dy` belongs to.
        ids: Tensor,
        /// Cotangents of the rows.
        dy: Tensor,
    },
}

impl Factors {
    /// Multiplied out, for a weight of this shape.
    pub fn dense(&self, shape: &Shape) -> Tensor {
        match self {
            Factors::Product { x, dy } => x.t().matmul(dy),
            Factors::Rows { ids, dy } => dy.scatter_add(ids, shape[0]),
        }
    }

    /// Multiplied out and added to `sum`, without a storage of its own where that can be.
    pub fn add_to(&self, sum: Tensor) -> Tensor {
        match self {
            Factors::Product { x, dy } => apply_onto(Arc::new(Matmul), &[&x.t(), dy], sum),
            Factors::Rows { ids, dy } => apply_onto(Arc::new(ScatterAdd { rows: sum.shape()[0] }), &[dy, ids], sum),
        }
    }

    /// ‖xᵀ dy‖², the square of the Frobenius norm: from x xᵀ and dy dyᵀ, [rows, rows], where those are smaller.
    pub fn square(&self, shape: &Shape) -> Tensor {
        match self {
            Factors::Product { x, dy } if x.shape()[0].pow(2) < shape.count() => {
                x.matmul(&x.t()).dot(&dy.matmul(&dy.t()))
            }
            factors => {
                let dense = factors.dense(shape);
                dense.dot(&dense)
            }
        }
    }

    /// [`Random::sketch`] of what they multiply out to, for a weight of this shape, without multiplying out.
    #[track_caller]
    pub fn sketch(&self, random: Random, shape: &Shape) -> Tensor {
        match self.sketched(random, shape) {
            Sketch::Product(a, b) => a.matmul(&b),
            Sketch::Done(sketch) => sketch.contiguous(),
        }
    }

    /// The same, added to `sum`, in its storage where nothing else refers to that.
    #[track_caller]
    pub fn sketch_onto(&self, random: Random, shape: &Shape, sum: Tensor) -> Tensor {
        assert_eq!(*sum.shape(), random.sketch_shape(shape), "a sketch added to one of another shape");
        match self.sketched(random, shape) {
            Sketch::Product(a, b) => apply_onto(Arc::new(Matmul), &[&a, &b], sum),
            Sketch::Done(sketch) => sum.sum_with(sketch),
        }
    }

    #[track_caller]
    fn sketched(&self, p: Random, shape: &Shape) -> Sketch {
        match (self, compresses_rows(shape)) {
            // P xᵀ dy, or P dyᵀ x: [rank, rows] times [rows, out] or [rows, in].
            (Factors::Product { x, dy }, true) => Sketch::Product(x.t().project(p), dy.clone()),
            (Factors::Product { x, dy }, false) => Sketch::Product(dy.t().project(p), x.clone()),
            // Each row of dy by its column of P; there are as many as the smaller side has.
            (Factors::Rows { ids, dy }, true) => {
                let columns = p.transposed(shape[0], dy.dtype(), dy.device());
                Sketch::Product(columns.gather(ids).t(), dy.clone())
            }
            (Factors::Rows { ids, dy }, false) => Sketch::Done(dy.project_rows(p).scatter_add(ids, shape[0]).t()),
        }
    }
}

/// A sketch that is still a product, or not.
enum Sketch {
    Product(Tensor, Tensor),
    Done(Tensor),
}

/// Gradient of one leaf: the sum of its parts.
pub struct Gradient {
    /// Shape of the leaf.
    pub shape: Shape,
    /// Already dense.
    pub dense: Option<Tensor>,
    /// Still in factors; one for each use of a tied weight.
    pub factors: Vec<Factors>,
}

impl Gradient {
    /// The sum, multiplied out; `None` if nothing depended on the leaf.
    pub fn densify(self) -> Option<Tensor> {
        let mut factors = self.factors.iter();
        let first = self.dense.or_else(|| factors.next().map(|first| first.dense(&self.shape)))?;
        Some(factors.fold(first, |sum, next| next.add_to(sum)))
    }

    /// The square of the sum's Frobenius norm; without multiplying out where it is one product of few rows. `None` if
    /// nothing depended on the leaf.
    pub fn square(self) -> Option<Tensor> {
        match (&self.dense, &self.factors[..]) {
            (None, [one]) => Some(one.square(&self.shape)),
            _ => self.densify().map(|dense| dense.dot(&dense)),
        }
    }

    /// Added to `sum`, in its storage where nothing else refers to that.
    pub fn add_to(self, sum: Tensor) -> Tensor {
        let sum = self.factors.iter().fold(sum, |sum, factors| factors.add_to(sum));
        self.dense.into_iter().fold(sum, Tensor::sum_with)
    }

    /// [`Random::sketch`] of the sum, [rank, n] or [rank, m] for a weight [m, n], without multiplying out; `None` if
    /// nothing depended on the leaf.
    #[track_caller]
    pub fn sketch(self, random: Random) -> Option<Tensor> {
        let mut factors = self.factors.iter();
        let first = match &self.dense {
            Some(dense) => random.sketch(dense),
            None => factors.next()?.sketch(random, &self.shape),
        };
        Some(factors.fold(first, |sum, next| next.sketch_onto(random, &self.shape, sum)))
    }

    /// The same, added to `sum`, in its storage where nothing else refers to that.
    #[track_caller]
    pub fn sketch_onto(self, random: Random, sum: Tensor) -> Tensor {
        let sum = self.factors.iter().fold(sum, |sum, factors| factors.sketch_onto(random, &self.shape, sum));
        self.dense.iter().fold(sum, |sum, dense| random.sketch_onto(dense, sum))
    }

    pub(super) fn new(shape: Shape) -> Self {
        Gradient { shape, dense: None, factors: Vec::new() }
    }

    pub(super) fn add(&mut self, c: Tensor) {
        self.dense = Some(match self.dense.take() {
            Some(sum) => sum.sum_with(c),
            None => c,
        });
    }
}
