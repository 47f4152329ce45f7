//! Low-rank optimizers: what their state takes, planned and measured, on both kinds of device; compressed gradients.

use crate::tiny;
use eckart::lowrank::{
    InSubspace, Lift, Projection, Subspaces, Transfer, apollo, apollo_mini, compressed_adam, flora, galore,
};
use eckart::ops::project::Entries;
use eckart::optim::{Accumulation, Adam, Gradients, Group, Momentum, Optimizer, Transform, adafactor};
use eckart::train::{Config, Method, VARIANTS};
use eckart::{DType, Device, LinearMap, Module, Parameter, Seed, Tag, Tensor, module, module::normal};
use std::path::Path;

struct One {
    weight: Parameter,
}
module!(One: weight);

/// 32-bit words that an optimizer keeps for a matrix.
fn words(transform: impl Transform + 'static, shape: [usize; 2]) -> usize {
    let device = Device::null();
    let model = One { weight: Parameter::new(Tensor::zeros(shape, DType::F32, &device)) };
    let mut optimizer = Optimizer::new(transform, Vec::new());
    optimizer.prepare(&model);
    let bytes = device.ledger().live()[Tag::Optimizer];
    assert_eq!(bytes as usize, optimizer.state().map(|(_, array)| 4 * array.count()).sum::<usize>());
    bytes as usize / 4
}

#[test]
fn state_is_what_the_methods_promise() {
    let adam = Adam::default();
    for shape in [[48, 96], [96, 48], [64, 64]] {
        let (m, n) = (shape[0].min(shape[1]), shape[0].max(shape[1]));
        for rank in [1, 8, 48] {
            let with = |projection| Subspaces { projection, rank, resample: 50, transfer: Transfer::Scaled };
            let seeds = with(Projection::Rademacher);
            assert_eq!(words(flora(seeds, 0.9, Lift::Within, false), shape), rank * n + m + n, "flora");
            assert_eq!(words(galore(with(Projection::Svd), adam, 1.0), shape), m * rank + 2 * n * rank, "galore");
            assert_eq!(words(apollo(seeds, adam, 1.0), shape), 2 * n * rank + 1, "apollo");
            assert_eq!(words(apollo_mini(seeds, adam, 1.0), shape), 2 * n + 1, "apollo-mini");
            assert_eq!(words(compressed_adam(seeds, adam), shape), 2 * n * rank, "compressed adam");
        }
        assert_eq!(words(adam, shape), 2 * m * n);
        assert_eq!(words(Momentum { beta: 0.9 }, shape), m * n);
        assert_eq!(words(adafactor(0.0, true), shape), m + n);
        assert_eq!(words(adafactor(0.9, false), shape), m * n + m + n);
        let large =
            Subspaces { projection: Projection::Rademacher, rank: m + 1, resample: 50, transfer: Transfer::Scaled };
        assert_eq!(words(compressed_adam(large, adam), shape), 2 * m * n, "below the rank a matrix is left dense");
    }
}

fn base(folder: &Path, out: &str) -> Config {
    Config { width: 64, steps: 2, dropout: 0.0, ..tiny::config(folder, out) }
}

/// Runs, and compares what it took with its plan, tag by tag.
fn as_planned(config: &Config, name: &str) {
    let trained = tiny::train(config, false).unwrap_or_else(|error| panic!("{name}: {error}"));
    tiny::assert_as_planned(&trained.report, name);
}

#[test]
fn planned_is_measured_for_every_method() {
    let folder = tempfile::tempdir().unwrap();
    for variant in &VARIANTS {
        for (rank, accumulate) in [(1, 1), (8, 2), (64, 1)] {
            let name = format!("{} {rank}", variant.name);
            let config = Config { accumulate, ..base(folder.path(), &name) };
            as_planned(&variant.of(&config, rank), &name);
        }
    }
}

#[cfg(feature = "gpu")]
#[test]
fn planned_is_measured_for_every_method_on_a_gpu() {
    if crate::gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for variant in &VARIANTS {
        let config = Config { device: crate::gpu::name(), ..base(folder.path(), variant.name) };
        as_planned(&variant.of(&config, 8), variant.name);
    }
}

/// Steps before, at and after changes of subspace, replayed where they can be, against the host's.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_takes_the_steps_that_the_host_takes() {
    if crate::gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for variant in &VARIANTS {
        for accumulate in [1, 2] {
            let run = |device: &str| {
                let out = format!("{} {accumulate} {device}", variant.name);
                let config =
                    Config { device: device.into(), steps: 9, accumulate, ..tiny::config(folder.path(), &out) };
                let config =
                    Config { adapter_dropout: 0.2, resample: Some(4), report_every: 1, ..variant.of(&config, 4) };
                tiny::train(&config, false).unwrap().history
            };
            let (here, there) = (run("cpu"), run(&crate::gpu::name()));
            let losses = here.iter().zip(&there).filter_map(|(a, b)| Some((a.loss? - b.loss?).abs()));
            let worst = losses.fold(0.0, f64::max);
            assert!(worst < 2e-4, "{} with {accumulate} micro-batches is off by {worst:e}", variant.name);
        }
    }
}

#[test]
fn runs_resume_to_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    for variant in VARIANTS.iter().filter(|variant| variant.low_rank) {
        let run = |out: &str| {
            let config = Config { accumulate: 2, ..tiny::config(folder.path(), &format!("{} {out}", variant.name)) };
            Config { adapter_dropout: 0.2, resample: Some(2), ..variant.of(&config, 4) }
        };
        let (whole, pieces) = (run("whole"), run("pieces"));
        tiny::train(&whole, false).unwrap();
        tiny::same_in_pieces(&whole, &pieces, 3);
    }
}

/// A linear layer, and a gradient for each of several inputs.
struct Layer {
    map: LinearMap,
}
module!(Layer: map);

fn layer(device: &Device, sizes: [usize; 2]) -> Layer {
    Layer { map: LinearMap::dense(normal(&sizes, 0.1, Seed(1), device).cast(DType::F64)) }
}

fn loss(layer: &Layer, i: u64) -> Tensor {
    let [inputs, outputs] = layer.map.sizes();
    let random = |size, seed: u64| normal(&[5, size], 1.0, Seed(seed), &Device::cpu()).cast(DType::F64);
    let y = layer.map.apply(&random(inputs, 10 + i), None);
    (y * random(outputs, 20 + i)).sum_all()
}

const SKETCH: Accumulation = Accumulation { entries: Entries::Rademacher, rank: 4 };

#[test]
fn added_up_sketches_are_the_sketch_of_the_sum() {
    for sizes in [[24, 40], [40, 24]] {
        let layer = layer(&Device::cpu(), sizes);
        let optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0)).accumulating(Some(SKETCH));
        let (mut dense, mut sketched) = (Gradients::new(), optimizer.gradients(&layer, 3));
        for i in 0..3 {
            dense.add(loss(&layer, i));
            sketched.add(loss(&layer, i));
        }
        let id = layer.parameters()[0].1.id();
        let (sum, sketch) = (dense.get(id).unwrap(), sketched.get(id).unwrap());
        assert_eq!(sketch.shape()[..], [4, 40]);
        let lifted = sketched.lifted(id).unwrap();
        // A sum that is sketched at once.
        let mut at_once = optimizer.gradients(&layer, 3);
        let all = (0..3).map(|i| loss(&layer, i)).reduce(|a, b| a + b).unwrap();
        at_once.add(all);
        assert_ne!(sum.shape(), sketch.shape());
        let expected = at_once.lifted(id).unwrap();
        let (lifted, expected) = (Tensor::from_array(lifted), Tensor::from_array(expected));
        let worst = (&lifted - &expected).abs().max(&[0, 1]).item().unwrap();
        assert!(worst < 1e-12, "{worst:e}");
        let norm = (&lifted * &lifted).sum_all().sqrt().item().unwrap();
        assert!((sketched.norm() / norm - 1.0).abs() < 1e-12, "the norm is that of what is lifted");
    }
}

/// From factors, no dense gradient is ever there while micro-batches are added up.
#[test]
fn compressed_accumulation_holds_sketches_alone() {
    let rank = SKETCH.rank;
    let peak = |size: usize| {
        let device = Device::null();
        let layer = Layer { map: LinearMap::dense(Tensor::zeros([size, size], DType::F32, &device)) };
        let optimizer = Optimizer::new(Adam::default(), Vec::new()).accumulating(Some(SKETCH));
        let mut gradients = optimizer.gradients(&layer, 0);
        let x = Tensor::zeros([16, size], DType::F32, &device);
        for _ in 0..3 {
            let before = device.ledger().live().total();
            device.ledger().reset_peak();
            gradients.add(layer.map.apply(&x, None).sum_all());
            let beyond = device.ledger().peak().total() - before;
            assert!((beyond as usize) < 4 * size * (4 * 16 + 4 * rank) + 65_536, "{beyond} bytes at {size}");
        }
        device.ledger().live()[Tag::Gradients] as usize
    };
    for size in [512, 1024, 2048] {
        assert_eq!(peak(size), 4 * rank * size);
    }
}

/// Heavy-ball momentum cannot be moved, and Adam is no running mean of gradients.
#[test]
fn parts_that_do_not_go_together_are_refused() {
    let model = One { weight: Parameter::new(Tensor::zeros([48, 96], DType::F32, &Device::null())) };
    let refused = |inner: Box<dyn Transform>, lift, transfer| {
        let projection = Projection::Rademacher;
        let subspace = InSubspace { projection, rank: 8, resample: 50, transfer, inner, lift, scale: 1.0, limit: None };
        Optimizer::new(subspace, Vec::new()).check(&model).map_err(|error| error.to_string())
    };
    let message = refused(Box::new(Momentum { beta: 0.9 }), Lift::Up, Transfer::Scaled).unwrap_err();
    assert!(message.starts_with("weight: ") && message.contains("cannot be moved"), "{message}");
    let message = refused(Box::<Adam>::default(), Lift::Within, Transfer::Reset).unwrap_err();
    assert!(message.contains("running mean"), "{message}");
    refused(Box::new(Momentum { beta: 0.9 }), Lift::Up, Transfer::Reset).unwrap();
    refused(Box::<Adam>::default(), Lift::Up, Transfer::Scaled).unwrap();
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let flora = Config { optimizer: Some(Method::Flora), ..base(folder.path(), "refused") };
    let refused = |config: Config| tiny::train(&config, false).err().expect("refused").to_string();
    let transfer = Config {
        lift: Some(Lift::FreshAndUp),
        momentum_transfer: Some(Transfer::Transfer),
        resample: Some(5),
        ..flora.clone()
    };
    let message = refused(transfer);
    assert!(message.starts_with("wte.weight: ") && message.contains("resample every"), "{message}");
    assert!(refused(Config { rank: 0, ..flora.clone() }).starts_with("rank is 0"));
    assert!(refused(Config { resample: Some(0), ..flora }).starts_with("resample is 0"));
    assert!(!folder.path().join("refused").exists(), "nothing is left behind");
}

/// GaLore's published form leaves embeddings dense; which layers it compresses is a setting.
#[test]
fn layers_that_are_not_to_be_compressed_keep_dense_state() {
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str, layers: Option<Vec<String>>| {
        let config = Config {
            optimizer: Some(Method::Galore),
            compressed_layers: layers,
            rank: 4,
            ..tiny::config(folder.path(), name)
        };
        tiny::train(&config, false).map(|trained| {
            let store = eckart::train::Store::new(config.out.unwrap().join("checkpoint"), 1);
            let checkpoint = store.newest(u64::MAX).unwrap().checkpoint;
            let (optimizer, _) = checkpoint.optimizer(&mut checkpoint.model(&trained.device).unwrap()).unwrap();
            optimizer.state().map(|(name, array)| (name, array.shape().to_vec())).collect::<Vec<_>>()
        })
    };
    let has = |state: &[(String, Vec<usize>)], name: &str| state.iter().any(|(found, _)| found == name);
    let usual = state("usual", None).unwrap();
    assert!(has(&usual, "h.0.attn.c_attn.weight.basis") && !has(&usual, "wte.weight.basis"), "{usual:?}");
    let all = state("all", Some(vec!["all".into()])).unwrap();
    assert!(has(&all, "h.0.attn.c_attn.weight.basis") && has(&all, "wte.weight.basis"), "{all:?}");
    let some = state("some", Some(vec!["mlp.c_fc".into()])).unwrap();
    assert!(has(&some, "h.0.mlp.c_fc.weight.basis") && !has(&some, "h.0.attn.c_attn.weight.basis"), "{some:?}");
    let error = state("none", Some(vec!["c_fcc".into()])).map(drop).unwrap_err().to_string();
    assert!(error.contains("no layer \"c_fcc\"") && error.contains("h.0.mlp.c_fc"), "{error}");
}
