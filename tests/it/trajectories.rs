//! Twenty steps of every optimizer and of every kind of adapter in double precision, against NumPy's from the published rules
//! (`tests/fixtures/low_rank.py`).

use eckart::lowrank::{AdapterConfig, Bank, Hadamard, LoraPlus, adapt, select};
use eckart::lowrank::{Lift, Projection, Subspaces, Transfer, apollo, apollo_mini, compressed_adam, flora, galore};
use eckart::module::Path;
use eckart::optim::{Adam, Gradients, Group, Momentum, Optimizer, Transform, adafactor};
use eckart::{Device, LinearMap, Module, Parameter, Seed, Tensor, module};
use std::collections::BTreeMap;

const STEPS: u64 = 20;
const SUBSPACES: Subspaces =
    Subspaces { projection: Projection::Rademacher, rank: 3, resample: 6, transfer: Transfer::Keep };

struct Three {
    bias: Parameter,
    tall: Parameter,
    wide: Parameter,
}
module!(Three: bias, tall, wide);

fn wave(shape: &[usize], f: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| f(i as f64)).collect();
    Tensor::new(&values, shape, &Device::cpu())
}

impl Three {
    fn new() -> Three {
        let start = |name: &str, shape: &[usize]| Parameter::new(wave(shape, |i| (0.9 * i + name.len() as f64).cos()));
        Three { bias: start("bias", &[7]), tall: start("tall", &[11, 5]), wide: start("wide", &[6, 10]) }
    }

    fn gradients(&self, step: u64) -> Gradients {
        let mut all = Gradients::new();
        for (name, parameter) in self.parameters() {
            let weight = parameter.tensor().detach();
            let wave = wave(weight.shape(), |i| (0.7 * i + 1.3 * step as f64 + name.len() as f64).sin());
            all.insert(parameter.id(), (wave + weight * 0.1).array().to_owned());
        }
        all
    }
}

/// Weights after twenty steps.
fn run(transform: impl Transform + 'static) -> BTreeMap<String, Vec<f64>> {
    let mut model = Three::new();
    let mut optimizer = Optimizer::new(transform, Group::decay_matrices(0.1)).seeded(Seed(7));
    for step in 0..STEPS {
        let gradients = model.gradients(step);
        optimizer.step(&mut model, gradients, step, 0.05, Some(5.0));
    }
    model.parameters().into_iter().map(|(name, p)| (name, p.tensor().to_vec().unwrap())).collect()
}

fn expected() -> BTreeMap<String, BTreeMap<String, Vec<f64>>> {
    serde_json::from_str(include_str!("../fixtures/low_rank.json")).unwrap()
}

fn agrees(method: &str, transform: impl Transform + 'static, tolerance: f64) {
    let (found, all) = (run(transform), expected());
    let expected = &all[method];
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, values) in expected {
        let worst = values.iter().zip(&found[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= tolerance, "{method}: {name} is {worst:e} away");
    }
}

fn adam() -> Adam {
    Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 }
}

fn with(projection: Projection, transfer: Transfer) -> Subspaces {
    Subspaces { projection, transfer, ..SUBSPACES }
}

#[test]
fn dense_rivals() {
    agrees("adamw", adam(), 1e-11);
    agrees("sgd", Momentum { beta: 0.9 }, 1e-11);
    agrees("adafactor", adafactor(0.0, false), 1e-11);
    agrees("adafactor-momentum", adafactor(0.9, false), 1e-11);
    agrees("adafactor-scaled", adafactor(0.9, true), 1e-11);
}

#[test]
fn flora_with_each_transfer() {
    let within = flora(with(Projection::Rademacher, Transfer::Reset), 0.9, Lift::Within, false);
    agrees("flora-within", within, 1e-11);
    let orthogonal = flora(with(Projection::Walsh, Transfer::Reset), 0.9, Lift::Within, false);
    agrees("flora-within-walsh", orthogonal, 1e-11);
    let of_gradients = flora(with(Projection::Svd, Transfer::Reset), 0.9, Lift::Within, false);
    agrees("flora-within-svd", of_gradients, 1e-9);
    let flora = |transfer, scaled| flora(with(Projection::Rademacher, transfer), 0.9, Lift::FreshAndUp, scaled);
    agrees("flora-transfer", flora(Transfer::Transfer, false), 1e-11);
    agrees("flora-scaled", flora(Transfer::Scaled, true), 1e-11);
    agrees("flora-reset", flora(Transfer::Reset, false), 1e-11);
}

#[test]
fn adam_in_subspaces() {
    agrees("galore", galore(with(Projection::Svd, Transfer::Keep), adam(), 0.25), 1e-9);
    agrees("apollo", apollo(SUBSPACES, adam(), 1.0), 1e-11);
    agrees("apollo-mini", apollo_mini(SUBSPACES, adam(), 128_f64.sqrt()), 1e-11);
    agrees("compressed-adam", compressed_adam(with(Projection::Rademacher, Transfer::Scaled), adam()), 1e-11);
}

/// The fixture's normal numbers are exact, the crate's good to single precision.
#[test]
fn gaussian_projections() {
    agrees("flora-gaussian", flora(with(Projection::Gaussian, Transfer::Scaled), 0.9, Lift::FreshAndUp, false), 2e-6);
    agrees("apollo-gaussian", apollo(with(Projection::Gaussian, Transfer::Keep), adam(), 1.0), 2e-6);
}

/// One map [6, 10], frozen but for what is put beside it.
#[derive(Clone)]
struct Adapted {
    map: LinearMap,
}
module!(Adapted: map);

fn sine(shape: &[usize], pitch: f64, phase: f64, size: f64) -> Tensor {
    wave(shape, |i| size * (pitch * i + phase).sin())
}

fn base() -> Adapted {
    let mut model = Adapted { map: LinearMap::dense(sine(&[6, 10], 0.9, 4.0, 0.5)) };
    model.visit_mut(&Path::root(), &mut |_, parameter| parameter.freeze());
    model
}

/// One adapter of rank 3 with s = 2, at what the script begins with.
fn adapted(dora: bool) -> Adapted {
    let mut model = base();
    adapt(&mut model, &AdapterConfig { rank: 3, alpha: 6.0, dora, ..Default::default() }, Seed(0)).unwrap();
    model.visit_mut(&Path::root(), &mut |path, parameter| match &*path.to_string() {
        "map.lora_A" => parameter.set(sine(&[6, 3], 1.1, 1.0, 0.3)),
        "map.lora_B" => parameter.set(sine(&[3, 10], 0.8, 2.0, 0.3)),
        "map.lora_magnitude_vector" => parameter.set(sine(&[10], 1.0, 0.0, 0.1) + 1.0),
        _ => {}
    });
    model
}

fn per_example(make: impl Fn(LinearMap) -> LinearMap) -> Adapted {
    let mut model = Adapted { map: make(base().map) };
    select(&mut model, &[2, 0, 2]).unwrap();
    model
}

fn adapter_agrees(method: &str, mut model: Adapted, groups: Vec<Group>) {
    let mut optimizer = Optimizer::new(adam(), groups);
    for step in 0..STEPS {
        let x = sine(&[3, 4, 6], 0.5, 1.1 * step as f64, 1.0);
        let d = sine(&[3, 4, 10], 0.3, 0.9 * step as f64, 1.0);
        let y = model.map.apply(&x, None);
        let mut gradients = Gradients::new();
        gradients.add((&y * d + &y * &y * 0.05).sum_all());
        drop(y);
        optimizer.step(&mut model, gradients, step, 0.05, None);
    }
    let all = expected();
    let found: BTreeMap<String, Parameter> = model.parameters().into_iter().collect();
    assert_eq!(all[method].len(), found.len() - 1, "all but the base");
    for (name, values) in &all[method] {
        let numbers: Vec<f64> = found[&format!("map.{name}")].tensor().to_vec().unwrap();
        let worst = values.iter().zip(&numbers).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-11, "{method}: {name} is {worst:e} away");
    }
}

#[test]
fn adapters() {
    adapter_agrees("lora", adapted(false), Group::decay_matrices(0.1));
    let plus = LoraPlus { rate: 0.05, ratio: 4.0, embedding_rate: 1e-6, decay: 0.1 };
    adapter_agrees("lora+", adapted(false), plus.groups().unwrap());
    adapter_agrees("dora", adapted(true), Group::decay_matrices(0.1));
}

#[test]
fn adapters_per_example() {
    let [a, b] = [sine(&[3, 6, 3], 1.1, 1.0, 0.3), sine(&[3, 3, 10], 0.8, 2.0, 0.3)];
    let bank = per_example(|base| LinearMap::new(Bank::new(base, a.clone(), b.clone(), 2.0)));
    adapter_agrees("bank", bank, Group::decay_matrices(0.1));
    let [b, a] = [sine(&[3, 3, 6], 1.1, 1.0, 0.3), sine(&[3, 3, 10], 0.8, 2.0, 0.3)];
    let scales = per_example(|base| LinearMap::new(Hadamard::new(base, b.clone(), a.clone(), 2.0)));
    adapter_agrees("hadamard", scales, Group::decay_matrices(0.1));
}
