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

impl Sketch {
    /// Pᵀ C, in the gradient's shape.
    pub(super) fn lifted(&self) -> Array {
        tagged(Tag::Gradients, || {
            self.random.lift(&Tensor::from_array(self.array.clone()), &self.shape).contiguous().into_array()
        })
    }

    /// ‖Pᵀ C‖ = √⟨C, (P Pᵀ) C⟩, without lifting: a scalar.
    pub(super) fn length(&self) -> Tensor {
        tagged(Tag::Workspace, || {
            let c = Tensor::from_array(self.array.clone());
            let small = self.shape[0].min(self.shape[1]);
            let gram = self.random.overlap(self.random, small, c.dtype(), c.device());
            gram.matmul(&c).dot(&c).sqrt()
        })
    }
}
