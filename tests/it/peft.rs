//! Adapters that PEFT wrote, on the models that it wrote them for: the logits are those of transformers and PEFT.

use crate::torch::{Fixture, gpt2, llama, numbers};
use eckart::io::peft::{Adapter, bank, open, targets};
use eckart::lowrank::{Keep, Lora, adapt, bake, each, merge, select};
use eckart::module::Path;
use eckart::nn::{Arch, Model, Pass};
use eckart::{DType, Device, Module, Parameter, Tensor};
use std::path::PathBuf;

const EXPECTED: &[u8] = include_bytes!("../fixtures/peft/expected.safetensors");

/// All folders, and how near the logits come in double precision: PEFT computes what PiSSA leaves of a base in single.
pub const CASES: [(&str, f64); 19] = [
    ("bert_classes", 1e-10),
    ("bert_tokens", 1e-10),
    ("gpt2_dora", 1e-10),
    ("gpt2_embedding", 1e-10),
    ("gpt2_exclude", 1e-10),
    ("gpt2_half", 1e-10),
    ("gpt2_lora", 1e-10),
    ("gpt2_pissa", 1e-5),
    ("gpt2_pissa_converted", 1e-10),
    ("gpt2_saved", 1e-10),
    ("llama_dora", 1e-10),
    ("llama_layers", 1e-10),
    ("llama_patterns", 1e-10),
    ("llama_regex", 1e-10),
    ("llama_rslora", 1e-10),
    ("llama_tied", 1e-10),
    ("roberta_classes", 1e-10),
    ("untied_embedding", 1e-10),
    ("untied_saved", 1e-10),
];

pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft").join(name)
}

pub fn adapter(name: &str) -> Adapter {
    open(&folder(name)).unwrap()
}

/// Bases that are models of `tests/fixtures/hub`.
const HUB: [(&str, &str); 4] = [
    ("bert_classes", "bert-classes"),
    ("bert_tokens", "bert"),
    ("roberta_classes", "roberta-classes"),
    ("gpt2_classes", "gpt2-classes"),
];

/// The base that a folder is for, by the beginning of its name.
pub fn base(name: &str, dtype: DType) -> Model {
    let device = Device::cpu();
    let of = |(bytes, config)| Fixture::new(bytes, &device).model(&config, dtype);
    for (begin, folder) in HUB {
        if name.starts_with(begin) {
            return eckart::io::hub::open(&crate::hub::folder(folder), None, &device).unwrap().cast(dtype);
        }
    }
    if name.starts_with("gpt2") {
        return of(gpt2());
    }
    let mut model = of(llama());
    if name.starts_with("untied") {
        model.untie().unwrap();
        let head = Fixture::new(EXPECTED, &device).numbers("lm_head.weight");
        let head = Tensor::new(&head, [17, 16], &device).cast(dtype);
        set(&mut model, "lm_head.weight", |parameter| parameter.set(head.clone()));
    }
    model
}

pub fn set(model: &mut Model, name: &str, change: impl Fn(&mut Parameter)) {
    let mut found = false;
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string() == name {
            change(parameter);
            found = true;
        }
    });
    assert!(found, "there is no {name}");
}

pub fn logits(model: &Model) -> Vec<f64> {
    let ids = Fixture::new(EXPECTED, &Device::cpu()).indices("ids");
    numbers(&model.logits(&ids, &Pass::default()).detach())
}

/// Largest difference, in units of the largest of the numbers expected, or of 1.
pub fn apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let most = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
    most(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / most(&mut expected.iter().copied()).max(1.0)
}

fn contents(model: &Model) -> Vec<(String, bool, Vec<f64>)> {
    model.parameters().into_iter().map(|(path, p)| (path, p.trains(), numbers(&p.tensor().detach()))).collect()
}

#[test]
fn adapters_of_peft_compute_what_they_do_there() {
    let expected = Fixture::new(EXPECTED, &Device::cpu());
    for (name, double) in CASES {
        for (dtype, bound) in [(DType::F64, double), (DType::F32, 1e-5)] {
            let mut model = base(name, dtype);
            let wanted = expected.numbers(&format!("{name}.logits"));
            let before = apart(&logits(&model), &wanted);
            assert!(before > 1e-2, "{name}: the base alone is {before:e} away");
            let placed = adapter(name).put_on(&mut model).unwrap();
            let error = apart(&logits(&model), &wanted);
            assert!(error <= bound, "{name} in {dtype}: off by {error:e}");
            let whole = name.ends_with("saved") || name.ends_with("classes");
            assert!(!placed.layers.is_empty() && placed.whole.is_empty() != whole);
            let merged = merge(&mut model, Keep::Nothing, true);
            if ["gpt2_embedding", "bert_tokens"].contains(&name) {
                let error = merged.unwrap_err().to_string();
                assert!(error.contains(": the output head shares this table"), "{error}");
                continue;
            }
            merged.unwrap();
            assert_eq!(bake(&mut model).len(), placed.layers.len());
            let error = apart(&logits(&model), &wanted);
            assert!(error <= bound, "{name} in {dtype}, merged: off by {error:e}");
        }
    }
}

/// Adapters and what was trained whole train on, and nothing else.
#[test]
fn what_trained_trains_on() {
    for (name, _) in CASES {
        let mut model = base(name, DType::F32);
        let placed = adapter(name).put_on(&mut model).unwrap();
        for (path, parameter) in model.parameters() {
            let trains = path.contains("lora_") || placed.whole.contains(&path);
            assert_eq!(parameter.trains(), trains, "{name}: {path}");
        }
        let mut factors = Vec::new();
        each::<Lora>(&mut model, |_, map| factors.push((map.rank(), map.scale(), map.dropout())));
        match name {
            "gpt2_saved" => {
                assert_eq!(placed.whole, ["h.1.mlp.c_fc.weight", "h.1.mlp.c_fc.bias", "ln_f.weight", "ln_f.bias"])
            }
            "bert_classes" => assert_eq!(placed.whole, ["classifier.weight", "classifier.bias"]),
            "roberta_classes" => {
                assert_eq!((placed.whole.len(), factors.len()), (4, 12));
                assert!(placed.whole.iter().all(|path| path.starts_with("classifier.")));
            }
            // `norm` is the end of three kinds of norms.
            "untied_saved" => assert_eq!(placed.whole.len(), 6),
            "gpt2_half" => assert_eq!(factors, [(3, 8.0 / 3.0, 0.25); 2]),
            "llama_rslora" => {
                assert!(factors.iter().all(|f| *f == (2, 4.0 / 2_f64.sqrt(), 0.0)) && factors.len() == 14)
            }
            "llama_patterns" => {
                // q, k, v, o, gate, up, down of the first block, then of the second.
                let ranks: Vec<usize> = factors.iter().map(|f| f.0).collect();
                assert_eq!(ranks, [2, 2, 2, 1, 4, 4, 2, 3, 3, 3, 3, 3, 3, 3]);
                let alphas: Vec<f64> = factors.iter().map(|f| f.1 * f.0 as f64).collect();
                assert_eq!(alphas, [2.5, 2.5, 4.0, 7.0, 4.0, 4.0, 4.0, 2.5, 2.5, 4.0, 1.0, 4.0, 4.0, 4.0]);
            }
            "gpt2_pissa" => assert_eq!(placed.initial.len(), 4),
            _ => assert!(placed.initial.is_empty()),
        }
    }
}

#[test]
fn each_row_of_a_bank_is_the_model_with_that_adapter() {
    // Made like PEFT's own, with other numbers: the same layers and ranks, other alphas.
    let first = adapter("llama_rslora");
    let mut second = first.clone();
    second.tensors.values_mut().for_each(|tensor| *tensor = tensor.cast(DType::F64) * -0.7 + 0.05);
    let mut third = second.clone();
    third.tensors.values_mut().for_each(|tensor| *tensor = &*tensor * 0.5 - 0.1);
    (third.config.alpha, third.config.rank_stabilised) = (3.0, false);
    // And others of PEFT's, for fewer layers and with ranks of their own; the last is the model itself.
    let adapters = [first, second, third, adapter("llama_regex"), adapter("llama_patterns")];
    let mut model = base("llama", DType::F64);
    let layers = bank(&mut model, &adapters.iter().map(Some).chain([None]).collect::<Vec<_>>()).unwrap();
    assert_eq!(layers.len(), 14);
    let chosen = [2_u32, 0, 5, 1, 4, 0, 2, 3];
    let ids: Vec<u32> = (0..8 * 8).map(|i| (i * i + 3 * i) % 17).collect();
    let run = |model: &Model, ids: &[u32]| {
        let ids = Tensor::new(ids, [ids.len() / 8, 8], &Device::cpu());
        numbers(&model.logits(&ids, &Pass::default()).detach())
    };
    select(&mut model, &chosen).unwrap();
    let together = run(&model, &ids);
    for (i, &one) in chosen.iter().enumerate() {
        let mut alone = base("llama", DType::F64);
        if let Some(adapter) = adapters.get(one as usize) {
            adapter.put_on(&mut alone).unwrap();
        }
        let [found, expected] = [&together[i * 136..][..136], &run(&alone, &ids[i * 8..][..8])];
        assert!(apart(found, expected) < 1e-12, "row {i}");
        let without = run(&base("llama", DType::F64), &ids[i * 8..][..8]);
        assert!(apart(expected, &without) > 1e-2 || one == 5, "row {i}");
    }
}

/// PEFT's files say how many classes there are, ours what they are called.
#[test]
fn classes_are_known_by_name_or_by_number() {
    let names = |adapter: &Adapter| adapter.classes(None).map(|names| names.join(" "));
    assert_eq!(names(&adapter("gpt2_lora")), None);
    for name in ["bert_classes", "roberta_classes"] {
        let mut adapter = adapter(name);
        assert_eq!(names(&adapter).unwrap(), "LABEL_0 LABEL_1 LABEL_2");
        adapter.labels = Some(["no", "maybe", "yes"].map(String::from).into());
        let folder = tempfile::tempdir().unwrap();
        adapter.write(&folder.path().join("named")).unwrap();
        assert_eq!(names(&open(&folder.path().join("named")).unwrap()).unwrap(), "no maybe yes");
    }
    // An adapter of a classifier is for a model that classifies.
    let faults = adapter("bert_classes").check(Some(&base("bert_tokens", DType::F32)));
    assert!(faults.iter().any(|fault| fault.starts_with("classifier.weight [3, 8] is not asked for")), "{faults:?}");
}

#[test]
fn adapters_that_do_not_go_together_make_no_bank() {
    let error = |name: &str, adapters: &[&str]| {
        let mut model = base(name, DType::F32);
        let before = contents(&model);
        let adapters: Vec<Adapter> = adapters.iter().map(|name| adapter(name)).collect();
        let error = bank(&mut model, &adapters.iter().map(Some).collect::<Vec<_>>()).unwrap_err().to_string();
        assert_eq!(contents(&model), before);
        error
    };
    assert!(
        error("llama", &["llama_dora"])
            .ends_with("has lengths of outputs (DoRA), which cannot be chosen for each example")
    );
    assert!(error("gpt2", &["gpt2_pissa"]).contains("PiSSA"));
    assert!(error("gpt2", &["gpt2_saved"]).contains("modules of its own"));
    assert!(error("llama", &["llama_tied"]).contains("which cannot be chosen for each example"));
    assert!(error("llama", &["gpt2_lora"]).contains("no layer is meant"));
    assert!(error("llama", &[]).contains("no adapters are given"));
}

#[test]
fn texts_mean_layers_as_in_peft() {
    let (gpt, llama) = (base("gpt2", DType::F32), base("llama", DType::F32));
    let meant = |model: &Model, text: &str| targets(model, text).unwrap();
    assert_eq!(meant(&gpt, "attn.c_proj"), ["h.0.attn.c_proj", "h.1.attn.c_proj"]);
    assert_eq!(meant(&gpt, "transformer.h.1.mlp.c_fc,wte"), ["wte", "h.1.mlp.c_fc"]);
    assert_eq!(
        meant(&gpt, r"transformer\.h\.1\..*"),
        ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"].map(|n| format!("h.1.{n}"))
    );
    assert_eq!(meant(&llama, "all-linear").len(), 14);
    assert_eq!(meant(&base("untied", DType::F32), "lm_head"), ["lm_head"]);
    // What comes out goes in.
    let config =
        eckart::lowrank::AdapterConfig { rank: 2, targets: meant(&llama, ".*(q|v)_proj"), ..Default::default() };
    assert_eq!(adapt(&mut llama.clone(), &config, eckart::Seed(0)).unwrap(), config.targets);
    for (text, problem) in [
        (
            "q_proj,nothing",
            "target_modules nothing: no layer is meant; there are model.embed_tokens, model.layers.0.self_attn.q_proj, ",
        ),
        ("q_proj.*", "target_modules q_proj.*: no layer is meant"),
        ("", "no layer is named"),
        ("(q", "regular expression \"(q\": "),
    ] {
        let error = targets(&llama, text).unwrap_err().to_string();
        assert!(error.starts_with(problem), "{error}");
    }
    assert_eq!(gpt.config().arch, Arch::Gpt2);
}

/// A plan counts what a run holds.
#[test]
fn the_null_device_counts_like_the_host() {
    for name in ["gpt2_lora", "gpt2_saved", "gpt2_dora", "gpt2_pissa", "llama_tied", "llama_rslora", "bert_classes"] {
        let config = base(name, DType::F32).config().clone();
        let held = |device: &Device| {
            let mut model = Model::new(&config, eckart::Seed(0), device).unwrap();
            device.ledger().reset_peak();
            adapter(name).put_on(&mut model).unwrap();
            (device.ledger().live().total(), device.ledger().peak())
        };
        assert_eq!(held(&Device::null()), held(&Device::cpu()), "{name}");
    }
}
