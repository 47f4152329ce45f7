//! A gradient added up in compressed form (Hao et al., "Flora: low-rank adapters are secretly gradient compressors", 2024,
//! gradient accumulation): C = Σ P Gᵢ, and Pᵀ C stands for the sum.

use crate::device::{Array, Tag, tagged};
use crate::ops::project::Random;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// The sketch C = P G of a gradient G [m, n] whose rows are the smaller side, else of Gᵀ: [rank, the larger side].
pub struct Sketch {
    pub(super) array: Array,
    pub(super) random: Random,
    /// Shape of the gradient.
    pub(super) shape: Shape,
}

/// Shape of the sketch of a matrix of this shape.
pub(super) fn sketch_shape(random: &Random, shape: &Shape) -> [usize; 2] {
    [random.rank, shape[0].max(shape[1])]
}

impl Sketch {
    fn small(&self) -> usize {
        self.shape[0].min(self.shape[1])
    }

    /// Pᵀ C, in the gradient's shape.
    pub(super) fn lifted(&self) -> Array {
        tagged(Tag::Gradients, || {
            let small = self.small();
            let lifted = Tensor::from_array(self.array.clone()).project_back(self.random, small);
            let lifted = if self.shape[0] > self.shape[1] { lifted.t().contiguous() } else { lifted };
            lifted.into_array()
        })
    }

    /// ‖Pᵀ C‖ = √⟨C, (P Pᵀ) C⟩, without lifting: a scalar.
    pub(super) fn length(&self) -> Tensor {
        tagged(Tag::Workspace, || {
            let c = Tensor::from_array(self.array.clone());
            let gram = self.random.overlap(self.random, self.small(), c.dtype(), c.device());
            (gram.matmul(&c) * &c).sum_all().sqrt()
        })
    }
}
