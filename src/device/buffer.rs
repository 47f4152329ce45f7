//! Storages, and the pool that recycles them.

#[cfg(feature = "gpu")]
use super::Recording;
use super::memory::{Memory, UNIT};
use super::{Device, ledger::Tag};
use bytemuck::Pod;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};

/// How much more than the highest live total the pool may hold, as numerator and denominator: 1.15.
const RESERVE: (u64, u64) = (23, 20);

/// Most bytes that a pool holds when at most `highest` were live at a time.
pub(super) fn most_reserved(highest: u64) -> u64 {
    (highest as u128 * RESERVE.0 as u128 / RESERVE.1 as u128) as u64
}

/// Free lists by size. Training asks for the same sizes step after step, so most requests find their own size again.
#[derive(Default)]
pub(super) struct Pool(Mutex<Shelves>);

#[derive(Default)]
struct Shelves {
    free: BTreeMap<usize, Vec<Memory>>,
    /// Bytes handed out and bytes on shelves.
    reserved: usize,
}

impl Pool {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A piece from a shelf, of `size` bytes or more, if one fits. If not the caller has to bring a fresh one: it is
    /// counted from now on, and what would be too much beside it has left the shelves, and comes along.
    fn take(&self, size: usize, highest: u64) -> (Option<Memory>, Vec<Memory>) {
        let mut shelves = self.shelves();
        let limit = most_reserved(highest) as usize;
        // A fresh piece beyond the limit would cost another one its place, and page faults in every step.
        let largest = if shelves.reserved + size > limit { usize::MAX } else { size + size / 4 };
        let found = shelves.smallest(size, largest);
        if found.is_some() {
            return (found, Vec::new());
        }
        shelves.reserved += size;
        (None, shelves.trim(limit))
    }

    /// Calls `f` if all storages that were taken for a recording are on shelves, where they stay meanwhile.
    #[cfg(feature = "gpu")]
    pub(super) fn while_idle<R>(&self, recording: &Recording, f: impl FnOnce() -> R) -> Option<R> {
        let shelves = self.shelves();
        let one = |memory: &&Memory| memory.gpu().is_some_and(|buffer| recording.taken.contains(buffer));
        let idle = shelves.free.values().flatten().filter(one).count();
        (idle == recording.taken.len()).then(f)
    }

    /// Takes back what [`Pool::take`] counted for a fresh piece that could not be had.
    #[cfg(feature = "gpu")]
    fn uncount(&self, size: usize) {
        self.shelves().reserved -= size;
    }

    fn put(&self, memory: Memory) {
        self.shelves().free.entry(memory.size()).or_default().push(memory);
    }

    /// Bytes held from the system.
    pub(super) fn reserved(&self) -> u64 {
        self.shelves().reserved as u64
    }

    /// Gives back all that is on shelves.
    pub(super) fn clear(&self) {
        let gone = self.shelves().trim(0);
        drop(gone);
    }
}

impl Shelves {
    /// The smallest piece on a shelf within these sizes.
    fn smallest(&mut self, size: usize, largest: usize) -> Option<Memory> {
        self.free.range_mut(size..=largest).find_map(|(_, pieces)| pieces.pop())
    }

    /// Takes memory off the shelves, largest first, until at most `limit` bytes are reserved.
    #[must_use = "it goes back to the system when it is dropped"]
    fn trim(&mut self, limit: usize) -> Vec<Memory> {
        let mut gone = Vec::new();
        while self.reserved > limit {
            let Some(memory) = self.free.values_mut().rev().find_map(Vec::pop) else { break };
            self.reserved -= memory.size();
            gone.push(memory);
        }
        gone
    }
}

/// One storage. Its bytes are counted from birth to drop, then go back to the pool.
pub struct Buffer {
    device: Device,
    bytes: usize,
    tag: AtomicU8,
    memory: Memory,
}

impl Buffer {
    /// Storage of `bytes` bytes with unspecified contents.
    pub(super) fn new(device: &Device, bytes: usize, tag: Tag) -> Buffer {
        device.ledger().add(tag, bytes);
        // A kernel binds what it might read, and what is bound has elements.
        let least = if device.is_gpu() { UNIT } else { 0 };
        let memory = match device.computes() {
            true => memory(device, bytes.next_multiple_of(UNIT).max(least)),
            false => Memory::none(),
        };
        Buffer { device: device.clone(), bytes, tag: AtomicU8::new(tag as u8), memory }
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

    /// Bytes of whole elements that have contents: none on the `Null` device.
    fn held<T>(&self) -> usize {
        self.bytes.min(self.memory.size()) / size_of::<T>() * size_of::<T>()
    }

    /// Bytes asked for, in whole units.
    pub(super) fn padded(&self) -> usize {
        self.bytes.max(1).next_multiple_of(UNIT)
    }

    /// The GPU's handle of it; none after a fault.
    #[cfg(feature = "gpu")]
    pub(super) fn gpu(&self) -> Option<&wgpu::Buffer> {
        self.memory.gpu()
    }

    pub(super) fn slice<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.memory.bytes()[..self.held::<T>()])
    }

    pub(super) fn slice_mut<T: Pod>(&mut self) -> &mut [T] {
        let held = self.held::<T>();
        bytemuck::cast_slice_mut(&mut self.memory.bytes_mut()[..held])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.ledger().remove(self.tag(), self.bytes);
        let memory = std::mem::replace(&mut self.memory, Memory::none());
        if memory.size() > 0 {
            self.device.pool().put(memory);
        }
    }
}

/// Memory of `size` bytes with unspecified contents: from the pool, or fresh.
fn memory(device: &Device, size: usize) -> Memory {
    let pool = device.pool();
    let (found, gone) = pool.take(size, device.ledger().highest());
    #[cfg(feature = "gpu")]
    if let Some(gpu) = device.gpu() {
        gpu.forget(gone.iter().filter_map(Memory::gpu));
        drop(gone);
        let memory = found.unwrap_or_else(|| fresh(gpu, pool, size));
        memory.gpu().into_iter().for_each(|buffer| gpu.took(buffer));
        return memory;
    }
    drop(gone);
    found.unwrap_or_else(|| Memory::new(size))
}

/// Memory from the driver. What cannot be had, even with all shelves cleared, is a fault of the device.
#[cfg(feature = "gpu")]
fn fresh(gpu: &super::gpu::Gpu, pool: &Pool, size: usize) -> Memory {
    let within = |pool: &Pool| pool.reserved() <= gpu.limit();
    for clear in [false, true] {
        if clear {
            pool.clear();
            gpu.forget_bindings();
        }
        if let Some(buffer) = within(pool).then(|| gpu.buffer(size as u64)).flatten() {
            return Memory::Gpu(buffer);
        }
    }
    gpu.out_of_memory(pool.reserved(), size as u64);
    pool.uncount(size);
    Memory::none()
}
