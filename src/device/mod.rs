//! Where tensors live and kernels run.

mod array;
mod buffer;
pub mod cpu;
mod ledger;
mod memory;
pub mod observe;

pub use array::{Array, Spec};
pub use buffer::Buffer;
pub use ledger::{Bytes, Ledger, Tag, tagged};

use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::shape::Shape;
use std::sync::Arc;

/// A handle on a device; clones share its memory and its counts.
///
/// * `Cpu` computes on the host, on the threads of the current `rayon` pool.
/// * `Null` has shapes and a ledger but no storage: a step on it is a memory plan.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
    Null,
}

struct Inner {
    kind: Kind,
    ledger: Ledger,
    pool: buffer::Pool,
}

impl Device {
    fn new(kind: Kind) -> Device {
        Device(Arc::new(Inner { kind, ledger: Ledger::default(), pool: buffer::Pool::default() }))
    }

    /// The host, with a pool and a ledger of its own.
    pub fn cpu() -> Device {
        Device::new(Kind::Cpu)
    }

    /// A device that counts like the host and computes nothing.
    pub fn null() -> Device {
        Device::new(Kind::Null)
    }

    /// The device a user asked for: `auto` takes the best there is.
    pub fn by_name(name: &str) -> Result<Device> {
        match name {
            "auto" | "cpu" => Ok(Device::cpu()),
            "gpu" => {
                Err(Error::Device("device gpu: this version computes on the CPU only; there are auto, cpu".into()))
            }
            other => Err(Error::Device(format!("there is no device {other:?}; there are auto, cpu"))),
        }
    }

    /// Lower-case name, as in reports.
    pub fn name(&self) -> &'static str {
        match self.0.kind {
            Kind::Cpu => "cpu",
            Kind::Null => "null",
        }
    }

    /// Whether storages have contents; false on `Null`.
    pub fn computes(&self) -> bool {
        self.0.kind != Kind::Null
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
    }

    fn pool(&self) -> &buffer::Pool {
        &self.0.pool
    }

    /// An array with unspecified contents, counted under the current tag.
    pub fn alloc(&self, spec: Spec) -> Array {
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
            array.slice_mut().copy_from_slice(data);
        }
        array
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
