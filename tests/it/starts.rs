//! Starts that take a part of the base: found without gradients of weights, and as settings of a run.

use crate::finetune::{base, config, held_back};
use crate::tiny;
use eckart::io::{hub, peft};
use eckart::lowrank::{ALL, ALL_LINEAR, AdapterConfig, Initial, Lora, Start, adapt, dequantise, each, initial};
use eckart::lowrank::{quantise, steepest};
use eckart::module::normal;
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::quantised::Format;
use eckart::optim::Gradients;
use eckart::train::{Adapter, Checkpoint, Config};
use eckart::{DType, Device, Error, LinearMap, Module, Seed, Tensor};

fn model(arch: Arch, dtype: DType, device: &Device) -> Model {
    Model::new(&ModelConfig::new(arch, 29, 16, 2, 2, 20), Seed(1), device).unwrap().cast(dtype)
}

fn batches(device: &Device) -> Vec<[Tensor; 2]> {
    let text: Vec<u32> = (0..97_u32).map(|i| (i * i + 3 * i) % 29).collect();
    let batch = |i: usize| [0, 1].map(|by| Tensor::new(&text[48 * i + by..][..48], [3, 16], device));
    vec![batch(0), batch(1)]
}

/// Gradients of all that trains, over both batches.
fn gradients(model: &Model) -> eckart::Result<Gradients> {
    let mut gradients = Gradients::new();
    for [ids, targets] in batches(&model.device()) {
        gradients.add(model.loss(&ids, &targets, &Pass::default()) * 0.5);
    }
    Ok(gradients)
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let [a, b] = [a, b].map(|x| x.cast(DType::F64).to_vec::<f64>().unwrap());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn farthest(a: &Initial, b: &Initial) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let pairs = a.iter().flat_map(|(path, factors)| factors.iter().zip(&b[path]));
    pairs.map(|(a, b)| apart(a, b)).fold(0.0, f64::max)
}

fn adapters(rank: usize, targets: &[&str]) -> AdapterConfig {
    AdapterConfig { rank, targets: targets.iter().map(|name| name.to_string()).collect(), ..AdapterConfig::default() }
}

/// Those of the multiplied-out gradients, embeddings and a tied head with them; the model is as it was.
#[test]
fn factors_are_those_of_dense_gradients() {
    for (arch, targets) in [(Arch::Gpt2, ALL), (Arch::Llama, ALL_LINEAR), (Arch::Llama, "embed_tokens")] {
        let device = Device::cpu();
        let config = adapters(3, &[targets]);
        let mut dense = model(arch, DType::F64, &device);
        let held = gradients(&dense).unwrap();
        let all = dense.parameters().into_iter();
        let all = all.map(|(path, p)| (path, Tensor::from_array(held.get(p.id()).expect("it trains").clone())));
        let start = Start::Gradient(all.collect());
        adapt(&mut dense, &AdapterConfig { start, ..config.clone() }, Seed(7)).unwrap();
        let mut probed = model(arch, DType::F64, &device);
        let before: Vec<String> = probed.parameters().into_iter().map(|(path, _)| path).collect();
        let found = steepest(&mut probed, &config, Seed(7), &mut gradients).unwrap();
        let worst = farthest(&found, &initial(&mut dense));
        assert!(worst < 1e-8, "{arch:?} {targets}: {worst:e}");
        assert_eq!(before, probed.parameters().into_iter().map(|(path, _)| path).collect::<Vec<_>>());
        adapt(&mut probed, &AdapterConfig { start: Start::Given(found), ..config }, Seed(8)).unwrap();
        for ((path, a), (_, b)) in probed.parameters().iter().zip(&dense.parameters()) {
            assert!(apart(a.tensor(), b.tensor()) < 1e-8, "{arch:?} {path}");
        }
    }
}

#[test]
fn weights_in_fewer_bits_have_gradients_too() {
    let mut packed = model(Arch::Llama, DType::F32, &Device::cpu());
    quantise(&mut packed, Format::Int8, &[ALL_LINEAR]).unwrap();
    let mut dense = packed.clone();
    dequantise(&mut dense, &[ALL_LINEAR]).unwrap();
    let [packed, dense] = [&mut packed, &mut dense]
        .map(|model| steepest(model, &adapters(2, &[ALL_LINEAR]), Seed(7), &mut gradients).unwrap());
    assert!(farthest(&packed, &dense) < 1e-3, "{}", farthest(&packed, &dense));
}

struct Net {
    layer: LinearMap,
}
eckart::module!(Net: layer);

/// What is held beside the weight is as wide as the sketch: no gradient of its size.
#[test]
fn no_gradient_of_a_weight_is_held() {
    let side = 512;
    let peak = |device: &Device| {
        let mut net = Net { layer: LinearMap::dense(normal(&[side, side], 0.1, Seed(1), device)) };
        let x = Tensor::new(&vec![0.5_f32; 8 * side], [8, side], device);
        let before = device.ledger().live().total();
        device.ledger().reset_peak();
        steepest(&mut net, &adapters(2, &["layer"]), Seed(2), &mut |net: &Net| {
            let mut gradients = Gradients::new();
            gradients.add(net.layer.apply(&x, None).sin().sum_all());
            Ok(gradients)
        })
        .unwrap();
        device.ledger().peak().total() - before
    };
    let found = peak(&Device::cpu());
    assert!(found < (4 * side * side) as u64 / 4, "{found} bytes");
    assert_eq!(found, peak(&Device::null()));
}

#[test]
fn what_has_no_such_factors_is_named() {
    let device = Device::cpu();
    let mut gpt = model(Arch::Gpt2, DType::F32, &device);
    let mut refused = |config: &AdapterConfig, gradients: &mut dyn FnMut(&Model) -> eckart::Result<Gradients>| {
        let paths: Vec<String> = gpt.parameters().into_iter().map(|(path, _)| path).collect();
        let error = steepest(&mut gpt, config, Seed(0), gradients).unwrap_err().to_string();
        assert_eq!(paths, gpt.parameters().into_iter().map(|(path, _)| path).collect::<Vec<_>>(), "it is as it was");
        error
    };
    let rank = refused(&adapters(11, &["c_fc"]), &mut gradients);
    assert!(rank.contains("h.0.mlp.c_fc: rank 11 takes 22") && rank.contains("at most 10"), "{rank}");
    let none = refused(&adapters(2, &["c_fc"]), &mut |_| Ok(Gradients::new()));
    assert_eq!(none, "h.0.mlp.c_fc: the loss does not depend on it, so it has no gradient");
    let infinite = refused(&adapters(2, &["c_fc"]), &mut |model| {
        let mut gradients = Gradients::new();
        let [ids, targets] = &batches(&model.device())[0];
        gradients.add(model.loss(ids, targets, &Pass::default()) * f64::INFINITY);
        Ok(gradients)
    });
    assert!(infinite.starts_with("h.0.mlp.c_fc: its gradient: element"), "{infinite}");
    let failed = refused(&adapters(2, &["c_fc"]), &mut |_| Err(Error::Config("no data".into())));
    assert_eq!(failed, "no data");
    adapt(&mut gpt, &adapters(2, &["c_fc"]), Seed(0)).unwrap();
    let taken = steepest(&mut gpt, &adapters(2, &["c_fc"]), Seed(0), &mut gradients).unwrap_err().to_string();
    assert!(taken.contains("h.0.mlp.c_fc: it has an adapter already"), "{taken}");
}

const MOVING: [&str; 3] = ["pissa", "pissa:2", "lora-ga"];

fn starting(start: &str, config: Config) -> Config {
    Config { start: start.parse().unwrap(), start_batches: 2, ..config }
}

/// Loss of what was held back as the run's adapter makes it beside the base as it is in its files.
fn exported(config: &Config, trained: eckart::train::Trained) -> (f64, usize) {
    let out = trained.export().unwrap();
    let mut opened = hub::open(config.model.as_ref().unwrap(), None, &Device::cpu()).unwrap();
    let adapter = peft::open(&out).unwrap();
    adapter.put_on(&mut opened).unwrap();
    let mut rank = 0;
    each::<Lora>(&mut opened, |_, map| rank = rank.max(map.rank()));
    (held_back(config, &opened), rank)
}

#[test]
fn every_start_trains_as_planned_and_leaves_a_plain_adapter() {
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Gpt2, Arch::Llama] {
        let model = base(folder.path(), arch);
        let before = held_back(&config(folder.path(), &model, ""), &hub::open(&model, None, &Device::cpu()).unwrap());
        for start in ["gaussian", "zero-a"].into_iter().chain(MOVING) {
            let config = starting(start, config(folder.path(), &model, &format!("{arch:?} {start}")));
            let trained = tiny::train(&config, false).unwrap();
            tiny::assert_as_planned(&trained.report, start);
            let losses = trained.history.iter().filter_map(|line| line.val_loss);
            let best = losses.fold(f64::INFINITY, f64::min);
            assert!(best < before - 1e-3, "{arch:?} {start}: {best} after {before}");
            let moves = config.start.moves_base();
            let (again, rank) = exported(&config, trained);
            assert!((again - best).abs() < 1e-5, "{arch:?} {start}: {again} opened again, reported {best}");
            assert_eq!(rank, if moves { 2 * config.rank } else { config.rank });
        }
    }
}

/// What is left of the base is stored in fewer bits, a layer at a time.
#[test]
fn what_is_left_of_the_base_goes_into_fewer_bits() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Llama);
    let dense = hub::open(&model, None, &Device::cpu()).unwrap();
    for start in MOVING {
        let config = config(folder.path(), &model, &format!("packed {start}"));
        // One layer of each block with a rank of its own, one without an adapter.
        let rank_pattern = [("q_proj", 2), ("down_proj", 0)].map(|(name, rank)| (name.to_string(), rank)).into();
        let config = starting(start, Config { base: Some(Format::Int8), rank_pattern, ..config });
        let trained = tiny::train(&config, false).unwrap();
        tiny::assert_as_planned(&trained.report, start);
        let best = trained.history.iter().filter_map(|line| line.val_loss).fold(f64::INFINITY, f64::min);
        let best_folder = config.out.clone().unwrap();
        let (again, _) = exported(&config, trained);
        assert!((again - best).abs() < 0.02 && again < held_back(&config, &dense), "{start}: {again} for {best}");
        // Beside the base that it was trained with it is what was reported.
        let mut own = Checkpoint::open(&best_folder).unwrap().model(&Device::cpu()).unwrap();
        assert!((held_back(&config, &own) - best).abs() < 1e-5, "{start}");
        let mut ranks = std::collections::BTreeMap::new();
        each::<Lora>(&mut own, |path, map| {
            ranks.insert(path.rsplit('.').next().unwrap().to_string(), map.rank());
        });
        assert_eq!(ranks.len(), 6, "{ranks:?}");
        assert!(ranks.iter().all(|(name, rank)| *rank == if name == "q_proj" { 2 } else { 4 }), "{ranks:?}");
    }
}

#[test]
fn runs_go_on_from_their_own_start() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    for (start, format) in
        [("pissa:1", None), ("lora-ga", None), ("pissa", Some(Format::Nf4)), ("lora-ga", Some(Format::BF16))]
    {
        let run = |out: &str| {
            let config = config(folder.path(), &model, &format!("{out} {start} {format:?}"));
            starting(start, Config { accumulate: 2, adapter_dropout: 0.2, base: format, ..config })
        };
        let (whole, pieces) = (run("whole"), run("pieces"));
        tiny::train(&whole, false).unwrap();
        tiny::same_in_pieces(&whole, &pieces, 3);
    }
    let out = folder.path().join("whole pissa:1 None");
    std::fs::remove_dir_all(out.join("checkpoint/start")).unwrap();
    let error = Checkpoint::open(&out).unwrap().model(&Device::cpu()).unwrap_err().to_string();
    assert!(error.contains("checkpoint/start: no manifest"), "{error}");
}

/// A new model's adapters too: what is left of it and they make up the model that is written.
#[test]
fn new_models_start_so_too() {
    let folder = tempfile::tempdir().unwrap();
    for start in MOVING {
        let config = Config { adapter: Adapter::Dora, rank: 2, dropout: 0.0, ..tiny::config(folder.path(), start) };
        let config = starting(start, config);
        let trained = tiny::train(&config, false).unwrap();
        tiny::assert_as_planned(&trained.report, start);
        let own = Checkpoint::open(config.out.as_ref().unwrap()).unwrap().model(&Device::cpu()).unwrap();
        let written = hub::open(&trained.export().unwrap(), None, &Device::cpu()).unwrap();
        let ids = Tensor::new(&[1_u32, 2, 3, 4], [1, 4], &Device::cpu());
        let [own, written] = [own, written].map(|model| model.logits(&ids, &Pass::default()).detach());
        assert!(apart(&own, &written) < 1e-4, "{start}: {}", apart(&own, &written));
    }
    let whole = starting("pissa", tiny::config(folder.path(), "whole"));
    let error = tiny::train(&whole, false).map(drop).unwrap_err().to_string();
    assert_eq!(error, "start: pissa is for adapters, and none are trained");
    let growth = Some(eckart::train::Growth { budget: 9000, ..Default::default() });
    let grows = Config { adapter: Adapter::Lora, growth, ..starting("pissa", tiny::config(folder.path(), "grows")) };
    let error = tiny::train(&grows, false).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("growth: start pissa takes what it begins with from the base"), "{error}");
    let wide = Config { adapter: Adapter::Lora, rank: 9, ..starting("lora-ga", tiny::config(folder.path(), "wide")) };
    let error = tiny::train(&wide, false).map(drop).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn: rank 9 takes 18 singular vectors"), "{error}");
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_starts_as_the_host_does() {
    if crate::gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Llama);
    for (start, format) in [("pissa:2", Some(Format::Int8)), ("lora-ga", None)] {
        let losses = |device: String| {
            let config = config(folder.path(), &model, &format!("{start} on {device}"));
            let config = Config { device, base: format, report_every: 1, steps: 4, ..config };
            let trained = tiny::train(&starting(start, config), false).unwrap();
            tiny::assert_as_planned(&trained.report, start);
            trained.history.iter().filter_map(|line| line.loss).collect::<Vec<f64>>()
        };
        let (here, there) = (losses("cpu".into()), losses(crate::gpu::name()));
        let worst = here.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(here.len() == 4 && worst < 2e-3, "{start}: {here:?} and {there:?}");
    }
}

/// By flag and by file; a run's folder is enough to go on from.
#[cfg(feature = "cli")]
#[test]
fn commands_take_starts() {
    use crate::cli::{eckart, stderr};
    use crate::finetune::{lessons, prints};
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    let (model, data) = (model.to_str().unwrap(), lessons(folder.path()));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (file, out) = (path("starts.yaml"), path("run"));
    std::fs::write(&file, "start: pissa:1\nstart_batches: 3\nsteps: 2\nbatch: 2\nrank: 2\n").unwrap();
    let fixed = ["finetune", "--model", model, "--data", data.to_str().unwrap(), "--config", &file, "--out", &out];
    let report: serde_json::Value = serde_json::from_str(&prints(&[&fixed[..], &["--json"]].concat())).unwrap();
    assert_eq!((&report["config"]["start"], &report["config"]["start_batches"]), (&"pissa:1".into(), &3.into()));
    let write = |more: &[&str]| {
        prints(&[&["generate", "--prompt", "the ", "--tokens", "9", "--temperature", "0"], more].concat())
    };
    let adapter = path("run/adapter");
    assert_eq!(write(&["--checkpoint", &out]), write(&["--model", model, "--adapter", &adapter]));
    let refused = |more: &[&str]| {
        let output = eckart(&[&fixed[..], &["--out", &path("other")], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        stderr(&output)
    };
    assert!(refused(&["--start", "eva"]).contains("is no start: take uniform, gaussian, zero-a, pissa"));
    assert!(refused(&["--method", "flora"]).contains("start: pissa:1 is for adapters, and none are trained"));
    std::fs::write(&file, "start: olora\n").unwrap();
    assert!(refused(&[]).contains("starts.yaml: \"olora\" is no start"));
}
