//! One training step of the char GPT (vocabulary 65, context 128, batch 16, 4 layers, 4 heads, width 128) against
//! the time that `gemm` alone needs for the step's linear maps, and its Hessian-vector product against its gradient.
//!
//! `cargo bench --bench step` runs all by criterion; `cargo bench --bench step -- --ratios` prints interleaved minima
//! and their ratios, which is what BENCHMARKS.md quotes.

use criterion::{Criterion, criterion_group};
use eckart::autograd::{Direction, hvp};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{Device, Module, Seed, Tensor};
use std::hint::black_box;
use std::time::{Duration, Instant};

const BATCH: usize = 16;
const TIME: usize = 128;
const WIDTH: usize = 128;
const LAYERS: usize = 4;
const VOCABULARY: usize = 65;

/// A model, its optimizer and a batch.
struct Training {
    model: Model,
    optimizer: Optimizer,
    ids: Tensor,
    targets: Tensor,
    step: u64,
}

impl Training {
    fn new() -> Training {
        let device = Device::cpu();
        let config = ModelConfig::new(Arch::Gpt2, VOCABULARY, TIME, LAYERS, 4, WIDTH);
        let model = Model::new(&config, Seed(1), &device).expect("a valid configuration");
        let token = |i: usize| ((i * 7919) % VOCABULARY) as u32;
        let ids: Vec<u32> = (0..BATCH * TIME).map(token).collect();
        let targets: Vec<u32> = (1..=BATCH * TIME).map(token).collect();
        Training {
            model,
            optimizer: Optimizer::new(Adam::default(), Group::decay_matrices(0.1)),
            ids: Tensor::new(&ids, [BATCH, TIME], &device),
            targets: Tensor::new(&targets, [BATCH, TIME], &device),
            step: 0,
        }
    }

    fn gradients(&self) -> Gradients {
        let mut gradients = Gradients::new();
        gradients.add(self.model.loss(&self.ids, &self.targets, &Pass::default()));
        gradients
    }

    fn step(&mut self) {
        let gradients = self.gradients();
        self.optimizer.step(&mut self.model, gradients, self.step, 1e-4, Some(1.0));
        self.step += 1;
    }

    fn parameters(&self) -> Vec<Tensor> {
        self.model.parameters().iter().map(|(_, p)| p.tensor().detach()).collect()
    }

    /// Random directions over all parameters.
    fn directions(&self, count: usize) -> Vec<Direction> {
        let parameters = self.parameters();
        let along = |k: usize| {
            let moved = |(i, p): (usize, &Tensor)| {
                Some(eckart::module::normal(p.shape(), 1.0, Seed(k as u64).fold(i as u64), p.device()))
            };
            parameters.iter().enumerate().map(moved).collect()
        };
        (0..count).map(along).collect()
    }

    /// Loss, gradient and one Hessian-vector product for each direction.
    fn products(&self, directions: &[Direction]) {
        let parameters = self.parameters();
        let loss = |tensors: &[Tensor]| {
            let mut model = self.model.clone();
            model.bind(tensors);
            model.loss(&self.ids, &self.targets, &Pass::default())
        };
        black_box(hvp(loss, &parameters, directions));
    }
}

/// The linear maps of one step as (m, k, n, layout), all by the `gemm` crate on the threads of the pool.
struct Products {
    shapes: Vec<(usize, usize, usize, Layout)>,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

/// How the operands lie: as in the forward pass, in x's gradient, in W's gradient.
#[derive(Clone, Copy)]
enum Layout {
    Forward,
    Inputs,
    Weights,
}

impl Products {
    fn new() -> Products {
        let rows = BATCH * TIME;
        let maps = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)];
        let all = (0..LAYERS).flat_map(|_| maps).chain([(WIDTH, VOCABULARY)]);
        let passes = |(inputs, outputs): (usize, usize)| {
            [
                (rows, inputs, outputs, Layout::Forward),
                (rows, outputs, inputs, Layout::Inputs),
                (inputs, rows, outputs, Layout::Weights),
            ]
        };
        let largest = rows * 4 * WIDTH;
        Products {
            shapes: all.flat_map(passes).collect(),
            a: vec![0.5; largest],
            b: vec![0.25; largest],
            c: vec![0.0; largest],
        }
    }

    fn run(&mut self) {
        let threads = gemm::Parallelism::Rayon(rayon::current_num_threads());
        for &(m, k, n, layout) in &self.shapes {
            let (m_, k_, n_) = (m as isize, k as isize, n as isize);
            // (row step, column step) of both operands
            let ((ar, ac), (br, bc)) = match layout {
                Layout::Forward => ((k_, 1), (n_, 1)),
                Layout::Inputs => ((k_, 1), (1, k_)),
                Layout::Weights => ((1, m_), (n_, 1)),
            };
            let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
            // SAFETY: the three vectors are as long as the largest operand of any shape.
            unsafe {
                gemm::gemm(m, n, k, c, 1, n_, false, a, ac, ar, b, bc, br, 0.0, 1.0, false, false, false, threads);
            }
        }
        black_box(&self.c);
    }
}

fn time(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

/// Minima and medians of interleaved runs, and their ratios.
fn ratios(rounds: usize) {
    let (mut training, mut products) = (Training::new(), Products::new());
    let directions = training.directions(2);
    let names = ["gemm alone", "step", "gradient", "hvp 1", "hvp 2"];
    let mut times: [Vec<Duration>; 5] = Default::default();
    for _ in 0..rounds {
        times[0].push(time(|| products.run()));
        times[1].push(time(|| training.step()));
        times[2].push(time(|| drop(training.gradients())));
        times[3].push(time(|| training.products(&directions[..1])));
        times[4].push(time(|| training.products(&directions)));
    }
    let of = |i: usize, quantile: usize| {
        let mut sorted = times[i].clone();
        sorted.sort();
        sorted[(sorted.len() - 1) * quantile / 4].as_secs_f64() * 1e3
    };
    for (i, name) in names.iter().enumerate() {
        println!("{name:>12}: min {:7.2} ms, median {:7.2} ms", of(i, 0), of(i, 2));
    }
    for quantile in [0, 2] {
        let ratio = |a: usize, b: usize| of(a, quantile) / of(b, quantile);
        let further = (of(4, quantile) - of(3, quantile)) / of(2, quantile);
        println!(
            "{}: step / gemm {:.2}, hvp / gradient {:.2}, further vector / gradient {further:.2}",
            if quantile == 0 { "minima" } else { "medians" },
            ratio(1, 0),
            ratio(3, 2),
        );
    }
}

fn step(criterion: &mut Criterion) {
    let (mut training, mut products) = (Training::new(), Products::new());
    let directions = training.directions(2);
    let mut group = criterion.benchmark_group("char-gpt");
    group.sample_size(30);
    group.bench_function("gemm-alone", |b| b.iter(|| products.run()));
    group.bench_function("step", |b| b.iter(|| training.step()));
    group.bench_function("gradient", |b| b.iter(|| training.gradients()));
    group.bench_function("hvp-1", |b| b.iter(|| training.products(&directions[..1])));
    group.bench_function("hvp-2", |b| b.iter(|| training.products(&directions)));
    group.finish();
}

criterion_group!(benches, step);

fn main() {
    // On a worker of the pool, splitting work costs a queue; from outside it costs waking a thread.
    rayon::scope(|_| {
        if std::env::args().any(|argument| argument == "--ratios") {
            return ratios(40);
        }
        benches();
        Criterion::default().configure_from_args().final_summary();
    });
}
