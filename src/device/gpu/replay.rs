//! A step recorded once and handed over again: no graph, no bindings, nothing but its commands.

use super::recorder::{self, Command};
use super::{Gpu, locked};
use crate::device::Bytes;
use std::collections::HashSet;
use std::thread::{self, ThreadId};
use std::time::Instant;
use wgpu::Buffer;

/// A recording in the making.
pub(super) struct Capture {
    /// Other threads may use the device meanwhile.
    thread: ThreadId,
    pub(super) commands: Vec<Command>,
    taken: HashSet<Buffer>,
}

impl Capture {
    /// Whether this thread makes it.
    pub(super) fn here(&self) -> bool {
        self.thread == thread::current().id()
    }
}

/// Commands with the storages they refer to.
pub(crate) struct Recording {
    commands: Vec<Command>,
    /// Storages that were taken for it. Between two replays others may use them, but not keep them.
    pub(in crate::device) taken: HashSet<Buffer>,
    /// What was live at most while it was recorded, and is in use again whenever it is replayed.
    pub peak: Bytes,
}

/// Ends a capture, also when what is captured panics.
struct Ended<'a>(&'a Gpu);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        locked(&self.0.state).capture = None;
    }
}

impl Gpu {
    /// Runs `f`; what this thread records is also kept. None if the host read something back, or after a fault.
    pub(in crate::device) fn capture<R>(&self, f: impl FnOnce() -> R) -> (R, Option<Recording>) {
        let capture = Capture { thread: thread::current().id(), commands: Vec::new(), taken: HashSet::new() };
        locked(&self.state).capture = Some(capture);
        let ended = Ended(self);
        let result = f();
        let capture = locked(&self.state).capture.take().filter(|_| !self.faulty());
        drop(ended);
        let recording = |Capture { commands, taken, .. }| Recording { commands, taken, peak: Bytes::default() };
        (result, capture.map(recording))
    }

    /// Notes a storage taken from the pool.
    pub(in crate::device) fn took(&self, buffer: &Buffer) {
        if let Some(capture) = locked(&self.state).capture.as_mut().filter(|capture| capture.here()) {
            capture.taken.insert(buffer.clone());
        }
    }

    /// Hands a recording over again; false after a fault.
    pub(in crate::device) fn replay(&self, recording: &Recording) -> bool {
        let start = Instant::now();
        let state = &mut *locked(&self.state);
        if self.faulty() {
            return false;
        }
        self.submit(state);
        recorder::submit(&self.device, &self.queue, &recording.commands, state.uniform.as_ref());
        let dispatch = |command: &&Command| matches!(command, Command::Dispatch { .. });
        state.counters.dispatches += recording.commands.iter().filter(dispatch).count() as u64;
        state.counters.submissions += recording.commands.len().div_ceil(recorder::BATCH) as u64;
        state.counters.host_ns += start.elapsed().as_nanos() as u64;
        let _ = self.device.poll(wgpu::PollType::Poll);
        true
    }
}
