//! What second order costs: Hessian-vector products, and traces of the Hessian in every layer at once, against a gradient. A
//! char GPT and a Llama of the same sizes (vocabulary 65, context 128, batch 16, 4 layers, 4 heads, width 128).
//!
//! `cargo bench --bench curvature` prints interleaved minima, medians and their ratios, and the peaks of memory, which is
//! what BENCHMARKS.md quotes.

use eckart::autograd::{Direction, hvp};
use eckart::data::Batch;
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::Gradients;
use eckart::rank::{Losses, Survey};
use eckart::train::Sample;
use eckart::{Device, Module, Seed, Tensor};
use std::hint::black_box;
use std::time::{Duration, Instant};

const BATCH: usize = 16;
const TIME: usize = 128;
const VOCABULARY: usize = 65;
const ROUNDS: usize = 20;

struct Problem {
    model: Model,
    sample: Sample,
    directions: Vec<Direction>,
    survey: Survey,
}

impl Problem {
    fn new(arch: Arch) -> Problem {
        let config = ModelConfig::new(arch, VOCABULARY, TIME, 4, 4, 128);
        let model = Model::new(&config, Seed(1), &Device::cpu()).expect("a valid configuration");
        let token = |i: usize| ((i * 7919) % VOCABULARY) as u32;
        let ids = (0..BATCH * TIME).map(token).collect();
        let targets = (1..=BATCH * TIME).map(token).collect();
        let sample = Sample::new(vec![Batch { ids, targets, context: TIME, ..Batch::default() }]);
        let survey = Survey { samples: 1, ..Survey::default() };
        Problem { directions: directions(&model), model, sample, survey }
    }

    fn loss(&self, model: &Model) -> Tensor {
        self.sample.loss(model, 0).expect("a batch of numbers")
    }

    fn gradient(&self) {
        let mut gradients = Gradients::new();
        gradients.add(self.loss(&self.model));
        black_box(&gradients);
    }

    fn products(&self, count: usize) {
        let parameters: Vec<Tensor> = self.model.parameters().iter().map(|(_, p)| p.tensor().detach()).collect();
        let loss = |tensors: &[Tensor]| {
            let mut model = self.model.clone();
            model.bind(tensors);
            self.loss(&model)
        };
        black_box(hvp(loss, &parameters, &self.directions[..count]));
    }

    /// One sample of every layer's trace, of the Hessian or of the Gauss-Newton matrix.
    fn traces(&self, positive: bool) {
        black_box(self.survey.traces(&self.model, &self.sample, positive).expect("numbers"));
    }
}

/// Two random directions over all parameters.
fn directions(model: &Model) -> Vec<Direction> {
    let along = |k: u64| {
        let moved = |(i, (_, p)): (usize, (String, eckart::Parameter))| {
            let tensor = p.tensor();
            Some(eckart::module::normal(tensor.shape(), 1.0, Seed(k).fold(i as u64), tensor.device()))
        };
        model.parameters().into_iter().enumerate().map(moved).collect()
    };
    (0..2).map(along).collect()
}

fn time(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

/// Bytes at the peak beyond what is there before.
fn peak(device: &Device, f: impl FnOnce()) -> u64 {
    device.ledger().reset_peak();
    let before = device.ledger().live().total();
    f();
    device.ledger().peak().total() - before
}

fn compare(arch: Arch) {
    let problem = Problem::new(arch);
    let forward = || drop(black_box(problem.model.logits(&ids(&problem.model), &Pass::default())));
    let runs: [(&str, &dyn Fn()); 6] = [
        ("forward", &forward),
        ("gradient", &|| problem.gradient()),
        ("loss, gradient, one product", &|| problem.products(1)),
        ("with two products", &|| problem.products(2)),
        ("traces of the Hessian", &|| problem.traces(false)),
        ("traces of Gauss-Newton", &|| problem.traces(true)),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); runs.len()];
    for _ in 0..ROUNDS {
        runs.iter().zip(&mut times).for_each(|((_, run), times)| times.push(time(run)));
    }
    times.iter_mut().for_each(|times| times.sort());
    let of = |i: usize, quantile: usize| times[i][(ROUNDS - 1) * quantile / 4].as_secs_f64() * 1e3;
    let device = problem.model.device();
    println!("{arch:?}");
    for (i, (name, run)) in runs.iter().enumerate() {
        let mib = peak(&device, run) as f64 / 1_048_576.0;
        let ratios = [0, 2].map(|quantile| of(i, quantile) / of(1, quantile));
        println!(
            "{name:>28}: min {:7.2} ms, median {:7.2} ms, {:.2} and {:.2} gradients, peak {mib:.1} MiB",
            of(i, 0),
            of(i, 2),
            ratios[0],
            ratios[1]
        );
    }
    let further = [0, 2].map(|quantile| (of(3, quantile) - of(2, quantile)) / of(1, quantile));
    println!("{:>28}: {:.2} and {:.2} gradients", "each further product", further[0], further[1]);
}

fn ids(model: &Model) -> Tensor {
    let ids: Vec<u32> = (0..BATCH * TIME).map(|i| ((i * 7919) % VOCABULARY) as u32).collect();
    Tensor::new(&ids, [BATCH, TIME], &model.device())
}

fn main() {
    // On a worker of the pool, splitting work costs a queue; from outside it costs waking a thread.
    rayon::scope(|_| [Arch::Gpt2, Arch::Llama].into_iter().for_each(compare));
}
