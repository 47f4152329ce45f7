//! Steps and bandwidth on a GPU: forward + backward of a Llama of SmolLM2-135M's shape with random weights, and bytes per
//! second of kernels that only move data. `benches/gpu_torch.py` times the same in PyTorch.
//!
//! `ECKART_DEVICE=llvmpipe cargo bench --bench gpu_step` takes the device of that name, software drivers at a hundredth
//! of the size; the default is the best GPU.

use eckart::autograd::grad;
use eckart::device::gpu::Gpu;
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, Module, Parameter, Seed, Tensor};
use std::time::Instant;

/// Measurements of each case; the median is shown, with the least and the most.
const ROUNDS: usize = 7;

fn main() {
    let name = std::env::var("ECKART_DEVICE").unwrap_or("gpu".to_owned());
    let device = Device::by_name(&name).unwrap_or_else(|error| panic!("{error}"));
    let gpu = device.gpu().expect("a GPU");
    println!("{} ({})", gpu.about().name, gpu.about().driver);
    println!("{:44} {:>9} {:>9} {:>9} {:>10}", "", "median ms", "least", "most", "GB/s");
    let hardware = gpu.about().is_hardware();
    bandwidth(&device, gpu, if hardware { 1 << 26 } else { 1 << 20 });
    for (batch, context) in [(1, 128), (8, 128), (1, 1024), (8, 1024)] {
        let (context, layers) = if hardware { (context, 30) } else { (context / 16, 1) };
        model(&device, gpu, batch, context, layers);
    }
}

/// Times `f` in rows of `count` calls; the first row compiles and warms the pool. Milliseconds of one call.
fn time(gpu: &Gpu, count: usize, mut f: impl FnMut()) -> [f64; 3] {
    let mut row = || {
        let start = Instant::now();
        (0..count).for_each(|_| f());
        gpu.wait().expect("the device computes");
        1e3 * start.elapsed().as_secs_f64() / count as f64
    };
    row();
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| row()).collect();
    times.sort_by(f64::total_cmp);
    [times[ROUNDS / 2], times[0], times[ROUNDS - 1]]
}

/// Bytes that must move, read and written, over the time that it took.
fn bandwidth(device: &Device, gpu: &Gpu, count: usize) {
    const WIDTH: usize = 1024;
    let line = |name: &str, passes: usize, [median, least, most]: [f64; 3]| {
        let rate = (4 * count * passes) as f64 / median * 1e-6;
        println!("{name:44} {median:9.3} {least:9.3} {most:9.3} {rate:10.1}");
    };
    let x = Tensor::full(0.5, eckart::Spec::new(DType::F32, [count / WIDTH, WIDTH]), device).contiguous();
    let row = Tensor::full(1.0, eckart::Spec::new(DType::F32, [WIDTH]), device).contiguous();
    let calls = 10;
    line("copy", 2, time(gpu, calls, || drop(x.array().to_owned())));
    line("add", 3, time(gpu, calls, || drop(&x + &x)));
    line("gelu", 2, time(gpu, calls, || drop(x.gelu_tanh())));
    line("softmax, rows of 1024", 2, time(gpu, calls, || drop(x.softmax(-1))));
    line("layer norm, rows of 1024", 2, time(gpu, calls, || drop(x.layer_norm(&row, &row, 1e-5))));
    line("rms norm, rows of 1024", 2, time(gpu, calls, || drop(x.rms_norm(&row, 1e-5))));
    line("sum of all", 1, time(gpu, calls, || drop(x.sum_all())));
    let mut weights = Weights { w: Parameter::new(x.clone()) };
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.1));
    drop(x);
    let mut step = 0;
    let updated = time(gpu, 1, || {
        let loss = weights.w.tensor().sum_all();
        let mut gradients = Gradients::new();
        gradients.add(loss);
        optimizer.step(&mut weights, gradients, step, 1e-3, None);
        step += 1;
    });
    line("sum, gradient, norm, AdamW and its read", 10, updated);
}

struct Weights {
    w: Parameter,
}
eckart::module!(Weights: w);

/// Loss and all gradients.
fn model(device: &Device, gpu: &Gpu, batch: usize, context: usize, layers: usize) {
    let small = ModelConfig { kv_heads: 3, ..ModelConfig::new(Arch::Llama, 49_152, context, layers, 9, 576) };
    let sizes = ModelConfig { hidden: 1536, ..small };
    let model = Model::new(&sizes, Seed(0), device).expect("sizes that fit together");
    let ids: Vec<u32> = (0..batch * context).map(|i| (i * 7919 % sizes.vocabulary) as u32).collect();
    let ids = Tensor::new(&ids, [batch, context], device);
    let leaves = model.parameters();
    let before = gpu.counters();
    let [median, least, most] = time(gpu, 1, || {
        let loss = model.loss(&ids, &ids, &Pass::default());
        grad(&loss, &leaves.iter().map(|(_, p)| p.tensor()).collect::<Vec<_>>(), false);
    });
    let spent = gpu.counters().since(&before);
    let name = format!("{layers} layers of 135M, batch {batch} × {context}");
    let host = spent.per_dispatch().as_secs_f64() * 1e6;
    let kernels = spent.dispatches as usize / (ROUNDS + 1);
    println!("{name:44} {median:9.3} {least:9.3} {most:9.3}   {kernels} kernels, {host:.1} µs of the host each");
}
