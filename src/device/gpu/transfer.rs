//! Copies between host and GPU.

use super::{Command, Gpu, locked};
use crate::device::{Array, Device};
use crate::element;
use crate::error::Result;
use wgpu::{Buffer, BufferDescriptor, BufferUsages, COPY_BUFFER_ALIGNMENT, MapMode, PollType};

/// Bytes of the staging buffer that is kept.
const SMALL: u64 = 4096;

impl Gpu {
    /// Records a copy of `bytes` over a whole storage.
    pub(in crate::device) fn write(&self, to: &Array, bytes: &[u8]) {
        if let Some(buffer) = to.gpu_buffer() {
            self.upload(buffer, bytes);
        }
    }

    /// The elements of a contiguous array in host memory, which no ledger counts.
    pub(in crate::device) fn read(&self, x: &Array) -> Result<Array> {
        let size = x.dtype().size();
        let bytes = match x.gpu_buffer() {
            Some(buffer) if x.count() > 0 => self.download(buffer, x.offset() * size, x.count() * size)?,
            _ => self.check().map(|()| Vec::new())?,
        };
        let host = Device::cpu();
        Ok(element!(x.dtype(), T => host.upload(&bytemuck::pod_collect_to_vec::<u8, T>(&bytes), *x.shape())))
    }

    /// Copies `bytes` to the start of `to` after all that was recorded, and before what will be.
    pub(in crate::device) fn feed(&self, to: &Buffer, bytes: &[u8]) {
        if self.faulty() {
            return;
        }
        self.flush();
        self.queue.write_buffer(to, 0, bytes);
        let mut state = locked(&self.state);
        state.counters.staging_writes += 1;
        // It is no command, and would not be repeated.
        state.capture.take_if(|capture| capture.here());
    }

    /// Records a copy of `bytes` to the start of `to`.
    fn upload(&self, to: &Buffer, bytes: &[u8]) {
        if bytes.is_empty() || self.faulty() {
            return;
        }
        let size = (bytes.len() as u64).next_multiple_of(COPY_BUFFER_ALIGNMENT);
        let usage = BufferUsages::COPY_SRC | BufferUsages::MAP_WRITE;
        let staging = BufferDescriptor { label: Some("staging"), size, usage, mapped_at_creation: true };
        let staging = self.device.create_buffer(&staging);
        let Ok(mut view) = staging.get_mapped_range_mut(..) else { return };
        view.slice(..bytes.len()).copy_from_slice(bytes);
        drop(view);
        staging.unmap();
        let mut state = locked(&self.state);
        state.counters.staging_writes += 1;
        state.counters.buffers += 1;
        state.counters.bytes_allocated += size;
        state.record(Command::Copy { from: staging, start: 0, to: to.clone(), bytes: size });
    }

    /// Waits for all that was recorded, and reads `count` bytes of `from`, `start` bytes in.
    fn download(&self, from: &Buffer, start: usize, count: usize) -> Result<Vec<u8>> {
        self.check()?;
        let first = start as u64 / COPY_BUFFER_ALIGNMENT * COPY_BUFFER_ALIGNMENT;
        let size = ((start + count) as u64 - first).next_multiple_of(COPY_BUFFER_ALIGNMENT);
        let staging = self.staging(size);
        {
            let mut state = locked(&self.state);
            state.counters.reads += 1;
            // What the host reads may decide what it does next: such a step cannot be repeated blindly.
            state.capture.take_if(|capture| capture.here());
            state.commands.push(Command::Copy { from: from.clone(), start: first, to: staging.clone(), bytes: size });
        }
        self.flush();
        staging.map_async(MapMode::Read, ..size, |_| ());
        // A failure shows when the range is taken, and as a fault.
        let _ = self.device.poll(PollType::wait_indefinitely());
        self.check()?;
        let bytes = match staging.get_mapped_range(..size) {
            Ok(view) => view[start - first as usize..][..count].to_vec(),
            Err(error) => return Err(crate::Error::Lost(format!("reading from device {}: {error}", self.about.name))),
        };
        staging.unmap();
        let mut state = locked(&self.state);
        if staging.size() <= SMALL {
            state.staging = Some(staging);
        }
        Ok(bytes)
    }

    /// Memory to read `size` bytes through: small reads, which come every step, share one.
    fn staging(&self, size: u64) -> Buffer {
        let mut state = locked(&self.state);
        if let Some(staging) = state.staging.take().filter(|staging| staging.size() >= size) {
            return staging;
        }
        let (size, usage) = (size.max(SMALL), BufferUsages::COPY_DST | BufferUsages::MAP_READ);
        state.counters.buffers += 1;
        state.counters.bytes_allocated += size;
        let descriptor = BufferDescriptor { label: Some("staging"), size, usage, mapped_at_creation: false };
        self.device.create_buffer(&descriptor)
    }
}
