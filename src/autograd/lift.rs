//! Forward mode: a tensor with tangents, one level of it for each nested `jvp`.

use super::record::next_id;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Value and tangents of a tensor inside one `jvp`. The primal may itself be lifted, at a lower level.
pub(crate) struct Lifted {
    pub level: u64,
    pub primal: Tensor,
    /// One for each direction; `None` is zero and costs nothing.
    pub tangents: Vec<Option<Tensor>>,
}

/// A level above all levels in use.
pub(crate) fn next_level() -> u64 {
    next_id()
}

impl Tensor {
    /// This tensor moving along `tangents`.
    pub(crate) fn lift(self, level: u64, tangents: Vec<Option<Tensor>>) -> Tensor {
        let value = self.value.clone();
        Tensor { value, trace: None, lifted: Some(Arc::new(Lifted { level, primal: self, tangents })) }
    }

    /// Highest level at which this tensor is lifted.
    pub(crate) fn level(&self) -> Option<u64> {
        self.lifted.as_ref().map(|lifted| lifted.level)
    }

    /// Primal and tangents at `level`; at any other level a tensor is a constant.
    pub(crate) fn lower(&self, level: u64) -> (Tensor, &[Option<Tensor>]) {
        match &self.lifted {
            Some(lifted) if lifted.level == level => (lifted.primal.clone(), &lifted.tangents),
            _ if self.traced_above(level) => (self.untraced(), &[]),
            _ => (self.clone(), &[]),
        }
    }

    /// Whether its trace was begun inside the `jvp` of this level, so that it lies over the tangents, not under.
    pub(crate) fn traced_above(&self, level: u64) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.oldest > level)
    }

    /// Primal and tangent `k`, taken apart; the primal is unique if this was.
    pub(crate) fn into_parts(self, level: u64, directions: usize) -> (Tensor, Vec<Option<Tensor>>) {
        match self.lifted {
            Some(lifted) if lifted.level == level => {
                drop(self.value);
                match Arc::try_unwrap(lifted) {
                    Ok(lifted) => (lifted.primal, lifted.tangents),
                    Err(shared) => (shared.primal.clone(), shared.tangents.clone()),
                }
            }
            _ => (self, vec![None; directions]),
        }
    }
}
