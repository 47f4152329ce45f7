//! Where tensors live and kernels run.

mod array;
mod buffer;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod kernel;
mod ledger;
mod memory;
pub mod observe;
pub mod part;

pub use array::{Array, Spec};
pub use buffer::Buffer;
pub use ledger::{Bytes, Ledger, Tag, tagged};

use crate::dtype::{DType, Element};
#[cfg(not(feature = "gpu"))]
use crate::error::Error;
use crate::error::Result;
use crate::shape::Shape;
use kernel::KernelKey;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A handle on a device; clones share its memory and its counts.
///
/// * `Cpu` computes on the host, on the threads of the current `rayon` pool.
/// * `Gpu` records kernels for an adapter; only reading waits for it.
/// * `Null` has shapes and a ledger but no storage: a step on it is a memory plan, for the host or for a GPU.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

#[cfg(feature = "gpu")]
pub(crate) use gpu::Recording;
/// What no device of this build makes.
#[cfg(not(feature = "gpu"))]
pub(crate) enum Recording {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu,
    Null,
    NullGpu,
}

struct Inner {
    kind: Kind,
    #[cfg(feature = "gpu")]
    gpu: Option<gpu::Gpu>,
    ledger: Ledger,
    pool: buffer::Pool,
    /// Kernels that a null device would have run.
    planned: Mutex<BTreeSet<KernelKey>>,
}

impl Inner {
    fn new(kind: Kind) -> Inner {
        Inner {
            kind,
            #[cfg(feature = "gpu")]
            gpu: None,
            ledger: Ledger::default(),
            pool: buffer::Pool::default(),
            planned: Mutex::default(),
        }
    }
}

impl Device {
    fn new(kind: Kind) -> Device {
        Device(Arc::new(Inner::new(kind)))
    }

    /// A GPU by a part of its name; `gpu` is the best that is no software.
    #[cfg(feature = "gpu")]
    pub fn open_gpu(name: &str, options: gpu::Options) -> Result<Device> {
        let gpu = Some(gpu::Gpu::open(name, options)?);
        Ok(Device(Arc::new(Inner { gpu, ..Inner::new(Kind::Gpu) })))
    }

    /// The host, with a pool and a ledger of its own.
    pub fn cpu() -> Device {
        Device::new(Kind::Cpu)
    }

    /// A device that counts like the host and computes nothing.
    pub fn null() -> Device {
        Device::new(Kind::Null)
    }

    /// A device that counts like a GPU and computes nothing.
    pub fn null_gpu() -> Device {
        Device::new(Kind::NullGpu)
    }

    /// The device a user asked for: `cpu`; `gpu`, the best that is no software; `auto`, that or else the host; or a
    /// GPU by a part of its name, software drivers too. Built without the feature `gpu` there is the host alone.
    pub fn by_name(name: &str) -> Result<Device> {
        Device::by_name_within(name, None)
    }

    /// The same with a limit on the bytes that a GPU's pool may hold; more is an error of the device.
    #[cfg(feature = "gpu")]
    pub fn by_name_within(name: &str, limit: Option<u64>) -> Result<Device> {
        let name = match name {
            "auto" if gpu::has_hardware() => "gpu",
            "auto" | "cpu" => return Ok(Device::cpu()),
            name => name,
        };
        Device::open_gpu(name, gpu::Options { limit, cache: gpu::cache_folder(), ..gpu::Options::default() })
    }

    /// The same; the host has no limit of its own.
    #[cfg(not(feature = "gpu"))]
    pub fn by_name_within(name: &str, _: Option<u64>) -> Result<Device> {
        match name {
            "auto" | "cpu" => Ok(Device::cpu()),
            name => Err(Error::Device(format!(
                "there is no device {name:?}; built without the feature gpu there are auto, cpu"
            ))),
        }
    }

    /// Whether both are handles on one device.
    pub fn is(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Lower-case name, as in reports.
    pub fn name(&self) -> &str {
        match self.0.kind {
            #[cfg(feature = "gpu")]
            Kind::Gpu => self.gpu().map_or("gpu", |gpu| &gpu.about().name),
            Kind::Cpu => "cpu",
            Kind::Null | Kind::NullGpu => "null",
        }
    }

    /// Whether kernels are recorded for a GPU rather than run by the host; true of the null device that counts so.
    pub fn is_gpu(&self) -> bool {
        !matches!(self.0.kind, Kind::Cpu | Kind::Null)
    }

    /// The adapter behind it, if there is one.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Option<&gpu::Gpu> {
        self.0.gpu.as_ref()
    }

    /// Whether storages have contents; false on `Null`.
    pub fn computes(&self) -> bool {
        !matches!(self.0.kind, Kind::Null | Kind::NullGpu)
    }

    /// Runs `f`, and keeps the commands that it records for a GPU, to be replayed: they read and write the same storages
    /// again. What changes from one time to the next, and what lives on from one to the next, has to lie in storages
    /// allocated before; those that `f` lets go of are others' to use between. None where there is nothing to keep: on
    /// the host, if the host read something back in between, and if something that was allocated lives on.
    pub(crate) fn capture<R>(&self, f: impl FnOnce() -> R) -> (R, Option<Recording>) {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            let ((result, mut recording), peak) = self.ledger().peak_of(|| gpu.capture(f));
            recording.iter_mut().for_each(|recording| recording.peak = peak);
            let idle = |recording: &Recording| self.pool().while_idle(recording, || ()).is_some();
            return (result, recording.filter(idle));
        }
        (f(), None)
    }

    /// Runs a recording's commands again. False, and nothing done, if a storage that it uses belongs to something else
    /// now, or went back to the driver: what was recorded has to be recorded anew.
    pub(crate) fn replay(&self, recording: &Recording) -> bool {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            let done = self.pool().while_idle(recording, || gpu.replay(recording)).unwrap_or(false);
            if done {
                self.ledger().raise(recording.peak);
            }
            return done;
        }
        let _ = recording;
        false
    }

    /// A null device that counts like this one.
    pub fn like_null(&self) -> Device {
        if self.is_gpu() { Device::null_gpu() } else { Device::null() }
    }

    /// A null device to plan a run on the device of this name.
    pub fn null_for(name: &str) -> Device {
        #[cfg(feature = "gpu")]
        let gpu = match name {
            "cpu" => false,
            "auto" => gpu::has_hardware(),
            _ => true,
        };
        #[cfg(not(feature = "gpu"))]
        let gpu = !matches!(name, "auto" | "cpu");
        if gpu { Device::null_gpu() } else { Device::null() }
    }

    /// Most storages that a kernel may bind; the null device has what every adapter has.
    pub fn bindings(&self) -> usize {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.about().max_bindings as usize;
        }
        8
    }

    /// Most bytes of one storage that a kernel may bind; the null device has no limit.
    pub fn binding(&self) -> u64 {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.binding();
        }
        u64::MAX
    }

    /// Waits until all that was recorded for a GPU is done; reports what went wrong there.
    pub fn wait(&self) -> Result<()> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.wait();
        }
        Ok(())
    }

    /// GPU kernels used so far; on the null device those that would have been.
    pub fn kernels(&self) -> Vec<KernelKey> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            return gpu.kernels();
        }
        self.planned().iter().cloned().collect()
    }

    fn note(&self, kernel: KernelKey) {
        self.planned().insert(kernel);
    }

    fn planned(&self) -> std::sync::MutexGuard<'_, BTreeSet<KernelKey>> {
        self.0.planned.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes an op that has no kernel for this GPU.
    pub(crate) fn count_host_op(&self) {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            gpu.count_host_op();
        }
    }

    /// Bytes by tag.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Bytes that the pool holds from the system, in use or not.
    pub fn reserved(&self) -> u64 {
        self.0.pool.reserved()
    }

    /// Most bytes that the pool comes to hold when at most `peak` are live at a time.
    pub fn most_reserved(peak: u64) -> u64 {
        buffer::most_reserved(peak)
    }

    /// Gives pooled memory that nothing uses back to the system.
    pub fn trim(&self) {
        self.0.pool.clear();
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            gpu.forget_bindings();
        }
    }

    fn pool(&self) -> &buffer::Pool {
        &self.0.pool
    }

    /// An array with unspecified contents, counted under the current tag.
    #[track_caller]
    pub fn alloc(&self, spec: Spec) -> Array {
        assert!(!self.is_gpu() || spec.dtype != DType::F64, "no f64 on device {self:?}: cast to f32 first");
        Array::new(Buffer::new(self, spec.bytes(), ledger::current_tag()), spec)
    }

    /// Scratch for one kernel, counted as workspace.
    pub fn scratch(&self, spec: Spec) -> Array {
        tagged(Tag::Workspace, || self.alloc(spec))
    }

    /// Copies elements in.
    pub fn upload<T: Element>(&self, data: &[T], shape: Shape) -> Array {
        let mut array = self.alloc(Spec { dtype: T::DTYPE, shape });
        if self.computes() {
            array.fill_from(data);
        }
        array
    }

    /// One value, stored once.
    pub fn constant<T: Element>(&self, value: T) -> Array {
        let mut array = self.alloc(Spec::new(T::DTYPE, []));
        match self.is_gpu() {
            true => array.fill(value),
            false if self.computes() => array.slice_mut()[0] = value,
            false => {}
        }
        array
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
