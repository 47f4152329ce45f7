//! Which GPU: what there is, and which one a user meant.

use crate::error::{Error, Result};
use serde::Serialize;
use std::sync::OnceLock;
use wgpu::{Backends, DeviceType, Features, Instance, InstanceDescriptor};

/// What a graphics driver says of one device.
#[derive(Clone, Debug, Serialize)]
pub struct Adapter {
    /// Name of the device.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Graphics interface: `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest storage that a kernel may see, in bytes.
    pub max_binding_bytes: u64,
    /// Most storages that a kernel may see.
    pub max_bindings: u32,
    /// Memory shared by a workgroup, in bytes.
    pub workgroup_bytes: u32,
    /// Most threads of a workgroup.
    pub workgroup_threads: u32,
    /// Smallest and largest number of threads that run in lockstep; 0 where unknown.
    pub subgroup: [u32; 2],
    /// Half-precision arithmetic, operations across a subgroup, timestamps, parameters without a buffer.
    pub features: Vec<&'static str>,
}

/// Features worth knowing of. No kernel uses the first three yet.
const FEATURES: [(Features, &str); 5] = [
    (Features::SHADER_F16, "f16"),
    (Features::SUBGROUP, "subgroups"),
    (Features::TIMESTAMP_QUERY, "timestamps"),
    (Features::IMMEDIATES, "immediates"),
    (Features::PIPELINE_CACHE, "pipeline-cache"),
];

impl Adapter {
    fn describe(adapter: &wgpu::Adapter) -> Adapter {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        Adapter {
            name: info.name,
            kind: kind(info.device_type),
            backend: info.backend.to_str().to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_bindings: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_threads: limits.max_compute_invocations_per_workgroup,
            subgroup: [info.subgroup_min_size, info.subgroup_max_size],
            features: FEATURES
                .iter()
                .filter(|(feature, _)| features.contains(*feature))
                .map(|(_, name)| *name)
                .collect(),
        }
    }

    /// Whether it is a graphics card, not a program that imitates one.
    pub fn is_hardware(&self) -> bool {
        matches!(self.kind, "discrete" | "integrated" | "virtual")
    }
}

fn kind(kind: DeviceType) -> &'static str {
    match kind {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "other",
    }
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let instance = Instance::new(InstanceDescriptor {
        backends: Backends::VULKAN | Backends::METAL | Backends::DX12,
        ..InstanceDescriptor::new_without_display_handle_from_env()
    });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(Backends::all()));
    // The best first; the order among equals is the system's.
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    adapters
}

/// All devices that a driver offers, the one that `auto` and `gpu` take first.
pub fn adapters() -> Vec<Adapter> {
    enumerate().iter().map(Adapter::describe).collect()
}

/// The adapter whose name has `name` in it, whatever the case; for `gpu`, the best that is no software.
pub(super) fn find(name: &str) -> Result<(wgpu::Adapter, Adapter)> {
    let adapters = enumerate().into_iter().map(|adapter| (Adapter::describe(&adapter), adapter));
    let adapters: Vec<_> = adapters.collect();
    let names: Vec<&str> = adapters.iter().map(|(adapter, _)| adapter.name.as_str()).collect();
    let there = ["auto", "cpu"].into_iter().chain(names).collect::<Vec<_>>().join(", ");
    let wanted = |adapter: &Adapter| match name {
        "gpu" => adapter.is_hardware(),
        name => adapter.name.to_lowercase().contains(&name.to_lowercase()),
    };
    let found = adapters.into_iter().find(|(adapter, _)| wanted(adapter));
    found.map(|(about, adapter)| (adapter, about)).ok_or_else(|| match name {
        "gpu" => Error::Device(format!("there is no GPU, or its driver is not installed; there are {there}")),
        name => Error::Device(format!("there is no device {name:?}; there are {there}")),
    })
}

/// Whether `auto` takes a GPU. The drivers are asked once: it takes them a while.
pub fn has_hardware() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| adapters().first().is_some_and(Adapter::is_hardware))
}

/// Features to ask for: those there are of those used.
pub(super) fn features(adapter: &wgpu::Adapter) -> Features {
    (Features::IMMEDIATES | Features::PIPELINE_CACHE) & adapter.features()
}
