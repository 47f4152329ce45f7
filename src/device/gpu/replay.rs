//! A step recorded once and handed over again: no graph, no bindings, nothing but its commands.

use super::recorder::{self, Command};
use super::{Gpu, locked};
use crate::device::Bytes;
use std::time::Instant;

/// Commands with the storages they refer to.
pub(crate) struct Recording {
    commands: Vec<Command>,
    generation: u64,
    /// What was live at most while it was recorded, and is in use again whenever it is replayed.
    pub peak: Bytes,
}

impl Gpu {
    /// Runs `f`; what it records is also kept. None if the host read something back, if it was a capture already, or
    /// after a fault.
    pub(in crate::device) fn capture<R>(&self, f: impl FnOnce() -> R) -> (R, Option<Recording>) {
        let generation = {
            let mut state = locked(&self.state);
            state.capture = Some(Vec::new());
            state.generation
        };
        let result = f();
        let commands = locked(&self.state).capture.take().filter(|_| !self.faulty());
        (result, commands.map(|commands| Recording { commands, generation, peak: Bytes::default() }))
    }

    /// Hands a recording over again. False, and nothing done, if storages it refers to went back to the driver.
    pub(in crate::device) fn replay(&self, recording: &Recording) -> bool {
        let start = Instant::now();
        let state = &mut *locked(&self.state);
        if state.generation != recording.generation || self.faulty() {
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
