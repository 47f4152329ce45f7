//! What the host did for the GPU.

use serde::Serialize;
use std::time::Duration;

/// Counts since the device was opened; subtract two of them for an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Kernels recorded or replayed.
    pub dispatches: u64,
    /// Command buffers handed to the driver.
    pub submissions: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Buffers asked from the driver, for storages or staging.
    pub buffers: u64,
    /// Copies from the host.
    pub staging_writes: u64,
    /// Waits for copies to the host.
    pub reads: u64,
    /// Ops without a kernel of their own, which ran on the host.
    pub host_ops: u64,
    /// Bytes of all buffers asked from the driver.
    pub bytes_allocated: u64,
    /// Time the host spent recording and submitting, in nanoseconds.
    pub host_ns: u64,
}

impl Counters {
    /// What happened since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            dispatches: self.dispatches - before.dispatches,
            submissions: self.submissions - before.submissions,
            bind_groups: self.bind_groups - before.bind_groups,
            pipelines: self.pipelines - before.pipelines,
            buffers: self.buffers - before.buffers,
            staging_writes: self.staging_writes - before.staging_writes,
            reads: self.reads - before.reads,
            host_ops: self.host_ops - before.host_ops,
            bytes_allocated: self.bytes_allocated - before.bytes_allocated,
            host_ns: self.host_ns - before.host_ns,
        }
    }

    /// Host time for each kernel.
    pub fn per_dispatch(&self) -> Duration {
        Duration::from_nanos(self.host_ns / self.dispatches.max(1))
    }
}
