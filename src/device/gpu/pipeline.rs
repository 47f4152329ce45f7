//! Compiled kernels, each compiled once.

use super::cache::Cache;
use super::shader;
use crate::device::kernel::{KernelKey, MAX_WORDS};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType,
    ComputePipelineDescriptor, PipelineCompilationOptions, PipelineLayout, PipelineLayoutDescriptor,
    ShaderModuleDescriptor, ShaderRuntimeChecks, ShaderSource, ShaderStages,
};

/// Bytes of a kernel's parameters.
pub(super) const PARAMETER_BYTES: u32 = 4 * MAX_WORDS as u32;

/// A compiled kernel.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: Arc<Layout>,
}

/// How storages are bound: the first few written, the rest read.
pub(super) struct Layout {
    pub id: u64,
    pub bindings: BindGroupLayout,
    pipeline: PipelineLayout,
}

/// All kernels compiled so far.
pub(super) struct Pipelines {
    made: HashMap<KernelKey, Arc<Pipeline>>,
    layouts: HashMap<(usize, usize), Arc<Layout>>,
    /// Layout of the parameters' uniform, where there are no immediates.
    pub uniform: Option<BindGroupLayout>,
    cache: Option<Cache>,
}

/// What was compiled is left for the next run.
impl Drop for Pipelines {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.as_ref().filter(|_| !self.made.is_empty()) {
            cache.save();
        }
    }
}

impl Pipelines {
    pub fn new(device: &wgpu::Device, immediates: bool, cache: Option<Cache>) -> Pipelines {
        let uniform = (!immediates).then(|| {
            let ty = BindingType::Buffer {
                ty: BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: NonZeroU64::new(PARAMETER_BYTES.into()),
            };
            bindings(device, [ty])
        });
        Pipelines { made: HashMap::new(), layouts: HashMap::new(), uniform, cache }
    }

    /// Kernels compiled so far.
    pub fn keys(&self) -> impl Iterator<Item = &KernelKey> {
        self.made.keys()
    }

    /// The pipeline of a kernel, and whether it had to be compiled.
    pub fn get(&mut self, device: &wgpu::Device, key: KernelKey, layout: (usize, usize)) -> (Arc<Pipeline>, bool) {
        if let Some(pipeline) = self.made.get(&key) {
            return (pipeline.clone(), false);
        }
        let layout = self.layout(device, layout);
        let pipeline = Arc::new(self.compile(device, &key, layout));
        self.made.insert(key, pipeline.clone());
        (pipeline, true)
    }

    fn layout(&mut self, device: &wgpu::Device, (writes, reads): (usize, usize)) -> Arc<Layout> {
        let id = self.layouts.len() as u64;
        let uniform = self.uniform.clone();
        let make = || {
            let storage = |read_only| BindingType::Buffer {
                ty: BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            };
            let bindings = bindings(device, (0..writes + reads).map(|i| storage(i >= writes)));
            let groups = [Some(&bindings)].into_iter().chain(uniform.iter().map(Some)).collect::<Vec<_>>();
            let pipeline = device.create_pipeline_layout(&PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &groups,
                immediate_size: if uniform.is_some() { 0 } else { PARAMETER_BYTES },
            });
            Arc::new(Layout { id, bindings, pipeline })
        };
        self.layouts.entry((writes, reads)).or_insert_with(make).clone()
    }
}

fn bindings(device: &wgpu::Device, types: impl IntoIterator<Item = BindingType>) -> BindGroupLayout {
    let entry =
        |(i, ty)| BindGroupLayoutEntry { binding: i as u32, visibility: ShaderStages::COMPUTE, ty, count: None };
    let entries: Vec<_> = types.into_iter().enumerate().map(entry).collect();
    device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries })
}

impl Pipelines {
    fn compile(&self, device: &wgpu::Device, key: &KernelKey, layout: Arc<Layout>) -> Pipeline {
        let text = shader::source(key.shader, &key.names, self.uniform.is_none());
        let module = ShaderModuleDescriptor { label: Some(key.shader), source: ShaderSource::Wgsl(text.into()) };
        // SAFETY: every kernel of `shaders/` compares what it indexes by with the sizes it was given; what comes from data
        // (indices, targets) is compared too. The suite runs them at sizes around their tiles.
        let module = unsafe { device.create_shader_module_trusted(module, ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: Some(key.shader),
            layout: Some(&layout.pipeline),
            module: &module,
            entry_point: Some(key.entry),
            compilation_options: PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..PipelineCompilationOptions::default()
            },
            cache: self.cache.as_ref().map(|cache| &cache.pipelines),
        });
        Pipeline { pipeline, layout }
    }
}
