//! Memory behind storages.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

/// A cache line, so that every element type and SIMD width is aligned.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// Smallest unit of memory, in bytes.
pub(super) const UNIT: usize = size_of::<Line>();

/// From here on memory is mapped from the system piece by piece, and goes back whole when it is dropped. A general
/// allocator keeps large pieces in its heap once it has seen a few freed, and the holes between them stay resident:
/// 50 MiB of them in a run that switches between training and validation.
const MAPPED: usize = 256 * 1024;

/// A piece of memory, aligned to [`UNIT`].
pub(super) enum Memory {
    Lines(Vec<Line>),
    Mapped(MmapMut),
    #[cfg(feature = "gpu")]
    Gpu(wgpu::Buffer),
}

impl Memory {
    /// None, as on the `Null` device.
    pub fn none() -> Memory {
        Memory::Lines(Vec::new())
    }

    /// `bytes` bytes of zeros, a multiple of [`UNIT`]. Panics where the system has no more.
    pub fn new(bytes: usize) -> Memory {
        if bytes < MAPPED {
            return Memory::Lines(vec![Line([0; UNIT]); bytes.div_ceil(UNIT)]);
        }
        match MmapMut::map_anon(bytes) {
            Ok(map) => Memory::Mapped(map),
            Err(error) => panic!("the system gave no {bytes} bytes of memory: {error}"),
        }
    }

    /// Bytes, here or on a GPU.
    pub fn size(&self) -> usize {
        match self {
            Memory::Lines(lines) => UNIT * lines.len(),
            Memory::Mapped(map) => map.len(),
            #[cfg(feature = "gpu")]
            Memory::Gpu(buffer) => buffer.size() as usize,
        }
    }

    /// The GPU's handle of it.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Option<&wgpu::Buffer> {
        match self {
            Memory::Gpu(buffer) => Some(buffer),
            _ => None,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Mapped(map) => map,
            #[cfg(feature = "gpu")]
            Memory::Gpu(_) => panic!("a storage of a GPU read by the host"),
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Mapped(map) => map,
            #[cfg(feature = "gpu")]
            Memory::Gpu(_) => panic!("a storage of a GPU written by the host"),
        }
    }
}
