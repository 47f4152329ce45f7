//! Copies between host and GPU.

use super::{Command, Gpu, locked};
use crate::device::{Array, Device};
use crate::element;
use crate::error::Result;
use std::ops::Range;
use wgpu::{Buffer, BufferDescriptor, BufferUsages, COPY_BUFFER_ALIGNMENT, MapMode, PollType};

/// Bytes of the staging buffer that is kept.
const SMALL: u64 = 4096;

/// Bytes that are read together: enough to make a wait's cost small. What is read lies twice in memory meanwhile.
const TOGETHER: usize = 64 << 20;

/// The whole words of a storage around a contiguous array, and where in them it is.
struct Place {
    words: Range<u64>,
    inside: Range<usize>,
}

impl Place {
    fn of(x: &Array) -> Place {
        let size = x.dtype().size();
        let (start, count) = (x.offset() * size, x.count() * size);
        let first = start as u64 / COPY_BUFFER_ALIGNMENT * COPY_BUFFER_ALIGNMENT;
        let skip = start - first as usize;
        let end = first + ((skip + count) as u64).next_multiple_of(COPY_BUFFER_ALIGNMENT);
        Place { words: first..end, inside: skip..skip + count }
    }

    /// Bytes copied: none for no elements.
    fn bytes(&self) -> u64 {
        if self.inside.is_empty() { 0 } else { self.words.end - self.words.start }
    }
}

impl Gpu {
    /// Records a copy of `bytes` over a whole storage.
    pub(in crate::device) fn write(&self, to: &Array, bytes: &[u8]) {
        if let Some(buffer) = to.gpu_buffer() {
            self.upload(buffer, bytes);
        }
    }

    /// Elements row by row in host memory, which no ledger counts. Waits once for as many arrays as are read together.
    pub(in crate::device) fn read(&self, arrays: &[&Array]) -> Result<Vec<Array>> {
        let (mut found, mut rest) = (Vec::new(), arrays);
        while let [first, others @ ..] = rest {
            let mut bytes = first.spec().bytes();
            let fits = |x: &&&Array| {
                bytes += x.spec().bytes();
                bytes <= TOGETHER
            };
            let (some, others) = rest.split_at(1 + others.iter().take_while(fits).count());
            found.extend(self.read_together(&some.iter().map(|x| x.to_contiguous()).collect::<Vec<_>>())?);
            rest = others;
        }
        Ok(found)
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
        state.record(Command::Copy { from: staging, start: 0, to: to.clone(), at: 0, bytes: size });
    }

    /// Waits for all that was recorded, and reads contiguous arrays.
    fn read_together(&self, arrays: &[Array]) -> Result<Vec<Array>> {
        self.check()?;
        let places: Vec<Place> = arrays.iter().map(Place::of).collect();
        // What is mapped has bytes.
        let size = places.iter().map(Place::bytes).sum::<u64>().max(COPY_BUFFER_ALIGNMENT);
        let staging = self.staging(size);
        self.record_reads(arrays, &places, &staging);
        self.flush();
        staging.map_async(MapMode::Read, ..size, |_| ());
        // A failure shows when the range is taken, and as a fault.
        let _ = self.device.poll(PollType::wait_indefinitely());
        self.check()?;
        let lost = |error| crate::Error::Lost(format!("reading from device {}: {error}", self.about.name));
        let view = staging.get_mapped_range(..size).map_err(lost)?;
        let (host, mut words) = (Device::cpu(), &view[..]);
        let read = arrays.iter().zip(&places).map(|(x, place)| {
            let (here, behind) = words.split_at(place.bytes() as usize);
            words = behind;
            on_host(&here[place.inside.clone()], x, &host)
        });
        let found = read.collect();
        drop(view);
        staging.unmap();
        let mut state = locked(&self.state);
        if staging.size() <= SMALL {
            state.staging = Some(staging);
        }
        Ok(found)
    }

    /// Records copies of what lies at `places`, one behind the other.
    fn record_reads(&self, arrays: &[Array], places: &[Place], staging: &Buffer) {
        let mut state = locked(&self.state);
        state.counters.reads += 1;
        // What the host reads may decide what it does next: such a step cannot be repeated blindly.
        state.capture.take_if(|capture| capture.here());
        let mut at = 0;
        for (x, place) in arrays.iter().zip(places) {
            if let Some(from) = x.gpu_buffer().filter(|_| place.bytes() > 0) {
                let (from, to, bytes) = (from.clone(), staging.clone(), place.bytes());
                state.commands.push(Command::Copy { from, start: place.words.start, to, at, bytes });
                at += bytes;
            }
        }
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

/// An array like `x`, of these bytes.
fn on_host(bytes: &[u8], x: &Array, host: &Device) -> Array {
    element!(x.dtype(), T => host.upload(&bytemuck::pod_collect_to_vec::<u8, T>(bytes), *x.shape()))
}
