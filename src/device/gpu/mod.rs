//! The GPU: the only place that knows wgpu. Kernels are recorded as data, encoded in batches and never waited for,
//! except where the host reads.

mod adapter;
mod cache;
mod counters;
mod pipeline;
mod recorder;
mod replay;
pub mod shader;
mod transfer;

pub use adapter::{Adapter, adapters, has_hardware};
pub use cache::folder as cache_folder;
pub use counters::Counters;
use replay::Capture;
pub(crate) use replay::Recording;

use super::kernel::{Binding, Kernel, KernelKey};
use super::memory::UNIT;
use crate::error::{Error, Result};
use cache::Cache;
use pipeline::Pipelines;
use recorder::{Command, Uniform};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, Buffer, BufferBinding, BufferDescriptor, BufferUsages,
    DeviceDescriptor, ErrorFilter, MemoryHints,
};

/// How a GPU is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether kernels get their parameters as immediates where the adapter has them; else from a uniform.
    pub immediates: bool,
    /// Most bytes of storages; none is refused before the driver refuses it.
    pub limit: Option<u64>,
    /// Most bytes of one storage that a kernel binds, where that is to be less than the adapter allows.
    pub binding: Option<u64>,
    /// Folder for compiled pipelines, kept from run to run where the adapter can; none keeps nothing.
    pub cache: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { immediates: true, limit: None, binding: None, cache: None }
    }
}

/// An opened adapter.
pub struct Gpu {
    about: Adapter,
    /// Most bytes of storages.
    limit: AtomicU64,
    /// Most bytes of one storage that a kernel binds.
    binding: u64,
    device: wgpu::Device,
    queue: wgpu::Queue,
    state: Mutex<State>,
    /// What went wrong first. From then on nothing is recorded.
    fault: Arc<Mutex<Option<Fault>>>,
}

/// What changes while kernels are recorded.
struct State {
    pipelines: Pipelines,
    uniform: Option<Uniform>,
    commands: Vec<Command>,
    bind_groups: HashMap<(u64, Vec<Bound>), BindGroup>,
    counters: Counters,
    /// What is recorded to be replayed, while it is.
    capture: Option<Capture>,
    /// What small reads go through.
    staging: Option<Buffer>,
}

/// Why a device computes no more.
#[derive(Clone, Debug)]
enum Fault {
    Memory { needed: u64, limit: u64, what: String },
    Lost(String),
}

impl Fault {
    fn error(&self) -> Error {
        match self.clone() {
            Fault::Memory { needed, limit, what } => Error::Memory { needed, limit, advice: what },
            Fault::Lost(why) => Error::Lost(why),
        }
    }
}

/// Bind groups kept; beyond, all are made anew.
const MOST_BIND_GROUPS: usize = 16_384;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Gpu {
    /// Opens the adapter of this name; `gpu` is the best real one.
    pub fn open(name: &str, options: Options) -> Result<Gpu> {
        let (adapter, about) = adapter::find(name)?;
        let descriptor = DeviceDescriptor {
            label: None,
            required_features: adapter::features(&adapter),
            required_limits: adapter.limits(),
            // Storages are pooled here; the driver need not hold back more.
            memory_hints: MemoryHints::MemoryUsage,
            ..DeviceDescriptor::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|error| Error::Device(format!("device {}: {error}", about.name)))?;
        let fault = Arc::new(Mutex::new(None));
        watch(&device, &fault);
        let immediates = options.immediates
            && device.features().contains(wgpu::Features::IMMEDIATES)
            && device.limits().max_immediate_size >= pipeline::PARAMETER_BYTES;
        let cache = options.cache.and_then(|folder| Cache::open(&device, &adapter.get_info(), &folder));
        let pipelines = Pipelines::new(&device, immediates, cache);
        let uniform = pipelines.uniform.as_ref().map(|layout| uniform(&device, layout));
        let state = State {
            pipelines,
            uniform,
            commands: Vec::new(),
            bind_groups: HashMap::new(),
            counters: Counters::default(),
            capture: None,
            staging: None,
        };
        let limit = AtomicU64::new(options.limit.unwrap_or(u64::MAX));
        let most = device.limits().max_storage_buffer_binding_size;
        let binding = options.binding.map_or(most, |binding| binding.min(most));
        Ok(Gpu { about, limit, binding, device, queue, state: Mutex::new(state), fault })
    }

    /// What its driver says of it.
    pub fn about(&self) -> &Adapter {
        &self.about
    }

    /// What the host did so far.
    pub fn counters(&self) -> Counters {
        locked(&self.state).counters
    }

    /// Kernels compiled so far.
    pub fn kernels(&self) -> Vec<KernelKey> {
        locked(&self.state).pipelines.keys().cloned().collect()
    }

    /// Most bytes of storages that its pool may hold.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Most bytes of one storage that a kernel binds.
    pub(super) fn binding(&self) -> u64 {
        self.binding
    }

    /// From now on, more bytes of storages than these are refused as if the driver had no more.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Gives the adapter up. What lies on it is gone, and what comes after fails as when a device is lost.
    pub fn abandon(&self) {
        self.device.destroy();
        let _ = self.device.poll(wgpu::PollType::Poll);
        locked(&self.fault).get_or_insert(Fault::Lost(format!("device {} was given up", self.about.name)));
    }

    /// The first thing that went wrong, if anything did.
    pub fn check(&self) -> Result<()> {
        match &*locked(&self.fault) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    fn faulty(&self) -> bool {
        locked(&self.fault).is_some()
    }

    /// Notes that storages of `needed` bytes could not be had, one of `size` bytes besides those there are.
    pub(super) fn out_of_memory(&self, needed: u64, size: u64) {
        let (limit, name) = (self.limit().min(needed - size), &self.about.name);
        let what = match self.largest() {
            largest if size > largest => {
                format!(
                    "device {name} has storages of at most {largest} bytes, and one of {size} was asked for; try a smaller batch or context"
                )
            }
            _ => format!("device {name} gave no storage of {size} bytes more; try a smaller batch or --recompute"),
        };
        locked(&self.fault).get_or_insert(Fault::Memory { needed, limit, what });
    }

    /// Most bytes of one storage: what the adapter has, and what elements of two bytes can be counted in 32 bits.
    fn largest(&self) -> u64 {
        self.device.limits().max_buffer_size.min(2 * u64::from(u32::MAX))
    }

    /// Notes that a kernel of this shader was to see `needed` bytes of one storage.
    fn too_large(&self, shader: &str, needed: u64) {
        let (name, limit) = (&self.about.name, self.binding);
        let what = format!(
            "on device {name} a kernel sees at most {limit} bytes of one tensor, and {shader} was to see {needed}; try a smaller batch or context"
        );
        locked(&self.fault).get_or_insert(Fault::Memory { needed, limit, what });
    }

    /// A storage of `bytes` bytes, or none if the driver has no more.
    pub(super) fn buffer(&self, bytes: u64) -> Option<Buffer> {
        if self.faulty() || bytes > self.largest() {
            return None;
        }
        let scopes = [ErrorFilter::OutOfMemory, ErrorFilter::Validation].map(|f| self.device.push_error_scope(f));
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffer =
            self.device.create_buffer(&BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
        // Scopes are left in the reverse order, all of them.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).count();
        let mut state = locked(&self.state);
        state.counters.buffers += 1;
        state.counters.bytes_allocated += bytes;
        (errors == 0).then_some(buffer)
    }

    /// Notes an op that ran on the host.
    pub(super) fn count_host_op(&self) {
        locked(&self.state).counters.host_ops += 1;
    }

    /// Forgets the bind groups, and with them the storages that only they refer to.
    pub(super) fn forget_bindings(&self) {
        locked(&self.state).bind_groups.clear();
    }

    /// Forgets the bind groups of storages that go back to the driver.
    pub(super) fn forget<'a>(&self, gone: impl Iterator<Item = &'a Buffer>) {
        let gone: Vec<&Buffer> = gone.collect();
        if !gone.is_empty() {
            let live = |bound: &[Bound]| !bound.iter().any(|bound| gone.contains(&&bound.buffer));
            locked(&self.state).bind_groups.retain(|(_, bound), _| live(bound));
        }
    }

    /// Records a kernel.
    pub(super) fn dispatch(&self, kernel: Kernel<'_>, groups: [u32; 2]) {
        let start = Instant::now();
        if self.faulty() {
            return;
        }
        let bound = kernel.writes.iter().chain(&kernel.reads).map(|binding| self.bound(binding));
        let Some(bound) = bound.collect::<Option<Vec<Bound>>>() else { return };
        if let Some(large) = bound.iter().find(|bound| bound.bytes() > self.binding) {
            return self.too_large(kernel.key.shader, large.bytes());
        }
        let state = &mut *locked(&self.state);
        let layout = (kernel.writes.len(), kernel.reads.len());
        let (pipeline, compiled) = state.pipelines.get(&self.device, kernel.key, layout);
        state.counters.pipelines += u64::from(compiled);
        let bind_group = state.bind_group(&self.device, &pipeline.layout, bound);
        let words = kernel.words;
        state.record(Command::Dispatch { pipeline, bind_group, words, groups });
        state.counters.dispatches += 1;
        if state.commands.len() >= recorder::BATCH {
            self.submit(state);
        }
        state.counters.host_ns += start.elapsed().as_nanos() as u64;
    }

    /// What of a storage is bound: those of the pool may be larger than what was asked for.
    fn bound(&self, binding: &Binding<'_>) -> Option<Bound> {
        let buffer = binding.array.gpu_buffer()?.clone();
        let size = binding.array.dtype().size() as u64;
        let (start, bytes) = match &binding.part {
            Some(part) => {
                let [start, end] = [part.start, part.end].map(|element| element as u64 * size);
                (start, end.next_multiple_of(UNIT as u64) - start)
            }
            None if buffer.size() <= self.binding => (0, buffer.size()),
            None => (0, binding.array.storage_bytes() as u64),
        };
        Some(Bound { buffer, start, bytes: NonZeroU64::new(bytes)? })
    }

    /// Hands over what was recorded.
    pub fn flush(&self) {
        self.submit(&mut locked(&self.state));
    }

    fn submit(&self, state: &mut State) {
        if state.commands.is_empty() || self.faulty() {
            return state.commands.clear();
        }
        recorder::submit(&self.device, &self.queue, &state.commands, state.uniform.as_ref());
        state.counters.submissions += state.commands.len().div_ceil(recorder::BATCH) as u64;
        state.commands.clear();
        // Staging that is done goes back to the driver.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// Waits until all that was recorded is done.
    pub fn wait(&self) -> Result<()> {
        self.flush();
        if let Err(error) = self.device.poll(wgpu::PollType::wait_indefinitely()) {
            locked(&self.fault).get_or_insert(Fault::Lost(error.to_string()));
        }
        self.check()
    }
}

impl State {
    fn record(&mut self, command: Command) {
        if let Some(capture) = self.capture.as_mut().filter(|capture| capture.here()) {
            capture.commands.push(command.clone());
        }
        self.commands.push(command);
    }

    fn bind_group(&mut self, device: &wgpu::Device, layout: &pipeline::Layout, bound: Vec<Bound>) -> BindGroup {
        if self.bind_groups.len() >= MOST_BIND_GROUPS {
            self.bind_groups.clear();
        }
        let key = (layout.id, bound);
        if let Some(found) = self.bind_groups.get(&key) {
            return found.clone();
        }
        self.counters.bind_groups += 1;
        let numbered = key.1.iter().enumerate();
        let entries: Vec<_> =
            numbered.map(|(i, bound)| BindGroupEntry { binding: i as u32, resource: bound.resource() }).collect();
        let layout = &layout.bindings;
        let made = device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries });
        self.bind_groups.insert(key, made.clone());
        made
    }
}

/// Bytes of a storage that a kernel sees.
#[derive(PartialEq, Eq, Hash)]
struct Bound {
    buffer: Buffer,
    start: u64,
    bytes: NonZeroU64,
}

impl Bound {
    fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn resource(&self) -> wgpu::BindingResource<'_> {
        let size = Some(self.bytes);
        wgpu::BindingResource::Buffer(BufferBinding { buffer: &self.buffer, offset: self.start, size })
    }
}

fn uniform(device: &wgpu::Device, layout: &wgpu::BindGroupLayout) -> Uniform {
    let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
    let buffer = device.create_buffer(&BufferDescriptor {
        label: Some("parameters"),
        size: Uniform::BYTES,
        usage,
        mapped_at_creation: false,
    });
    let size = NonZeroU64::new(pipeline::PARAMETER_BYTES.into());
    let resource = wgpu::BindingResource::Buffer(BufferBinding { buffer: &buffer, offset: 0, size });
    let entries = [BindGroupEntry { binding: 0, resource }];
    let group = device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries });
    Uniform { buffer, group }
}

/// Turns what the driver reports later into a fault instead of a panic.
fn watch(device: &wgpu::Device, fault: &Arc<Mutex<Option<Fault>>>) {
    let lost = fault.clone();
    device.set_device_lost_callback(move |_, why| {
        locked(&lost).get_or_insert(Fault::Lost(why));
    });
    let fault = fault.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let found = match &error {
            wgpu::Error::OutOfMemory { .. } => Fault::Memory { needed: 0, limit: 0, what: error.to_string() },
            error => Fault::Lost(error.to_string()),
        };
        locked(&fault).get_or_insert(found);
    }));
}
