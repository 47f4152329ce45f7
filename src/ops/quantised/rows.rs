//! Rows of a matrix in fewer bits, unpacked: by index, as from an embedding, or some that follow each other.

use super::{Packed, check, stored};
use crate::autograd::Derivative;
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::float;
use crate::ops::{Input, Op, Outputs, Sample};
use crate::scalar::Float;
use std::ops::Range;

/// Rows of S as numbers, in the type of its scales; operands are the codes of S, its scales, and indices `[..]` of rows
/// unless they are said here. Constants: nothing can be differentiated in.
#[derive(Clone, Debug)]
pub struct Rows {
    /// How S is stored.
    pub packed: Packed,
    /// Which rows, where it is not indices that say so: the result is [rows, columns].
    pub range: Option<Range<usize>>,
}

impl Op for Rows {
    fn name(&self) -> &'static str {
        "quantised_rows"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        check(&self.packed, &ins[0], &ins[1])?;
        let shape = match (&self.range, ins.get(2)) {
            (Some(range), None) if range.start <= range.end && range.end <= self.packed.rows => vec![range.len()],
            (None, Some(ids)) if ids.dtype == DType::U32 => ids.shape.to_vec(),
            (None, Some(ids)) => return Err(format!("indices are u32, not {}", ids.dtype)),
            (range, _) => return Err(format!("rows {range:?} of {}", self.packed.rows)),
        };
        Ok(Spec::new(ins[1].dtype, &[&shape[..], &[self.packed.columns]].concat()[..]))
    }

    fn contiguous(&self) -> bool {
        true
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[1].dtype(), T => self.copy::<T>(ins, out.y.slice_mut()))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out.y);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Zero
    }
}

impl Rows {
    fn copy<T: Float>(&self, ins: &[&Array], out: &mut [T]) {
        let (codes, scales, columns) = (ins[0].slice(), ins[1].slice(), self.packed.columns);
        match &self.range {
            Some(range) => self.packed.unpack(codes, scales, range.clone(), 0..columns, out),
            None => {
                for (out, &id) in out.chunks_exact_mut(columns).zip(ins[2].slice::<u32>()) {
                    let (row, all) = (id as usize, self.packed.rows);
                    assert!(row < all, "index {id} into {all} rows");
                    self.packed.unpack(codes, scales, row..row + 1, 0..columns, out);
                }
            }
        }
    }
}

pub(super) fn samples(packed: Packed) -> Vec<Sample> {
    let ids = Input::index([2, 3], packed.rows as u32);
    let by_index = stored(packed).into_iter().chain([ids]).collect::<Vec<_>>();
    let range = Rows { packed, range: Some(1..packed.rows) };
    vec![Sample::new(Rows { packed, range: None }, by_index), Sample::new(range, stored(packed))]
}
