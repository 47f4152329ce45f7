//! Models of which layers are factors: in files, beside adapters, and multiplied out again.

use crate::finetune::{base, config, held_back};
use crate::tiny;
use eckart::io::{Files, hub, peft};
use eckart::lowrank::{AdapterConfig, Factored, Keep, Start, adapt, bake, each, factorize, merge, unmerge};
use eckart::module::{Dense, Path as ModulePath, normal};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::quantised::Format;
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::train::{Adapter, Config, Method, Plan};
use eckart::{DType, Device, Module, Seed, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const LAYERS: [(Arch, [&str; 2]); 2] = [
    (Arch::Gpt2, ["h.0.attn.c_attn", "h.1.mlp.c_proj"]),
    (Arch::Llama, ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]),
];

fn fresh(arch: Arch) -> Model {
    Model::new(&ModelConfig::new(arch, 29, 16, 2, 2, 16), Seed(6), &Device::cpu()).unwrap()
}

/// Ranks 3 and 5 of two layers.
fn ranks(layers: [&str; 2]) -> BTreeMap<String, usize> {
    layers.into_iter().map(str::to_owned).zip([3, 5]).collect()
}

fn factored(arch: Arch, layers: [&str; 2]) -> Model {
    let mut model = fresh(arch);
    factorize(&mut model, &ranks(layers), &Default::default()).unwrap();
    model
}

fn logits(model: &Model) -> Vec<f64> {
    let ids: Vec<u32> = (0..24).map(|i| (i * i + 3) % 29).collect();
    let logits = model.logits(&Tensor::new(&ids, [2, 12], &Device::cpu()), &Pass::default());
    logits.detach().cast(DType::F64).to_vec().unwrap()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn bits(model: &Model) -> Vec<(String, Vec<u32>)> {
    let words = |x: &Tensor| x.to_vec::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
    model.parameters().iter().map(|(path, parameter)| (path.clone(), words(parameter.tensor()))).collect()
}

#[test]
fn they_are_saved_and_opened_to_the_bit() {
    let home = tempfile::tempdir().unwrap();
    for (arch, layers) in LAYERS {
        let model = factored(arch, layers);
        let folder = home.path().join(format!("{arch:?}"));
        hub::save(&model, &folder, &Files::new()).unwrap();
        let opened = hub::open(&folder, None, &Device::cpu()).unwrap();
        assert_eq!(bits(&opened), bits(&model));
        assert_eq!(opened.config().ranks, ranks(layers));
        assert_eq!(logits(&opened), logits(&model));
        let file = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let file: Value = serde_json::from_str(&file).unwrap();
        let names = layers.map(|path| model.config().hub_name(path));
        assert_eq!(file["eckart"]["ranks"], serde_json::json!({&names[0]: 3, &names[1]: 5}));
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let sizes = |name: String| tensors.tensor(&name).unwrap().shape().to_vec();
        let (left, right) = (sizes(format!("{}.factor_in", names[0])), sizes(format!("{}.factor_out", names[0])));
        assert_eq!((left, right), (vec![16, 3], vec![3, if arch == Arch::Gpt2 { 48 } else { 16 }]));
        assert!(tensors.tensor(&format!("{}.weight", names[0])).is_err());
        let again = home.path().join(format!("{arch:?} again"));
        hub::save(&opened, &again, &Files::new()).unwrap();
        for name in ["config.json", "model.safetensors"] {
            assert_eq!(std::fs::read(folder.join(name)).unwrap(), std::fs::read(again.join(name)).unwrap());
        }
        let counted = |device: Device| {
            let model = hub::open(&folder, None, &device).unwrap();
            (device.ledger().live(), device.ledger().peak(), model.parameters().len())
        };
        assert_eq!(counted(Device::null()), counted(Device::cpu()));
        // Dense layers go into fewer bits, and factors stay.
        let (mut packed, _) = hub::load_in(Format::Int8, &folder, opened.config(), None, &Device::cpu()).unwrap();
        let mut count = 0;
        each::<Factored>(&mut packed, |_, _| count += 1);
        assert_eq!(count, 2);
        assert!(apart(&logits(&packed), &logits(&model)) < 0.05);
    }
}

#[test]
fn what_does_not_fit_is_listed() {
    let home = tempfile::tempdir().unwrap();
    let (arch, layers) = LAYERS[0];
    let folder = home.path().join("model");
    hub::save(&factored(arch, layers), &folder, &Files::new()).unwrap();
    let path = folder.join("config.json");
    let sound: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let refused = |ranks: Value| {
        let mut file = sound.clone();
        file["eckart"] = ranks;
        std::fs::write(&path, file.to_string()).unwrap();
        hub::open(&folder, None, &Device::cpu()).map(drop).unwrap_err().to_string()
    };
    let names = layers.map(|path| format!("transformer.{path}"));
    let error = refused(serde_json::json!({"ranks": {&names[0]: 4, "transformer.h.0.mlp.c_fc": 1}}));
    for part in [
        "h.0.attn.c_attn.factor_in is [16, 3], the model has [16, 4]",
        "h.0.attn.c_attn.factor_out is [3, 48], the model has [4, 48]",
        "h.0.mlp.c_fc.factor_in is missing, the model has [16, 1]",
        "h.0.mlp.c_fc.weight [16, 64] is not known",
        "h.1.mlp.c_proj.weight is missing, the model has [64, 16]",
        "h.1.mlp.c_proj.factor_in [64, 5] is not known",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let error = refused(serde_json::json!({"ranks": {"transformer.h.9.mlp.c_fc": 1}}));
    assert!(error.ends_with("a rank is given for h.9.mlp.c_fc, which the model has not"), "{error}");
    for rank in [0_u64, 65, 1 << 40, u64::MAX] {
        let error = refused(serde_json::json!({"ranks": {&names[0]: rank}}));
        assert!(error.ends_with(&format!("rank {rank} of h.0.attn.c_attn [16, 48] cannot be")), "{error}");
    }
    assert!(refused(serde_json::json!({"rank": {}})).contains("config.json: "));
}

/// Numbers in the place of the zeros of B.
fn stir(model: &mut Model) {
    model.visit_mut(&ModulePath::root(), &mut |path, parameter| {
        let path = path.to_string();
        if path.ends_with("lora_B") || path.ends_with("vector") {
            let noise = normal(parameter.tensor().shape(), 0.2, Seed(path.len() as u64), &Device::cpu());
            let sum = parameter.tensor().detach() + noise.cast(parameter.tensor().dtype());
            parameter.set(sum);
        }
    });
}

/// L beside s A and R above B is what factors and adapter are together, with lengths of outputs too; and it is taken apart
/// to the bit.
#[test]
fn adapters_are_merged_into_factors() {
    for (arch, layers) in LAYERS {
        for dora in [false, true] {
            let mut model = factored(arch, layers).cast(DType::F64);
            let plain = logits(&model);
            let config = AdapterConfig { rank: 2, alpha: 6.0, dora, ..AdapterConfig::default() };
            adapt(&mut model, &config, Seed(1)).unwrap();
            assert!(apart(&logits(&model), &plain) < 1e-12, "fresh adapters change nothing");
            stir(&mut model);
            let beside = logits(&model);
            assert!(apart(&beside, &plain) > 1e-3);
            for keep in [Keep::Weights, Keep::Nothing] {
                let before: Vec<Vec<f64>> =
                    model.parameters().iter().map(|(_, p)| p.tensor().to_vec().unwrap()).collect();
                let saved: BTreeMap<String, Tensor> =
                    model.parameters().into_iter().map(|(path, p)| (path, p.tensor().detach())).collect();
                merge(&mut model, keep, true).unwrap();
                assert!(apart(&logits(&model), &beside) < 1e-12, "{arch:?} {dora}");
                let mut baked = model.clone();
                bake(&mut baked);
                let mut grown = BTreeMap::new();
                each::<Factored>(&mut baked, |path, map| {
                    grown.insert(path.to_string(), map.rank());
                });
                assert_eq!(grown, ranks(layers).into_iter().map(|(path, rank)| (path, rank + 2)).collect());
                unmerge(&mut model, &mut |path| Ok(saved[path].clone())).unwrap();
                let after: Vec<Vec<f64>> =
                    model.parameters().iter().map(|(_, p)| p.tensor().to_vec().unwrap()).collect();
                assert_eq!(after, before);
            }
        }
    }
    let (arch, layers) = LAYERS[0];
    let mut model = factored(arch, layers);
    let principal = AdapterConfig { rank: 2, start: Start::Principal { iterations: None }, ..AdapterConfig::default() };
    let error = adapt(&mut model, &principal, Seed(1)).unwrap_err().to_string();
    assert_eq!(error, "h.0.attn.c_attn: its base is not a dense matrix, which this start needs");
}

#[test]
fn they_are_multiplied_out_for_other_programs() {
    let home = tempfile::tempdir().unwrap();
    for (arch, layers) in LAYERS {
        let mut model = factored(arch, layers);
        let before = logits(&model);
        assert_eq!(hub::multiply_out(&mut model), layers);
        assert!(hub::multiply_out(&mut model).is_empty());
        assert!(apart(&logits(&model), &before) < 1e-5);
        let folder = home.path().join(format!("{arch:?}"));
        hub::save(&model, &folder, &Files::new()).unwrap();
        let mut opened = hub::open(&folder, None, &Device::cpu()).unwrap();
        assert!(opened.config().ranks.is_empty());
        assert_eq!(logits(&opened), logits(&model));
        let mut dense = 0;
        each::<Dense>(&mut opened, |_, _| dense += 1);
        let names: Vec<String> = fresh(arch).parameters().into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, opened.parameters().into_iter().map(|(path, _)| path).collect::<Vec<_>>());
        assert!(dense > 8);
    }
}

#[test]
fn encoders_and_classifiers_are_multiplied_out_and_take_other_heads() {
    let home = tempfile::tempdir().unwrap();
    for name in ["bert", "roberta", "bert-classes", "roberta-classes", "gpt2-classes"] {
        let mut model = hub::open(&crate::hub::folder(name), None, &Device::cpu()).unwrap();
        let layers = eckart::lowrank::chosen(&mut model, &[eckart::lowrank::ALL]).unwrap();
        let table = |path: &str| path.contains("embed") || ["wte", "wpe"].contains(&path);
        let ranks = layers.iter().filter(|path| !table(path)).map(|path| (path.clone(), 1)).collect();
        factorize(&mut model, &ranks, &Default::default()).unwrap();
        let [small, dense] = ["small", "dense"].map(|kind| home.path().join(format!("{name} {kind}")));
        hub::save(&model, &small, &Files::new()).unwrap();
        let mut opened = hub::open(&small, None, &Device::cpu()).unwrap();
        assert_eq!((opened.config().ranks.len(), bits(&opened)), (ranks.len(), bits(&model)), "{name}");
        assert_eq!(hub::multiply_out(&mut opened).len(), ranks.len());
        hub::save(&opened, &dense, &Files::new()).unwrap();
        assert_eq!(bits(&hub::open(&dense, None, &Device::cpu()).unwrap()), bits(&opened), "{name}");
        // The same body under a head for another task.
        let sizes = hub::read_config(&small, 8).unwrap();
        let labels = sizes.labels.is_none().then(|| vec!["no".to_string(), "yes".to_string()]);
        let other = ModelConfig { labels, ..sizes };
        let (_, fresh) = hub::load_with_head(&small, &other, Seed(1), &Device::cpu()).unwrap();
        assert!(!fresh.is_empty() || name == "gpt2-classes", "{name}");
    }
}

/// A model that has learnt a little, with two of its layers as factors of a rank that tells.
fn factored_base(folder: &Path, arch: Arch, layers: [&str; 2]) -> PathBuf {
    let dense = base(folder, arch);
    let mut model = hub::open(&dense, None, &Device::cpu()).unwrap();
    factorize(&mut model, &ranks(layers), &Default::default()).unwrap();
    let out = folder.join(format!("{arch:?} factored"));
    hub::save(&model, &out, &eckart::train::tokenizer_files(&dense).unwrap()).unwrap();
    out
}

#[test]
fn they_learn_like_any_model() {
    let folder = tempfile::tempdir().unwrap();
    type Set = fn(&mut Config);
    let ways: [(&str, Set); 5] = [
        ("lora", |config| config.adapter = Adapter::Lora),
        ("dora", |config| config.adapter = Adapter::Dora),
        ("packed", |config| config.base = Some(Format::Int8)),
        ("full", |config| (config.adapter, config.optimizer) = (Adapter::None, Some(Method::Adamw))),
        ("flora", |config| (config.adapter, config.optimizer) = (Adapter::None, Some(Method::Flora))),
    ];
    for (arch, layers) in LAYERS {
        let model = factored_base(folder.path(), arch, layers);
        let before = held_back(&config(folder.path(), &model, ""), &hub::open(&model, None, &Device::cpu()).unwrap());
        for (name, set) in ways {
            let mut config = config(folder.path(), &model, &format!("{arch:?} {name}"));
            set(&mut config);
            let trained = tiny::train(&config, false).unwrap();
            tiny::assert_as_planned(&trained.report, name);
            let best = trained.history.iter().filter_map(|line| line.val_loss).fold(f64::INFINITY, f64::min);
            assert!(best < before - 1e-3, "{arch:?} {name}: {best} after {before}");
            let out = trained.export().unwrap();
            let mut opened =
                hub::open(if config.adapter == Adapter::None { &out } else { &model }, None, &Device::cpu()).unwrap();
            if config.adapter != Adapter::None {
                peft::open(&out).unwrap().put_on(&mut opened).unwrap();
                merge(&mut opened, Keep::Nothing, true).unwrap();
                bake(&mut opened);
            }
            assert_eq!(opened.config().ranks, ranks(layers), "{arch:?} {name}");
            let again = held_back(&config, &opened);
            let bound = if name == "packed" { 0.02 } else { 1e-5 };
            assert!((again - best).abs() < bound, "{arch:?} {name}: {again} opened again, reported {best}");
        }
    }
}

/// Planned by sizes alone, as of a `config.json`.
#[test]
fn they_are_planned_by_their_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let (arch, layers) = LAYERS[1];
    let model = hub::open(&factored_base(folder.path(), arch, layers), None, &Device::cpu()).unwrap();
    let file = model.config().to_hugging_face().to_string();
    let sizes = ModelConfig::from_hugging_face(&file).unwrap();
    assert_eq!(&sizes, model.config());
    let config = Config { context: sizes.context, ..tiny::config(folder.path(), "planned") }.resolved().unwrap();
    let plan = Plan::of_model(&config, &sizes).unwrap();
    assert_eq!(plan.parameters, model.parameter_count());
    let dense = ModelConfig { ranks: BTreeMap::new(), ..sizes };
    let whole = Plan::of_model(&config, &dense).unwrap();
    assert!(plan.peak_bytes.total < whole.peak_bytes.total && plan.peak_bytes.weights < whole.peak_bytes.weights);
}

/// New ones too: what they begin with is about as large as a dense layer, and learns.
#[test]
fn new_models_have_them_from_the_beginning() {
    for (arch, layers) in LAYERS {
        let config = ModelConfig { ranks: ranks(layers), ..fresh(arch).config().clone() };
        let mut model = Model::new(&config, Seed(6), &Device::cpu()).unwrap();
        let mut found = BTreeMap::new();
        each::<Factored>(&mut model, |path, map| {
            found.insert(path.to_string(), map.rank());
            let product = map.factor_in.tensor().matmul(map.factor_out.tensor());
            let deviation = (&product * &product).mean_all().item().unwrap().sqrt();
            assert!((0.01..0.04).contains(&deviation), "{path}: {deviation}");
        });
        assert_eq!(found, ranks(layers));
        let ids: Vec<u32> = (0..33).map(|i| i * 5 % 29).collect();
        let [x, y] = [0, 1].map(|by| Tensor::new(&ids[by..][..32], [2, 16], &Device::cpu()));
        let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0));
        let losses: Vec<f64> = (0..20)
            .map(|step| {
                let loss = model.loss(&x, &y, &Pass::default());
                let value = loss.detach();
                let mut gradients = Gradients::new();
                gradients.add(loss);
                optimizer.step(&mut model, gradients, step, 1e-2, None);
                value.item().unwrap()
            })
            .collect();
        assert!(losses[19] < losses[0] - 0.5, "{losses:?}");
    }
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_computes_the_same() {
    let Some(gpu) = crate::gpu::device() else { return };
    let home = tempfile::tempdir().unwrap();
    for (arch, layers) in LAYERS {
        let folder = home.path().join(format!("{arch:?}"));
        hub::save(&factored(arch, layers), &folder, &Files::new()).unwrap();
        let ids: Vec<u32> = (0..24).map(|i| (i * i + 3) % 29).collect();
        let [here, there] = [&Device::cpu(), &gpu].map(|device| {
            let model = hub::open(&folder, None, device).unwrap();
            let loss =
                model.loss(&Tensor::new(&ids, [2, 12], device), &Tensor::new(&ids, [2, 12], device), &Pass::default());
            let value = loss.detach().item().unwrap();
            let mut gradients = Gradients::new();
            gradients.add(loss);
            (value, gradients.norm())
        });
        assert!((here.0 - there.0).abs() < 1e-4 && (here.1 / there.1 - 1.0).abs() < 1e-3, "{here:?} and {there:?}");
    }
}
