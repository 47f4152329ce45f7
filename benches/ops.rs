//! Fused and elementwise kernels on the CPU, forward and backward, and random projections, in f32.

use criterion::{Criterion, criterion_group, criterion_main};
use eckart::autograd::vjp;
use eckart::nn::{Arch, Model, ModelConfig};
use eckart::ops::project::{Entries, Random};
use eckart::optim::{Adam, Chain, Gradients, Group, Optimizer, Transform};
use eckart::{DType, Device, Module, Parameter, Seed, Shape, Tensor};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Uniform in [−2, 2).
fn random(shape: impl Into<Shape>, device: &Device) -> Tensor {
    let shape = shape.into();
    let words = |i: usize| Seed(1).block(i as u64)[0] as f64 / 2_f64.powi(30) - 2.0;
    let values: Vec<f32> = (0..shape.count()).map(|i| words(i) as f32).collect();
    Tensor::new(&values, shape, device)
}

/// Runs inside the thread pool, where handing work to another thread is cheap.
fn time(n: u64, f: impl Fn() + Sync) -> Duration {
    rayon::scope(|_| {
        let start = Instant::now();
        (0..n).for_each(|_| f());
        start.elapsed()
    })
}

/// Times `f` forward, and forward with backward for all operands.
fn both(c: &mut Criterion, name: &str, ins: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor + Sync) {
    let plain: Vec<Tensor> = ins.iter().map(|&x| x.clone()).collect();
    let cotangent = f(&plain).ones_like().contiguous();
    c.bench_function(&format!("{name}/forward"), |b| b.iter_custom(|n| time(n, || drop(black_box(f(&plain))))));
    let step = || {
        let leaves: Vec<Tensor> =
            plain.iter().map(|x| if x.dtype() == DType::U32 { x.clone() } else { x.leaf() }).collect();
        let wrt: Vec<&Tensor> = leaves.iter().filter(|x| x.is_traced()).collect();
        drop(black_box(vjp(&f(&leaves), &cotangent, &wrt, false)));
    };
    c.bench_function(&format!("{name}/forward+backward"), |b| b.iter_custom(|n| time(n, step)));
}

fn ops(c: &mut Criterion) {
    let device = Device::cpu();
    let x = random([1024, 1024], &device);
    let row = random([1, 1024], &device).reshape([1024]);
    both(c, "gelu 1M", &[&x], |ins| ins[0].gelu());
    both(c, "gelu_tanh 1M", &[&x], |ins| ins[0].gelu_tanh());
    both(c, "softmax 1024x1024", &[&x], |ins| ins[0].softmax(-1));
    both(c, "layer_norm 1024x1024", &[&x, &row, &row], |ins| ins[0].layer_norm(&ins[1], &ins[2], 1e-5));
    both(c, "rms_norm 1024x1024", &[&x, &row], |ins| ins[0].rms_norm(&ins[1], 1e-5));
    both(c, "dropout 1M", &[&x], |ins| ins[0].dropout(0.1, Seed(2)));
    let targets: Vec<u32> = (0..2048).map(|i| i % 65).collect();
    let (logits, targets) = (random([2048, 65], &device), Tensor::new(&targets, [2048], &device));
    both(c, "cross_entropy 2048x65", &[&logits, &targets], |ins| ins[0].cross_entropy(&ins[1]));
}

/// The optimizer's step on a char GPT of four layers of width 128, without clipping.
fn step(c: &mut Criterion, name: &str, transform: impl Transform + 'static) {
    let config = ModelConfig::new(Arch::Gpt2, 65, 128, 4, 4, 128);
    let mut model = Model::new(&config, Seed(1), &Device::cpu()).expect("a valid configuration");
    let mut optimizer = Optimizer::new(transform, Group::decay_matrices(0.1));
    optimizer.prepare(&model);
    // The same in every step: gradients in proportion to the weights would lead both to subnormal numbers, which take
    // a processor twenty times as long.
    let like = |parameter: &Parameter| random(*parameter.tensor().shape(), &Device::cpu());
    let fixed: Vec<Tensor> = model.parameters().iter().map(|(_, parameter)| like(parameter)).collect();
    let mut count = 0;
    let mut one = || {
        let mut gradients = Gradients::new();
        for ((_, parameter), gradient) in model.parameters().iter().zip(&fixed) {
            gradients.insert(parameter.id(), gradient.array().to_owned());
        }
        let start = Instant::now();
        optimizer.step(&mut model, gradients, count, 1e-4, None);
        count += 1;
        start.elapsed()
    };
    c.bench_function(name, |b| b.iter_custom(|n| rayon::scope(|_| (0..n).map(|_| one()).sum())));
}

/// In one pass over all parameters, and as any transform goes: each parameter's update, then its subtraction.
fn adamw(c: &mut Criterion) {
    step(c, "adamw char GPT", Adam::default());
    step(c, "adamw char GPT, parameter by parameter", Chain(vec![Box::new(Adam::default())]));
}

/// Random projections of a matrix [size, n], and back, beside products with a matrix that is stored.
fn projections(c: &mut Criterion) {
    let device = Device::cpu();
    for (rank, size, n) in [(8, 128, 512), (64, 128, 512), (8, 1024, 1024), (64, 1024, 1024)] {
        let p = |entries| Random { entries, rank, seed: Seed(3) };
        let (x, sketch) = (random([size, n], &device), random([rank, n], &device));
        let stored = p(Entries::Rademacher).matrix(size, DType::F32, &device);
        let mut bench = |what: &str, f: &(dyn Fn() -> Tensor + Sync)| {
            let name = format!("{what} {rank} by {size}, {n} columns");
            c.bench_function(&name, |b| b.iter_custom(|count| time(count, || drop(black_box(f())))));
        };
        bench("project, stored", &|| stored.matmul(&x));
        bench("project, signs", &|| x.project(p(Entries::Rademacher)));
        bench("project, normal", &|| x.project(p(Entries::Gaussian)));
        bench("project back, stored", &|| stored.t().matmul(&sketch));
        bench("project back, signs", &|| sketch.project_back(p(Entries::Rademacher), size));
        bench("project back, normal", &|| sketch.project_back(p(Entries::Gaussian), size));
    }
}

criterion_group!(benches, ops, adamw, projections);
criterion_main!(benches);
