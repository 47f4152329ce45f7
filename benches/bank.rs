//! One adapter per example on the CPU, in f32: a bank of additive adapters, multiplicative ones, and a loop over adapters
//! as it is done elsewhere, around one frozen layer [512, 512]. A training step of 16 examples of 64 tokens, and the
//! forward pass of one token each, as in generation.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eckart::autograd::vjp;
use eckart::lowrank::{self, Bank, Hadamard};
use eckart::module::normal;
use eckart::{Device, LinearMap, Module, Seed, Tensor};
use std::hint::black_box;
use std::time::{Duration, Instant};

const WIDTH: usize = 512;
const BATCH: usize = 16;

#[derive(Clone)]
struct Net {
    layer: LinearMap,
}
eckart::module!(Net: layer);

fn random(shape: &[usize], seed: u64) -> Tensor {
    normal(shape, 0.1, Seed(seed), &Device::cpu())
}

/// Adapters take turns.
fn chosen(n: usize) -> Vec<u32> {
    (0..BATCH).map(|e| (e * 5 % n) as u32).collect()
}

/// A frozen weight.
fn base() -> LinearMap {
    LinearMap::dense(random(&[WIDTH, WIDTH], 1)).frozen()
}

fn net(layer: LinearMap, n: usize) -> Net {
    let mut net = Net { layer };
    lowrank::select(&mut net, &chosen(n)).expect("they are there");
    net
}

/// Each adapter's examples are picked, multiplied, and put back.
struct Loop {
    base: LinearMap,
    adapters: Vec<[Tensor; 2]>,
    examples: Vec<Tensor>,
    back: Tensor,
}

impl Loop {
    fn new(n: usize, rank: usize) -> Loop {
        let device = Device::cpu();
        let of = |i: usize| {
            chosen(n).iter().enumerate().filter(|(_, id)| **id as usize == i).map(|(e, _)| e as u32).collect::<Vec<_>>()
        };
        let order: Vec<u32> = (0..n).flat_map(of).collect();
        let place = |e: u32| order.iter().position(|&other| other == e).expect("every example") as u32;
        let back: Vec<u32> = (0..BATCH as u32).map(place).collect();
        let upload = |ids: &[u32]| Tensor::new(ids, [ids.len()], &device);
        Loop {
            base: base(),
            adapters: (0..n).map(|_| [random(&[WIDTH, rank], 2), random(&[rank, WIDTH], 3)]).collect(),
            examples: (0..n).map(|i| upload(&of(i))).collect(),
            back: upload(&back),
        }
    }

    fn apply(&self, x: &Tensor, adapters: &[[Tensor; 2]]) -> Tensor {
        let one =
            |(examples, [a, b]): (&Tensor, &[Tensor; 2])| x.gather(examples).linear(a, None).linear(b, None) * 2.0;
        let parts: Vec<Tensor> = self.examples.iter().zip(adapters).map(one).collect();
        self.base.apply(x, None) + Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0).gather(&self.back)
    }
}

/// Runs inside the thread pool, where handing work to another thread is cheap.
fn time(n: u64, f: impl Fn() + Sync) -> Duration {
    rayon::scope(|_| {
        let start = Instant::now();
        (0..n).for_each(|_| f());
        start.elapsed()
    })
}

/// Tokens in a second: a training step, and a token of each example.
fn measure(
    c: &mut Criterion,
    name: &str,
    forward: &(dyn Fn(&Tensor) -> Tensor + Sync),
    step: &(dyn Fn(&Tensor) + Sync),
) {
    let mut group = c.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    let (long, short) = (random(&[BATCH, 64, WIDTH], 4), random(&[BATCH, 1, WIDTH], 5));
    group.throughput(Throughput::Elements(64 * BATCH as u64));
    group.bench_function("training", |b| b.iter_custom(|n| time(n, || step(&long))));
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("one token", |b| b.iter_custom(|n| time(n, || drop(black_box(forward(&short))))));
    group.finish();
}

/// A layer's forward pass and a step of it, with gradients of x and of what trains.
fn layer(c: &mut Criterion, name: &str, net: &Net) {
    let step = |x: &Tensor| {
        let x = x.leaf();
        let y = net.layer.apply(&x, None);
        let parameters = net.parameters();
        let wrt = parameters.iter().filter(|(_, p)| p.trains()).map(|(_, p)| p.tensor()).chain([&x]);
        black_box(vjp(&y, &y.detach(), &wrt.collect::<Vec<_>>(), false));
    };
    let frozen = net.frozen();
    measure(c, name, &|x| frozen.layer.apply(x, None), &step);
}

fn by_loop(c: &mut Criterion, name: &str, all: &Loop) {
    let step = |x: &Tensor| {
        let x = x.leaf();
        let adapters: Vec<[Tensor; 2]> = all.adapters.iter().map(|pair| pair.each_ref().map(Tensor::leaf)).collect();
        let y = all.apply(&x, &adapters);
        let wrt: Vec<&Tensor> = adapters.iter().flatten().chain([&x]).collect();
        black_box(vjp(&y, &y.detach(), &wrt, false));
    };
    measure(c, name, &|x| all.apply(x, &all.adapters), &step);
}

fn bank(c: &mut Criterion) {
    layer(c, "no adapters", &Net { layer: base() });
    for rank in [1, 2, 4, 8] {
        for n in [1, 4, 16] {
            let name = |form: &str| format!("{form}, rank {rank}, {n} adapters");
            let [a, b] = [random(&[n, WIDTH, rank], 6), random(&[n, rank, WIDTH], 7)];
            layer(c, &name("bank"), &net(LinearMap::new(Bank::new(base(), a.clone(), b.clone(), 2.0)), n));
            let [a, b] = [a.transpose(1, 2).contiguous(), b];
            layer(c, &name("hadamard"), &net(LinearMap::new(Hadamard::new(base(), a, b, 2.0)), n));
            by_loop(c, &name("loop"), &Loop::new(n, rank));
        }
    }
}

criterion_group!(benches, bank);
criterion_main!(benches);
