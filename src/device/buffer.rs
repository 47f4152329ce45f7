//! Storages, and the pool that recycles them.

use super::{Device, ledger::Tag};
use bytemuck::{Pod, Zeroable};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Host memory comes in cache lines, so that every element type and SIMD width is aligned.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// How much more than the highest live total the pool may hold, as numerator and denominator: 1.15.
const RESERVE: (u64, u64) = (23, 20);

/// Most bytes that a pool holds when at most `highest` were live at a time.
pub(super) fn most_reserved(highest: u64) -> u64 {
    (highest as u128 * RESERVE.0 as u128 / RESERVE.1 as u128) as u64
}

/// Free lists by exact size. Training asks for the same sizes step after step, so nothing finer pays.
#[derive(Default)]
pub(super) struct Pool(Mutex<Shelves>);

#[derive(Default)]
struct Shelves {
    free: HashMap<usize, Vec<Vec<Line>>>,
    /// Lines handed out and lines on shelves.
    reserved: usize,
}

impl Pool {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Memory of `lines` cache lines with unspecified contents.
    fn take(&self, lines: usize, highest: u64) -> Vec<Line> {
        let mut shelves = self.shelves();
        if let Some(memory) = shelves.free.get_mut(&lines).and_then(Vec::pop) {
            return memory;
        }
        shelves.reserved += lines;
        let limit = most_reserved(highest) as usize / size_of::<Line>();
        shelves.trim(limit);
        drop(shelves);
        vec![Line([0; 64]); lines]
    }

    fn put(&self, memory: Vec<Line>) {
        self.shelves().free.entry(memory.len()).or_default().push(memory);
    }

    /// Bytes held from the system.
    pub(super) fn reserved(&self) -> u64 {
        (self.shelves().reserved * size_of::<Line>()) as u64
    }

    /// Gives back all that is on shelves.
    pub(super) fn clear(&self) {
        self.shelves().trim(0);
    }
}

impl Shelves {
    /// Gives memory on shelves back to the system, largest first, until at most `limit` lines are reserved.
    fn trim(&mut self, limit: usize) {
        while self.reserved > limit {
            let Some(&size) = self.free.iter().filter(|(_, list)| !list.is_empty()).map(|(size, _)| size).max() else {
                return;
            };
            self.free.get_mut(&size).and_then(Vec::pop);
            self.reserved -= size;
        }
    }
}

/// One storage. Its bytes are counted from birth to drop, then go back to the pool.
pub struct Buffer {
    device: Device,
    bytes: usize,
    tag: AtomicU8,
    /// Empty on the `Null` device.
    lines: Vec<Line>,
}

impl Buffer {
    /// Storage of `bytes` bytes with unspecified contents.
    pub(super) fn new(device: &Device, bytes: usize, tag: Tag) -> Buffer {
        device.ledger().add(tag, bytes);
        let lines = if device.computes() {
            device.pool().take(bytes.div_ceil(size_of::<Line>()), device.ledger().highest())
        } else {
            Vec::new()
        };
        Buffer { device: device.clone(), bytes, tag: AtomicU8::new(tag as u8), lines }
    }

    /// The device it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its tag.
    pub fn tag(&self) -> Tag {
        Tag::ALL[self.tag.load(Ordering::Relaxed) as usize]
    }

    /// Counts it under another tag from now on.
    pub(super) fn retag(&self, tag: Tag) {
        let old = Tag::ALL[self.tag.swap(tag as u8, Ordering::Relaxed) as usize];
        self.device.ledger().retag(old, tag, self.bytes);
    }

    pub(super) fn slice<T: Pod>(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes / size_of::<T>()]
    }

    pub(super) fn slice_mut<T: Pod>(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes / size_of::<T>()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.ledger().remove(self.tag(), self.bytes);
        if self.device.computes() {
            self.device.pool().put(std::mem::take(&mut self.lines));
        }
    }
}
