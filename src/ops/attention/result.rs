//! Results, written by several tasks at the same time.

use super::operand::copy;
use super::sizes::Sizes;
use crate::device::Array;
use crate::scalar::Float;
use std::marker::PhantomData;

/// An array that tasks write at the same time, each its own elements.
pub(super) struct Shared<'a, T> {
    data: *mut T,
    count: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` gives access only through `part`, whose callers keep parts disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Shared { data: data.as_mut_ptr(), count: data.len(), lives: PhantomData }
    }

    /// Elements `start..start + count`.
    ///
    /// # Safety
    /// No two parts that live at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, count: usize) -> &mut [T] {
        assert!(start + count <= self.count, "a part lies inside its array");
        // SAFETY: inside the array, which is borrowed for `'a`; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), count) }
    }
}

/// A result [batch, time, slots, dim], written head by head.
pub(super) struct Packed<'a, T> {
    data: Shared<'a, T>,
    slots: usize,
}

impl<'a, T: Float> Packed<'a, T> {
    pub fn new(x: &'a mut Array) -> Self {
        let slots = x.shape()[2];
        Packed { data: Shared::new(x.slice_mut()), slots }
    }

    /// Copies rows of whole tiles to times `first..` of a slot.
    pub fn write(&self, [batch, slot, first]: [usize; 3], rows: &[T], s: &Sizes) {
        for (i, row) in rows.chunks_exact(s.lanes).enumerate().take(s.time - first) {
            let start = ((batch * s.time + first + i) * self.slots + slot) * s.dim;
            // SAFETY: one task computes each query of a head, each (batch, key head) and each (batch, value head).
            copy(&row[..s.dim], unsafe { self.data.part(start, s.dim) });
        }
    }
}
