//! A step of every method beside the AdamW step of all parameters: the char GPT of `benches/step.rs`, rank 8.
//!
//! `cargo bench --bench methods` prints minima and medians of interleaved runs and their ratios to AdamW's; steps that
//! choose new subspaces stand in a column of their own. `-- 100` makes 100 rounds instead of 40.

use eckart::lowrank::Start;
use eckart::nn::Model;
use eckart::optim::{Gradients, Optimizer};
use eckart::train::{Config, VARIANTS, Variant};
use eckart::{Device, Seed, Tensor};
use std::time::{Duration, Instant};

const RANK: usize = 8;
const VOCABULARY: usize = 65;

struct Training {
    name: &'static str,
    model: Model,
    optimizer: Optimizer,
    step: u64,
    resample: u64,
    times: Vec<Duration>,
    changes: Vec<Duration>,
}

impl Training {
    fn new(variant: &Variant) -> Training {
        let config = variant.of(&Config { width: 128, layers: 4, ..Config::default() }, RANK);
        // Changes of subspace come often enough to be timed.
        let config = Config { resample: Some(8), ..config }.resolved().expect("a valid configuration");
        let sizes = config.model(VOCABULARY);
        let mut model = Model::new(&sizes, Seed(1), &Device::cpu()).expect("a valid configuration");
        config.adapt(&mut model, Start::default(), &[]).expect("layers that can be adapted");
        let optimizer = config.optimizer(&mut model).expect("a valid configuration");
        let (times, changes) = (Vec::new(), Vec::new());
        Training { name: variant.name, model, optimizer, step: 0, resample: 8, times, changes }
    }

    fn step(&mut self, ids: &Tensor, targets: &Tensor) {
        let start = Instant::now();
        let mut gradients = Gradients::new();
        gradients.add(self.model.loss(ids, targets, &Default::default()));
        self.optimizer.step(&mut self.model, gradients, self.step, 1e-4, Some(1.0));
        let times = if self.step.is_multiple_of(self.resample) { &mut self.changes } else { &mut self.times };
        times.push(start.elapsed());
        self.step += 1;
    }
}

/// Least and middle of some times, in milliseconds.
fn least_and_middle(times: &[Duration]) -> [f64; 2] {
    let mut sorted = times.to_vec();
    sorted.sort();
    [sorted[0], sorted[sorted.len() / 2]].map(|time| 1e3 * time.as_secs_f64())
}

fn run(rounds: usize) {
    let token = |i: usize| ((i * 7919) % VOCABULARY) as u32;
    let tokens =
        |from: usize| Tensor::new(&(from..from + 16 * 128).map(token).collect::<Vec<u32>>(), [16, 128], &Device::cpu());
    let (ids, targets) = (tokens(0), tokens(1));
    let mut all: Vec<Training> = VARIANTS.iter().map(Training::new).collect();
    for _ in 0..rounds {
        all.iter_mut().for_each(|training| training.step(&ids, &targets));
    }
    let [least, middle] = least_and_middle(&all[0].times);
    println!("{:22}{:>10}{:>10}{:>10}{:>10}{:>14}", "method", "min ms", "ratio", "median", "ratio", "change, min");
    for training in &all {
        let ([a, b], [change, _]) = (least_and_middle(&training.times), least_and_middle(&training.changes));
        println!("{:22}{a:>10.2}{:>10.3}{b:>10.2}{:>10.3}{change:>14.2}", training.name, a / least, b / middle);
    }
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(40);
    // On a worker of the pool, splitting work costs a queue; from outside it costs waking a thread.
    rayon::scope(|_| run(rounds));
}
