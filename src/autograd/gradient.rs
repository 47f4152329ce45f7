//! Gradients as they come out of the walk: dense, or as the factors of a linear map's weight gradient.

use crate::shape::Shape;
use crate::tensor::Tensor;

/// A weight gradient not yet multiplied out. The consumer chooses: densify, sketch, take its norm.
pub enum Factors {
    /// xᵀ dy, for y = x W: `x` is [rows, in], `dy` is [rows, out].
    Product {
        /// Input of the map.
        x: Tensor,
        /// Cotangent of its output.
        dy: Tensor,
    },
    /// Row `ids[i]` gets `dy[i]` added, for y = W[ids]: `ids` is [rows], `dy` is [rows, width].
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
        let dense = self.factors.iter().map(|factors| factors.dense(&self.shape));
        self.dense.into_iter().chain(dense).reduce(Tensor::sum_with)
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
