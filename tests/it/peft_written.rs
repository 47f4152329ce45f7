//! Adapters that are written for PEFT: read again here, and by a reader that knows nothing of this crate.
//!
//! With `ECKART_PEFT_OUT=DIR` the cases stay in that folder, for `tests/fixtures/read_peft.py DIR` and `check_peft.py DIR`.

use crate::peft::{CASES, apart, base, logits, set};
use crate::torch::Fixture;
use eckart::io::encode;
use eckart::io::peft::{About, Adapter, Budget, Names, open, save};
use eckart::lowrank::{AdapterConfig, Lora, Start, adapt, each, initial};
use eckart::nn::{Activation, Model, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{Array, DType, Device, Module, Parameter, Seed, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const EXPECTED: &[u8] = include_bytes!("../fixtures/peft/expected.safetensors");

/// A base, what is put on it, and parameters that train whole beside that.
struct Case {
    name: &'static str,
    config: AdapterConfig,
    whole: &'static [&'static str],
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

fn adapters(rank: usize, alpha: f64, targets: &[&str]) -> AdapterConfig {
    AdapterConfig { rank, alpha, targets: names(targets), ..AdapterConfig::default() }
}

fn cases() -> Vec<Case> {
    let case = |name, config| Case { name, config, whole: &[] };
    let ranks = vec![("h.1.attn.c_attn".into(), 1), ("mlp.c_proj".into(), 5)];
    let alphas = vec![("h.0.mlp.c_proj".into(), 2.5), ("c_fc".into(), 1.0)];
    let patterns = AdapterConfig { rank_pattern: ranks, alpha_pattern: alphas, ..adapters(3, 7.0, &["all-linear"]) };
    let stabilised = AdapterConfig {
        rank_stabilised: true,
        rank_pattern: vec![("q_proj".into(), 4)],
        ..adapters(3, 2.0, &["all-linear"])
    };
    let principal = Start::Principal { iterations: None };
    vec![
        case("gpt2_patterns", patterns),
        case("gpt2_head_too", adapters(2, 3.0, &["wte", "wpe", "c_attn"])),
        case(
            "gpt2_gradient",
            AdapterConfig { start: Start::Gradient(BTreeMap::new()), ..adapters(2, 1.0, &["c_attn", "c_fc"]) },
        ),
        case("gpt2_dora", AdapterConfig { dora: true, dropout: 0.1, ..adapters(2, 3.0, &["c_proj", "wpe"]) }),
        case("llama_stabilised", stabilised),
        case("llama_dora", AdapterConfig { dora: true, ..adapters(2, 3.0, &["all-linear"]) }),
        case("llama_pissa", AdapterConfig { start: principal.clone(), ..adapters(2, 3.0, &["all-linear"]) }),
        case("llama_pissa_dora", AdapterConfig { start: principal, dora: true, ..adapters(1, 3.0, &["v_proj"]) }),
        case("llama_small", adapters(4, 3.0, &["up_proj", "o_proj"])),
        Case { whole: &["model.embed_tokens.weight"], ..case("llama_table", adapters(2, 2.0, &["q_proj"])) },
        Case { whole: &["h.0.mlp.c_fc.bias", "ln_f.weight"], ..case("gpt2_whole", adapters(2, 2.0, &["c_attn"])) },
        Case {
            whole: &["classifier.weight", "classifier.bias"],
            ..case("bert_classes_lora", adapters(2, 3.0, &["query", "attention.output.dense"]))
        },
        Case {
            whole: &["classifier.dense.weight", "classifier.dense.bias", "classifier.out_proj.weight"],
            ..case("roberta_classes_lora", adapters(2, 3.0, &["value", "intermediate.dense"]))
        },
        Case {
            whole: &["score.weight"],
            ..case("gpt2_classes_dora", AdapterConfig { dora: true, ..adapters(2, 3.0, &["c_fc"]) })
        },
        case("bert_tokens_head_too", adapters(2, 3.0, &["word_embeddings", "transform.dense", "key"])),
        Case {
            whole: &["model.norm.weight"],
            ..case("untied_whole", adapters(2, 2.0, &["lm_head", "model.embed_tokens"]))
        },
    ]
}

fn ids() -> Tensor {
    Fixture::new(EXPECTED, &Device::cpu()).indices("ids")
}

fn gradients(model: &Model) -> Gradients {
    let ids = ids();
    let targets: Vec<u32> = (0..16).map(|i| (5 * i + 3) % 17).collect();
    let targets = match model.config().labels {
        None => Tensor::new(&targets, [2, 8], &Device::cpu()),
        Some(_) => Tensor::new(&[2_u32, 0], [2], &Device::cpu()),
    };
    let mut gradients = Gradients::new();
    gradients.add(model.loss(&ids, &targets, &Pass::default()));
    gradients
}

/// Some steps, so that factors are no longer what they began as.
fn train(model: &mut Model) {
    let mut optimizer = Optimizer::new(Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 }, Group::decay_matrices(0.0));
    for step in 0..4 {
        let gradients = gradients(model);
        assert!(optimizer.step(model, gradients, step, 0.1, None).taken);
    }
}

impl Case {
    /// The model trained, and what its adapters began as.
    fn made(&self) -> (Model, About) {
        let mut model = base(self.name, DType::F64);
        let mut config = self.config.clone();
        if let Start::Gradient(wanted) = &mut config.start {
            let found = gradients(&model);
            for (path, parameter) in model.parameters() {
                wanted.insert(path, Tensor::from_array(found.get(parameter.id()).unwrap().clone()));
            }
        }
        adapt(&mut model, &config, Seed(3)).unwrap();
        let about = About {
            base_model: Some(self.name.into()),
            rank_stabilised: config.rank_stabilised,
            initial: initial(&mut model),
        };
        for name in self.whole {
            set(&mut model, name, |parameter| *parameter = Parameter::new(parameter.tensor().detach()));
        }
        train(&mut model);
        (model, about)
    }

    /// Writes base, adapter and logits below a folder; gives the adapter's folder and the model.
    fn write(&self, below: &Path) -> (PathBuf, Model) {
        let folder = below.join(self.name);
        std::fs::create_dir_all(&folder).unwrap();
        let (model, about) = self.made();
        let adapter = folder.join("adapter");
        if self.name == "llama_small" {
            let small = Adapter::of(&model, &about).unwrap().shrink(Budget::Rank(2)).unwrap();
            small.write(&adapter).unwrap();
        } else {
            save(&model, &about, &adapter).unwrap();
        }
        (adapter, model)
    }
}

/// A base and logits for readers in other languages, in double precision and under the names that are usual there.
fn write_base(name: &str, folder: &Path, logits: &[f64]) {
    let model = base(name, DType::F64);
    let config = model.config();
    let parameters = model.parameters();
    let named = |(path, parameter): &'_ (String, Parameter)| (config.hub_name(path), parameter.tensor().detach());
    let tensors: Vec<(String, Tensor)> = parameters.iter().map(named).collect();
    let arrays: Vec<(String, &Array)> = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.array())).collect();
    std::fs::write(folder.join("base.safetensors"), encode(arrays).unwrap()).unwrap();
    let found = [("ids", ids()), ("logits", Tensor::new(logits, [logits.len()], &Device::cpu()))];
    let arrays = found.iter().map(|(name, tensor)| (name.to_string(), tensor.array()));
    std::fs::write(folder.join("expected.safetensors"), encode(arrays).unwrap()).unwrap();
    let text = serde_json::json!({
        "model_type": format!("{:?}", config.arch).to_lowercase(), "heads": config.heads, "kv_heads": config.kv_heads,
        "layers": config.layers, "hidden": config.hidden, "width": config.width, "context": config.context,
        "vocabulary": config.vocabulary, "epsilon": config.norm_epsilon, "theta": config.rope_theta,
        "tied": config.tied, "head": config.hub_head(), "classes": config.labels.as_ref().map(Vec::len),
        "segments": config.segments, "first_position": config.first_position(), "padding": config.padding,
        "tanh": config.activation == Activation::GeluTanh,
    });
    std::fs::write(folder.join("config.json"), text.to_string()).unwrap();
}

#[test]
fn what_is_written_is_read_again_here_and_elsewhere() {
    let (scratch, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kept = std::env::var_os("ECKART_PEFT_OUT").map(PathBuf::from);
    let below = kept.clone().unwrap_or_else(|| scratch.path().into());
    if let Some(kept) = &kept {
        std::fs::create_dir_all(kept).unwrap();
        assert!(std::fs::read_dir(kept).unwrap().next().is_none(), "{} is not empty", kept.display());
    }
    for case in cases() {
        let (folder, model) = case.write(&below);
        let mut again = base(case.name, DType::F64);
        let before = logits(&again);
        let adapter = open(&folder).unwrap();
        adapter.put_on(&mut again).unwrap();
        let (found, trained) = (logits(&again), logits(&model));
        assert!(apart(&found, &before) > 1e-2, "{}: training did nothing", case.name);
        let error = apart(&found, &trained);
        let shrunk = case.name == "llama_small";
        assert!(if shrunk { (1e-6..0.5).contains(&error) } else { error < 1e-11 }, "{}: {error:e}", case.name);
        write_base(case.name, folder.parent().unwrap(), &found);
        // Saved again, now as it was read, it is the same adapter.
        let again_folder = copies.path().join(case.name);
        adapter.write(&again_folder).unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            assert!(std::fs::read(folder.join(name)).unwrap() == std::fs::read(again_folder.join(name)).unwrap());
        }
        let files = std::fs::read_dir(&folder).unwrap().count();
        let classifies = model.config().labels.is_some();
        assert_eq!(files, 2 + classifies as usize, "nothing else is in the folder");
        let task = if classifies {
            Some("SEQ_CLS")
        } else {
            Some("CAUSAL_LM").filter(|_| case.name != "bert_tokens_head_too")
        };
        assert_eq!(adapter.config.task_type.as_deref(), task);
        assert_eq!(adapter.classes(None), model.config().labels);
    }
    // PEFT's own, put on a model and saved from there: a part that PiSSA took is undone, a head without the embedding's
    // adapter stays without.
    for (name, _) in CASES {
        let folder = below.join(format!("{name}_again"));
        std::fs::create_dir(&folder).unwrap();
        let (adapter, mut model) = (crate::peft::adapter(name), base(name, DType::F64));
        let initial = adapter.put_on(&mut model).unwrap().initial;
        let about = About { rank_stabilised: adapter.config.rank_stabilised, initial, ..About::default() };
        save(&model, &about, &folder.join("adapter")).unwrap();
        let mut again = base(name, DType::F64);
        open(&folder.join("adapter")).unwrap().put_on(&mut again).unwrap();
        assert!(apart(&logits(&again), &logits(&model)) < 1e-11, "{name}");
        write_base(name, &folder, &logits(&model));
    }
}

/// What differs by layer is said by names that mean one layer each.
#[test]
fn configurations_say_what_most_layers_have_once() {
    let scratch = tempfile::tempdir().unwrap();
    let case = |name: &str| cases().into_iter().find(|case| case.name == name).unwrap();
    let config = |name: &str| open(&case(name).write(scratch.path()).0).unwrap().config;
    let found = config("gpt2_patterns");
    assert_eq!((found.rank, found.alpha, found.rank_stabilised, found.fan_in_fan_out), (3, 7.0, false, true));
    let own = |list: &[(&str, usize)]| {
        list.iter().map(|(name, rank)| (format!(r"^transformer\.h\.{name}"), *rank)).collect::<Vec<_>>()
    };
    assert_eq!(found.ranks, own(&[(r"0\.mlp\.c_proj", 5), (r"1\.attn\.c_attn", 1), (r"1\.mlp\.c_proj", 5)]));
    let alphas: Vec<f64> = found.alphas.iter().map(|(_, alpha)| *alpha).collect();
    assert_eq!(alphas, [1.0, 2.5, 1.0]);
    let Names::List(targets) = found.targets else { panic!("targets are listed") };
    assert_eq!(targets.len(), 8);
    let found = config("llama_stabilised");
    assert_eq!((found.rank, found.alpha, found.alphas.len(), found.ranks.len()), (3, 2.0, 0, 2));
    let found = config("llama_pissa");
    assert_eq!((found.rank, found.alpha, found.principal, found.whole.len()), (4, 6.0, false, 0));
    assert_eq!(config("llama_table").whole, ["lm_head", "model.embed_tokens"]);
    assert_eq!(config("gpt2_whole").whole, ["transformer.h.0.mlp.c_fc", "transformer.ln_f"]);
    assert_eq!(config("roberta_classes_lora").whole, ["classifier"]);
    let found = config("gpt2_dora");
    assert_eq!((found.dropout, found.base_model.as_deref()), (0.1, Some("gpt2_dora")));
}

#[test]
fn what_the_files_cannot_say_is_refused_and_nothing_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("adapter");
    let refused = |model: &Model, about: &About| {
        let error = save(model, about, &folder).unwrap_err().to_string();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        error
    };
    let case = |name: &str| cases().into_iter().find(|case| case.name == name).unwrap().made();
    let (model, about) = case("llama_pissa");
    let error = refused(&model, &About { initial: Default::default(), ..about.clone() });
    assert!(error.contains("its first factors are not given: take them with lowrank::initial"), "{error}");
    assert!(refused(&base("llama", DType::F32), &About::default()).contains("no adapters to save"));
    let (mut model, about) = case("gpt2_whole");
    set(&mut model, "h.0.attn.c_attn.bias", |parameter| *parameter = Parameter::new(parameter.tensor().detach()));
    let error = refused(&model, &about);
    assert!(error.starts_with("h.0.attn.c_attn.bias trains, and its layer has an adapter"), "{error}");
    let (mut model, about) = case("bert_tokens_head_too");
    let table = "embeddings.word_embeddings";
    eckart::lowrank::merge(&mut model, eckart::lowrank::Keep::Nothing, true).unwrap();
    eckart::lowrank::bake(&mut model);
    adapt(&mut model, &adapters(1, 1.0, &["key"]), Seed(0)).unwrap();
    set(&mut model, &format!("{table}.weight"), |parameter| *parameter = Parameter::new(parameter.tensor().detach()));
    assert!(refused(&model, &about).starts_with("embeddings.word_embeddings trains, which the head shares"));
    // The head of a tied model shares lengths too, here; in PEFT it has none.
    let mut model = base("gpt2", DType::F32);
    adapt(&mut model, &AdapterConfig { dora: true, ..adapters(1, 1.0, &["wte"]) }, Seed(0)).unwrap();
    assert!(refused(&model, &About::default()).starts_with("wte: the head shares its lengths"));
    let mut model = base("gpt2", DType::F32);
    adapt(&mut model, &AdapterConfig { dora: true, ..adapters(1, 1.0, &["c_fc"]) }, Seed(0)).unwrap();
    adapt(&mut model, &adapters(1, 1.0, &["c_attn"]), Seed(0)).unwrap();
    assert!(refused(&model, &About::default()).contains("one setting for all"));
    // What is there stays.
    let (model, about) = case("llama_small");
    save(&model, &about, &folder).unwrap();
    assert!(save(&model, &about, &folder).unwrap_err().to_string().contains("is there already"));
    assert!(save(&model, &about, &scratch.path().join("none/adapter")).is_err());
}

/// Eckart & Young by layers: what is lost is the tail of the singular values.
#[test]
fn shrinking_loses_the_tail_and_no_more() {
    let (mut model, about) = cases().into_iter().find(|case| case.name == "llama_small").unwrap().made();
    let adapter = Adapter::of(&model, &about).unwrap();
    let reports = adapter.show().unwrap();
    assert_eq!(reports.len(), 4);
    let mut dense = BTreeMap::new();
    each::<Lora>(&mut model, |path, map| {
        dense.insert(path.to_owned(), map.a().tensor().detach().matmul(&map.b().tensor().detach()) * map.scale());
    });
    let norm = |x: &Tensor| (x * x).sum_all().item().unwrap().sqrt();
    for report in &reports {
        let product = &dense[&report.module];
        assert_eq!(
            (report.rank, report.alpha, report.scale, report.sizes[..].to_vec()),
            (4, 3.0, 0.75, product.shape().to_vec())
        );
        assert!((report.norm() - norm(product)).abs() < 1e-12 * norm(product));
        assert_eq!((report.energy(4), report.energy(0), report.rank_for(1.0)), (1.0, 0.0, 4));
    }
    for budget in [Budget::Rank(1), Budget::Rank(3), Budget::Rank(9), Budget::Energy(0.8), Budget::Energy(1.0)] {
        let small = adapter.shrink(budget).unwrap();
        assert!(small.check(Some(&base("llama", DType::F64))).is_empty());
        let mut placed = base("llama", DType::F64);
        small.put_on(&mut placed).unwrap();
        each::<Lora>(&mut placed, |path, map| {
            let report = reports.iter().find(|report| report.module == path).unwrap();
            let rank = match budget {
                Budget::Rank(rank) => rank.min(4),
                Budget::Energy(part) => report.rank_for(part),
                Budget::Parameters(..) => unreachable!("not among these"),
            };
            assert_eq!((map.rank(), map.scale()), (rank, 0.75), "{path} {budget:?}");
            let product = map.a().tensor().detach().matmul(&map.b().tensor().detach()) * map.scale();
            let tail = report.singular_values[rank..].iter().map(|s| s * s).sum::<f64>().sqrt();
            assert!((norm(&(&dense[path] - product)) - tail).abs() < 1e-12, "{path} {budget:?}");
        });
    }
    let energies = reports.iter().map(|report| report.rank_for(0.8)).collect::<Vec<_>>();
    assert!(energies.iter().any(|rank| *rank < 4), "{energies:?}");
    for bad in [Budget::Rank(0), Budget::Energy(0.0), Budget::Energy(1.1), Budget::Energy(f64::NAN)] {
        assert!(adapter.shrink(bad).is_err());
    }
}

/// Types stay, and a head that has the embedding's factors turned keeps them.
#[test]
fn shrunk_adapters_of_peft_still_fit() {
    for name in
        ["llama_rslora", "llama_dora", "gpt2_half", "llama_patterns", "llama_tied", "untied_embedding", "gpt2_saved"]
    {
        let adapter = crate::peft::adapter(name);
        let small = adapter.shrink(Budget::Rank(1)).unwrap();
        let types = |adapter: &Adapter| adapter.tensors.iter().map(|(k, t)| (k.clone(), t.dtype())).collect::<Vec<_>>();
        assert_eq!(types(&small), types(&adapter), "{name}");
        assert!(
            small.put_on(&mut base(name, DType::F32)).is_ok(),
            "{name}: {:?}",
            small.check(Some(&base(name, DType::F32)))
        );
        for (before, after) in adapter.show().unwrap().iter().zip(small.show().unwrap()) {
            assert!((after.scale - before.scale).abs() < 1e-15 && after.rank == 1);
            let rounding = if name == "gpt2_half" || name == "llama_dora" { 1e-2 } else { 1e-6 };
            assert!((after.norm() - before.singular_values[0]).abs() < rounding * before.norm(), "{name}");
        }
    }
    assert!(crate::peft::adapter("gpt2_pissa").shrink(Budget::Rank(1)).unwrap_err().to_string().contains("pissa"));
}
