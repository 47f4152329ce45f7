//! Every shader with every set of names in use: valid, and written out for Vulkan, Metal and DirectX. Which kernels there
//! are is what the null device would have run; no adapter is needed.

use eckart::autograd::{hvp, jvp, vjp};
use eckart::device::gpu::shader;
use eckart::device::kernel::KernelKey;
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::dropout::Mask;
use eckart::ops::matmul::{Family, gpu_product};
use eckart::ops::project::{Entries, Random};
use eckart::ops::quantised::{Format, Packed, Product};
use eckart::ops::samples;
use eckart::optim::{Adam, Adam8bit, Chain, Gradients, Group, Momentum, Numbers, Optimizer, Transform};
use eckart::{DType, Device, Module, Seed, Spec, Tensor};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::collections::BTreeSet;

/// Values, cotangents and tangents of every op's samples.
fn run_samples(device: &Device) {
    for sample in samples() {
        let ins = sample.tensors(Seed(0), DType::F32, device);
        let specs: Vec<_> = ins.iter().map(Tensor::spec).collect();
        if sample.op.infer(&specs).is_ok_and(|spec| spec.dtype == DType::F64) {
            continue;
        }
        let moves: Vec<bool> = sample.inputs.iter().map(|input| input.differentiable).collect();
        let leaf = |(x, &moves): (&Tensor, &bool)| if moves { x.leaf() } else { x.clone() };
        let leaves: Vec<Tensor> = ins.iter().zip(&moves).map(leaf).collect();
        let moving: Vec<&Tensor> = leaves.iter().filter(|x| x.is_traced()).collect();
        let apply = |ins: &[Tensor]| sample.apply(&ins.iter().collect::<Vec<_>>());
        let y = apply(&leaves);
        if y.dtype() == DType::F32 && y.is_traced() {
            vjp(&y, &y.ones_like(), &moving, false);
            let along = ins.iter().zip(&moves).map(|(x, moves)| moves.then(|| x.ones_like())).collect();
            jvp(apply, &ins, &[along]);
            let x: Vec<Tensor> = ins.iter().zip(&moves).filter(|(_, moves)| **moves).map(|(x, _)| x.clone()).collect();
            let square = |x: &[Tensor]| {
                let mut x = x.iter();
                let with =
                    |(fixed, &moves): (&Tensor, &bool)| if moves { x.next().unwrap().clone() } else { fixed.clone() };
                let y = apply(&ins.iter().zip(&moves).map(with).collect::<Vec<_>>());
                (&y * &y).sum_all()
            };
            hvp(square, &x, &[x.iter().map(|x| Some(x.ones_like())).collect()]);
        }
    }
}

/// A step of each family with each optimizer, at sizes where other kernels serve than for samples.
fn run_models(device: &Device) {
    for (arch, width) in [(Arch::Gpt2, 48), (Arch::Llama, 64), (Arch::Gpt2, 768), (Arch::Llama, 576)] {
        let heads = width / 16;
        let mut model = Model::new(&ModelConfig::new(arch, 65, 64, 1, heads, width), Seed(0), device).unwrap();
        let ids = Tensor::new(&[0_u32; 2 * 64], [2, 64], device);
        for dropout in [None, Some(Mask::new(Seed(1), device))] {
            for adam in [true, false] {
                let groups = Group::decay_matrices(0.1);
                let mut optimizer = match adam {
                    true if dropout.is_some() => Optimizer::new(Adam8bit::default(), groups),
                    true => Optimizer::new(Adam::default(), groups),
                    false => Optimizer::new(Momentum { beta: if dropout.is_some() { 0.0 } else { 0.9 } }, groups),
                };
                let loss = model.loss(&ids, &ids, &Pass { dropout: dropout.clone(), recompute: false });
                let value = loss.detach();
                let mut gradients = Gradients::new();
                gradients.add(loss);
                let loss = adam.then(|| value.array());
                optimizer.record(&mut model, gradients, loss, &mut Numbers::new(0, device), 0);
            }
        }
        assert!(!model.parameters().is_empty());
    }
}

/// Products of many shapes, as they lie and transposed.
fn run_products(device: &Device) {
    let zeros = |rows: usize, columns: usize| Tensor::new(&vec![0.0_f32; rows * columns], [rows, columns], device);
    let sizes = [1, 7, 8, 16, 65, 300, 1024];
    let pick = |i: usize| sizes[i % sizes.len()];
    for (m, k, n) in (0..sizes.len().pow(3)).map(|i| (pick(i), pick(i / sizes.len()), pick(i / sizes.len().pow(2)))) {
        let (a, b, bias) = (zeros(m, k), zeros(k, n), Tensor::new(&vec![0.0_f32; n], [n], device));
        a.matmul(&b);
        zeros(k, m).t().matmul(&b);
        a.matmul(&zeros(n, k).t());
        zeros(k, m).t().matmul(&zeros(n, k).t());
        a.linear(&b, Some(&bias));
        // What the formula takes for software drivers alone, and what it is measured against.
        let mut y = device.alloc(Spec::new(DType::F32, [m, n]));
        for family in [Family::Naive, Family::Direct] {
            gpu_product(a.array(), b.array(), &mut y, None, false, Some(family));
        }
    }
}

/// Random projections of every rank that has a tile of its own, as operands lie and transposed.
fn run_projections(device: &Device) {
    let zeros = |rows: usize, columns: usize| Tensor::new(&vec![0.0_f32; rows * columns], [rows, columns], device);
    for (rank, n) in [1, 12, 20, 64].into_iter().flat_map(|rank| [5, 64, 2048].map(|n| (rank, n))) {
        for entries in [Entries::Rademacher, Entries::Walsh, Entries::Gaussian] {
            let p = Random { entries, rank, seed: Seed(0) };
            zeros(300, n).project(p);
            zeros(n, 300).t().project(p);
            zeros(rank, n).project_back(p, 2048);
            zeros(n, rank).t().project_back(p, 2048);
        }
    }
}

/// Matrices in fewer bits: every tile, and parts of long sums, with columns in whole fours and not.
fn run_quantised(device: &Device) {
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(shape, dtype, device).contiguous();
    for packed in Format::ALL.into_iter().flat_map(|format| {
        [[64, 64], [2048, 1024], [1023, 2047]].map(|[rows, columns]| Packed { format, rows, columns })
    }) {
        let codes = zeros(DType::U32, &[packed.words()]);
        let scales = zeros(DType::F32, &[packed.scales()]);
        for m in [1, 9, 17, 33, 1000] {
            for transposed in [false, true] {
                let [k, n] = if transposed { [packed.columns, packed.rows] } else { [packed.rows, packed.columns] };
                let ins = [&zeros(DType::F32, &[m, k]), &codes, &scales, &zeros(DType::F32, &[n])];
                Tensor::apply(Product { packed, transposed }, &ins);
            }
        }
    }
}

/// Eight bits as a link of a chain, whose gradient has been scaled.
fn run_chain(device: &Device) {
    let mut model = Model::new(&ModelConfig::new(Arch::Gpt2, 65, 64, 1, 4, 64), Seed(0), device).unwrap();
    let links: Vec<Box<dyn Transform>> = vec![Box::new(Momentum { beta: 0.0 }), Box::new(Adam8bit::default())];
    let mut optimizer = Optimizer::new(Chain(links), Vec::new());
    let ids = Tensor::new(&[0_u32; 64], [1, 64], device);
    let mut gradients = Gradients::new();
    gradients.add(model.loss(&ids, &ids, &Pass::default()));
    optimizer.record(&mut model, gradients, None, &mut Numbers::new(0, device), 0);
}

/// Adapters per example, with sides on either side of a tile's.
fn run_adapters(device: &Device) {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).contiguous();
    for [time, inputs, rank, outputs] in [[8, 8, 4, 8], [8, 64, 4, 64], [64, 64, 4, 64], [64, 64, 32, 64]] {
        let (x, ids) = (zeros(&[2, time, inputs]).leaf(), Tensor::new(&[0_u32, 1], [2], device));
        let (a, b) = (zeros(&[3, inputs, rank]).leaf(), zeros(&[3, rank, outputs]).leaf());
        let y = zeros(&[2, time, outputs]).add_adapters(&x, &a, &b, &ids, 1.0);
        vjp(&y, &y.detach(), &[&x, &a, &b], false);
    }
}

fn kernels() -> BTreeSet<KernelKey> {
    let device = Device::null_gpu();
    run_adapters(&device);
    run_quantised(&device);
    run_chain(&device);
    run_samples(&device);
    run_models(&device);
    run_products(&device);
    run_projections(&device);
    let types = [DType::F32, DType::U32, DType::F16, DType::BF16];
    for (i, j) in (0..16).map(|i| (i / 4, i % 4)) {
        Tensor::zeros([3], DType::F32, &device).contiguous().cast(types[i]).cast(types[j]);
    }
    let kernels: BTreeSet<KernelKey> = device.kernels().into_iter().collect();
    let together = kernels.iter().flat_map(many_together);
    kernels.iter().cloned().chain(together).collect()
}

/// Kernels for several parameters at once, where adapters bind more than the null device assumes.
fn many_together(key: &KernelKey) -> Vec<KernelKey> {
    let counts: &[u32] = if key.names.iter().any(|(name, _)| *name == TOGETHER) { &[2, 6] } else { &[] };
    let with = |count: &u32| {
        let name = |(name, value): &(&'static str, String)| match *name {
            TOGETHER => (TOGETHER, count.to_string()),
            other => (other, value.clone()),
        };
        KernelKey { names: key.names.iter().map(name).collect(), ..key.clone() }
    };
    counts.iter().map(with).collect()
}

/// The name that says how many.
const TOGETHER: &str = "TENSORS";

struct Shader {
    module: naga::Module,
    info: ModuleInfo,
}

fn validated(key: &KernelKey, immediates: bool) -> Shader {
    let text = shader::source(key.shader, &key.names, immediates);
    let module = naga::front::wgsl::parse_str(&text);
    let mut module = module.unwrap_or_else(|error| panic!("{key:?}: {}", error.emit_to_string(&text)));
    // One entry at a time, as pipelines are made: others bind other types to the same numbers.
    module.entry_points.retain(|entry| entry.name == key.entry);
    assert_eq!(module.entry_points.len(), 1, "{key:?}");
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    let capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.unwrap_or_else(|error| panic!("{key:?}: {}", error.emit_to_string(&text)));
    Shader { module, info }
}

/// What every adapter has: WebGPU's default limits.
fn fits_the_floor(key: &KernelKey, module: &naga::Module) {
    let entry = &module.entry_points[0];
    assert!(entry.workgroup_size.iter().product::<u32>() <= 256, "{key:?}: {:?} threads", entry.workgroup_size);
    let layout = module.to_ctx();
    let space = |space| {
        let of = move |(_, global): &(_, &naga::GlobalVariable)| global.space == space;
        module.global_variables.iter().filter(of)
    };
    let shared: u32 = space(naga::AddressSpace::WorkGroup).map(|(_, g)| module.types[g.ty].inner.size(layout)).sum();
    assert!(shared <= 16 << 10, "{key:?}: {shared} bytes of workgroup memory");
    let storages =
        module.global_variables.iter().filter(|(_, g)| matches!(g.space, naga::AddressSpace::Storage { .. }));
    assert!(storages.count() <= 8, "{key:?} binds more than 8 storages");
}

#[test]
fn every_kernel_is_valid_and_written_for_vulkan_metal_and_directx() {
    let kernels = kernels();
    for key in &kernels {
        for immediates in [true, false] {
            let Shader { module, info } = validated(key, immediates);
            if !key.names.iter().any(|(name, value)| *name == TOGETHER && value != "1") {
                fits_the_floor(key, &module);
            }
            let entry = key.entry.to_string();
            let options = spv::Options { fake_missing_bindings: true, ..spv::Options::default() };
            let pipeline =
                spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: entry.clone() };
            spv::write_vec(&module, &info, &options, Some(&pipeline))
                .unwrap_or_else(|error| panic!("{key:?} for Vulkan: {error}"));
            let pipeline = msl::PipelineOptions {
                entry_point: Some((naga::ShaderStage::Compute, entry.clone())),
                ..msl::PipelineOptions::default()
            };
            msl::write_string(&module, &info, &msl::Options::default(), &pipeline)
                .unwrap_or_else(|error| panic!("{key:?} for Metal: {error}"));
            let options = hlsl::Options {
                immediates_target: Some(hlsl::BindTarget { space: 9, ..hlsl::BindTarget::default() }),
                special_constants_binding: Some(hlsl::BindTarget { space: 8, ..hlsl::BindTarget::default() }),
                ..hlsl::Options::default()
            };
            let pipeline = hlsl::PipelineOptions { entry_point: Some((naga::ShaderStage::Compute, entry)) };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &pipeline)
                .write(&module, &info, None)
                .unwrap_or_else(|error| panic!("{key:?} for DirectX: {error}"));
        }
    }
    eprintln!("{} kernels", kernels.len());
}

/// A file that no kernel comes from and no other imports would be dead.
#[test]
fn every_shader_is_used() {
    let used: BTreeSet<&str> = kernels().iter().map(|key| key.shader).collect();
    for name in shader::names() {
        let imported =
            shader::names().any(|other| shader::source(other, &[], true).contains(&format!("//!import {name}\n")));
        assert!(used.contains(name) || imported, "nothing uses shaders/{name}.wgsl");
    }
}
