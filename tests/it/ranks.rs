//! Ranks under a budget in runs: chosen beforehand, grown on the way, searched for.

use crate::tiny;
use eckart::data::Batch;
use eckart::io::{hub, peft};
use eckart::lowrank::{AdapterConfig, Lora, adapt, each};
use eckart::module::Path;
use eckart::nn::{Arch, Model};
use eckart::rank::{Bounds, Candidate, Curve, Losses, Rule, Sensitivity, candidates, of_adapters, of_change};
use eckart::train::{Adapter, Budget, Config, Growth, Plan, Ranks, Sample, Search, Searching, Sharing, Size, Trial};
use eckart::train::{look, share_out, subject};
use eckart::{DType, Device, Module, Seed, Tensor};
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::AtomicBool;

/// A model of files that `train` left, and a text.
fn files(folder: &FilePath) -> (PathBuf, PathBuf) {
    let text: String = (0..400).map(|i| format!("{} times {} is {}. ", i % 7, i % 5, (i % 7) * (i % 5))).collect();
    let data = folder.join("text.txt");
    std::fs::write(&data, text).unwrap();
    let config = Config {
        data: Some(data.clone()),
        out: Some(folder.join("base")),
        device: "cpu".into(),
        arch: Arch::Llama,
        steps: 30,
        batch: 4,
        context: 16,
        layers: 2,
        heads: 2,
        width: 16,
        optimizer: Some(eckart::train::Method::Adamw),
        eval_every: 30,
        ..Config::default()
    };
    (tiny::train(&config, false).unwrap().export().unwrap(), data)
}

fn config(folder: &FilePath, name: &str, (model, data): &(PathBuf, PathBuf)) -> Config {
    Config {
        model: Some(model.clone()),
        data: Some(data.clone()),
        out: Some(folder.join(name)),
        device: "cpu".into(),
        steps: 12,
        batch: 2,
        context: 17,
        rank: 2,
        lr: Some(1e-2),
        eval_every: 6,
        save_every: 4,
        report_every: 1,
        ..Config::fine_tuning()
    }
}

fn chosen(config: &Config, budget: Budget, rule: Rule) -> (Vec<Curve>, Ranks) {
    let config = config.resolved().unwrap();
    let subject = subject(&config).unwrap();
    let curves = look(&config, &subject, &Device::cpu(), Sensitivity::Gradient, 8, 3).unwrap().curves;
    let sharing = Sharing { budget, rule, bounds: Bounds { least: 0, most: 8 } };
    let ranks = share_out(&config, &subject, &curves, sharing).unwrap();
    (curves, ranks)
}

#[test]
fn budgets_of_every_kind_are_kept_by_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let base = config(folder.path(), "bytes", &files);
    let (curves, by_count) = chosen(&base, Budget::Parameters(1000), Rule::Greedy);
    let spent: u64 = curves.iter().map(|c| by_count.ranks[&c.path] as u64 * c.cost()).sum();
    assert_eq!(spent, by_count.spent);
    assert!(spent <= 1000 && spent > 900 && by_count.ranks.values().any(|rank| *rank > 1), "{by_count:?}");

    // Sixteen bytes for each parameter under AdamW, as the run's own ledger has them.
    let (_, by_bytes) = chosen(&base, Budget::Bytes(16_000), Rule::Greedy);
    assert_eq!(by_bytes.ranks, by_count.ranks);
    assert_eq!(by_bytes.spent, 16 * spent);
    let trained = tiny::train(&by_bytes.apply(&base), false).unwrap();
    assert_eq!(trained.report.trainable_parameters as u64, spent);
    assert_eq!(trained.report.peak_bytes.optimizer, 8 * spent);
    tiny::assert_as_planned(&trained.report, "bytes");

    // Memory: what a run may hold, to the last rank that fits.
    let resolved = base.resolved().unwrap();
    let subject = subject(&resolved).unwrap();
    let limit = Plan::new(&by_count.apply(&resolved), &subject).unwrap().reserved_bytes;
    for rule in [Rule::Greedy, Rule::ClosedForm(eckart::rank::Tail::Power), Rule::Uniform] {
        let (curves, by_memory) = chosen(&base, Budget::Memory(limit), rule);
        let with = |ranks: &BTreeMap<String, usize>| {
            let ranks = Ranks { ranks: ranks.clone(), ..by_memory.clone() };
            Plan::new(&ranks.apply(&resolved), &subject).unwrap().reserved_bytes
        };
        assert!(by_memory.spent <= limit && with(&by_memory.ranks) == by_memory.spent, "{by_memory:?}");
        for curve in curves.iter().filter(|_| rule != Rule::Uniform) {
            let mut more = by_memory.ranks.clone();
            *more.get_mut(&curve.path).unwrap() += 1;
            assert!(more[&curve.path] > 8 || with(&more) > limit, "{}: one rank more would fit", curve.path);
        }
    }
    let config = Config { memory: Some(Size(limit)), out: Some(folder.path().join("memory")), ..base.clone() };
    tiny::train(&chosen(&base, Budget::Memory(limit), Rule::Greedy).1.apply(&config), false).unwrap();
    let curves = look(&resolved, &subject, &Device::cpu(), Sensitivity::Gradient, 8, 3).unwrap().curves;
    let sharing = Sharing { budget: Budget::Memory(1000), rule: Rule::Greedy, bounds: Bounds::default() };
    let error = share_out(&resolved, &subject, &curves, sharing).unwrap_err().to_string();
    assert!(error.contains("rank 1 everywhere takes so much"), "{error}");
}

/// PEFT's files of what was trained have the ranks, and no adapter where there is none.
#[test]
fn ranks_are_those_of_the_adapter_that_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let base = config(folder.path(), "run", &files);
    let (_, ranks) = chosen(&base, Budget::Parameters(400), Rule::Greedy);
    assert!(ranks.ranks.values().any(|rank| *rank == 0));
    let trained = tiny::train(&ranks.apply(&base), false).unwrap();
    let adapter = trained.export().unwrap();
    let mut model = hub::open(&files.0, None, &Device::cpu()).unwrap();
    peft::open(&adapter).unwrap().put_on(&mut model).unwrap();
    let mut found = BTreeMap::new();
    each::<Lora>(&mut model, |path, map| {
        found.insert(path.to_string(), map.rank());
        assert!((map.scale() - 8.0 / (map.rank() as f64).sqrt()).abs() < 1e-12, "alpha over the root of the rank");
    });
    let expected: BTreeMap<String, usize> = ranks.ranks.into_iter().filter(|(_, rank)| *rank > 0).collect();
    assert_eq!(found, expected);
}

fn growing(folder: &FilePath, name: &str, files: &(PathBuf, PathBuf)) -> Config {
    let growth = Growth { budget: 700, every: Some(3), until: 0.75, batches: 4, ..Growth::default() };
    Config { growth: Some(growth), ..config(folder, name, files) }
}

/// Grown within the budget, from nothing, with exact resume across growths.
#[test]
fn adapters_grow_while_a_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let whole = tiny::train(&growing(folder.path(), "whole", &files), false).unwrap();
    let mut ranks = BTreeMap::new();
    let mut spent = 0;
    each::<Lora>(&mut whole.model.clone(), |path, map| {
        ranks.insert(path.to_string(), map.rank());
        spent += map.rank() * eckart::module::Map::sizes(map).iter().sum::<usize>();
    });
    assert!(spent <= 700 && spent > 600, "{spent}");
    assert!(ranks.values().any(|&rank| rank > 1) && ranks.values().any(|&rank| rank <= 1), "{ranks:?}");
    // A plan counts the budget as if it were spent, and the growth's own passes.
    let report = &whole.report;
    let (planned, found) = (report.planned_peak_bytes.total as f64, report.peak_bytes.total as f64);
    assert!(planned >= found && planned < 1.1 * found, "planned {planned}, took {found}");
    let parts = growing(folder.path(), "parts", &files);
    tiny::same_in_pieces(&growing(folder.path(), "whole", &files), &parts, 2);
    // What is left for PEFT has the ranks that were best on validation.
    let adapter = whole.export().unwrap();
    let mut model = hub::open(&files.0, None, &Device::cpu()).unwrap();
    peft::open(&adapter).unwrap().put_on(&mut model).unwrap();
}

/// A model with the candidate's rank added, and −length · v in its row: −length · u v in the layer's product.
fn moved(model: &Model, candidate: &Candidate, length: f64) -> Model {
    let mut grown = model.clone();
    let mut factor = 0.0;
    each::<Lora>(&mut grown, |path, map| {
        if path == candidate.path {
            map.grow_along(&candidate.column).unwrap();
            factor = length * 3.0_f64.sqrt() / map.scale();
        }
    });
    let name = format!("{}.lora_B", candidate.path);
    grown.visit_mut(&Path::root(), &mut |path, b| {
        if path.to_string() == name {
            let old = b.tensor().detach();
            let rows = old.shape()[0] - 1;
            b.set(Tensor::concat(&[&old.slice(0, 0, rows), &(&candidate.row * -factor)], 0));
        }
    });
    grown
}

/// Of one layer at a time, so that nothing else moves: columns are new directions, slopes and curvatures those of the loss.
#[test]
fn candidates_say_what_steps_along_them_do() {
    let bare = crate::hessian::Problem::new(Arch::Gpt2, 2).model;
    let batch = |first: u32| {
        let ids: Vec<u32> = (0..20).map(|i| (first + 3 * i + i * i) % 7).collect();
        let targets = ids.iter().map(|id| (3 * id + 1) % 7).collect();
        Batch { ids, targets, context: 5, ..Batch::default() }
    };
    let propose = Sample::new(vec![batch(1), batch(2)]);
    let judge = Sample::new(vec![batch(3)]);
    let loss = |model: &Model| judge.loss(model, 0).unwrap().item().unwrap();
    let (mut falling, mut curved) = (0, 0);
    for path in chosen_layers(&bare) {
        let mut model = bare.clone();
        adapt(&mut model, &AdapterConfig { rank: 2, targets: vec![path.clone()], ..AdapterConfig::default() }, Seed(1))
            .unwrap();
        let found = candidates(&model, &propose, &judge, Seed(3)).unwrap();
        let [candidate] = &found[..] else { panic!("{} candidates of one layer", found.len()) };
        let before = loss(&model);
        assert!((loss(&moved(&model, candidate, 0.0)) - before).abs() < 1e-12, "growing changes nothing");
        each::<Lora>(&mut model.clone(), |_, map| {
            let overlap = map.a().tensor().detach().t().matmul(&candidate.column).to_vec::<f64>().unwrap();
            assert!(overlap.iter().all(|x| x.abs() < 1e-9), "{overlap:?}");
        });
        let h = 1e-3;
        let [back, forth] = [-h, h].map(|h| loss(&moved(&model, candidate, h)));
        let (slope, curvature) = ((back - forth) / (2.0 * h), (back - 2.0 * before + forth) / (h * h));
        assert!((slope - candidate.slope).abs() < 1e-5, "{path}: {slope}, not {}", candidate.slope);
        if curvature > 0.01 {
            let found = candidate.curvature;
            assert!((curvature - found).abs() < 1e-4 * curvature.max(1.0), "{path}: {curvature}, not {found}");
            curved += 1;
        }
        assert!(candidate.curvature >= 0.0, "the Gauss-Newton matrix stands in: {candidate:?}");
        if slope > 0.01 {
            assert!(candidate.gain == 0.5 * candidate.slope.powi(2) / candidate.curvature);
            assert!(forth < before, "{path}: the loss falls along it");
            falling += 1;
        } else if candidate.slope <= 0.0 {
            assert_eq!(candidate.gain, 0.0);
        }
    }
    assert!(falling >= 3 && curved >= 3, "{falling} {curved}");
}

fn chosen_layers(model: &Model) -> Vec<String> {
    eckart::lowrank::chosen(&mut model.clone(), &["all-linear"]).unwrap()
}

/// Known updates: what ranks cannot follow of them is the rest of their spectrum.
#[test]
fn known_updates_have_the_gains_of_their_spectra() {
    let before = crate::hessian::Problem::new(Arch::Llama, 1).model;
    let mut adapted = before.clone();
    adapt(&mut adapted, &AdapterConfig { rank: 3, alpha: 6.0, ..AdapterConfig::default() }, Seed(1)).unwrap();
    adapted.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string().ends_with("lora_B") {
            let shape = *parameter.tensor().shape();
            let noise = eckart::module::normal(&shape, 0.1, Seed(2).named(&path.to_string()), &Device::cpu());
            parameter.set(noise.cast(DType::F64));
        }
    });
    let by_adapter = of_adapters(&mut adapted.clone()).unwrap();
    let mut merged = adapted.clone();
    eckart::lowrank::merge(&mut merged, eckart::lowrank::Keep::Nothing, true).unwrap();
    eckart::lowrank::bake(&mut merged);
    let by_change = of_change(&mut before.clone(), &mut merged, &["all-linear"]).unwrap();
    assert_eq!(by_adapter.len(), by_change.len());
    for (a, b) in by_adapter.iter().zip(&by_change) {
        assert_eq!((&a.path, a.gains.len()), (&b.path, 3));
        let all = b.left(0);
        assert!(a.gains.iter().zip(&b.gains).all(|(a, b)| (a - b).abs() < 1e-10 * all), "{a:?} {b:?}");
        assert!(b.left(3) < 1e-12 * all && (a.left(0) - all).abs() < 1e-10 * all);
    }
    let error = of_adapters(&mut before.clone()).unwrap_err().to_string();
    assert!(error.contains("no adapters"), "{error}");
}

#[test]
fn searches_go_on_where_their_table_ends_and_keep_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let base = Config { out: Some(folder.path().join("found")), ..config(folder.path(), "found", &files) };
    let (curves, _) = chosen(&base, Budget::Parameters(700), Rule::Greedy);
    let resolved = base.resolved().unwrap();
    let subject = subject(&resolved).unwrap();
    let sharing = Sharing { budget: Budget::Parameters(700), rule: Rule::Greedy, bounds: Bounds { least: 0, most: 8 } };
    let stop = AtomicBool::new(false);
    let run = |config: &Config, folds: usize, see: &mut dyn FnMut(&Trial)| {
        let search = Search { trials: 4, folds };
        let (curves, subject, stop) = (&curves[..], &subject, &stop);
        Searching { config, subject, curves, sharing, search, stop }.run(see).unwrap()
    };
    let mut trials = Vec::new();
    let best = run(&resolved, 0, &mut |trial| trials.push(trial.clone()));
    assert_eq!(trials.iter().map(|trial| trial.steps).collect::<Vec<_>>(), [4, 4, 4, 4, 12]);
    for trial in &trials {
        let spent: u64 = curves.iter().map(|c| trial.ranks[&c.path] as u64 * c.cost()).sum();
        assert!(spent <= 700 && trial.val_loss.is_finite(), "{trial:?}");
    }
    assert_eq!(best.ranks, trials[4].ranks);
    let first = trials[..4].iter().map(|trial| trial.val_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(trials[trials[4].number].val_loss, first, "the best of the short runs is run whole");

    // Half of the table and a line that was cut off: the same end.
    let table = resolved.out.as_ref().unwrap().join("search/trials.jsonl");
    let text = std::fs::read_to_string(&table).unwrap();
    let half: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    std::fs::write(&table, half + "{\"number\": 2, \"ste").unwrap();
    let mut again = Vec::new();
    run(&resolved, 0, &mut |trial| again.push(trial.clone()));
    assert_eq!(again, trials);
    assert_eq!(std::fs::read_to_string(&table).unwrap(), text);

    // By folds: other losses, from other parts held back.
    let other = Config { out: Some(folder.path().join("folds")), ..resolved.clone() };
    let mut folded = Vec::new();
    run(&other, 2, &mut |trial| folded.push(trial.clone()));
    assert!(folded.len() == 5 && folded[0].val_loss != trials[0].val_loss);
}

#[test]
fn settings_that_cannot_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let base = config(folder.path(), "none", &files);
    let problem = |config: Config| config.resolved().unwrap_err().to_string();
    let growth = Some(Growth { every: Some(0), ..Growth::default() });
    assert!(problem(Config { growth, ..base.clone() }).contains("growth.every is 0"));
    let grows = |growth: Growth| problem(Config { growth: Some(growth), ..base.clone() });
    assert!(grows(Growth::default()).contains("growth.budget: it is 0"));
    let budget = 600;
    assert!(
        grows(Growth { budget, start: 99, ..Growth::default() }).contains("growth.start: it is 99, above the rank")
    );
    assert!(grows(Growth { budget, until: 1.5, ..Growth::default() }).contains("growth.until is 1.5"));
    assert!(grows(Growth { budget, threshold: -1.0, ..Growth::default() }).contains("growth.threshold is -1"));
    assert!(grows(Growth { budget, every: Some(1000), ..Growth::default() }).contains("nothing would ever grow"));
    let growth = Some(Growth { budget, ..Growth::default() });
    let message = problem(Config { growth, adapter: Adapter::Dora, ..base.clone() });
    assert!(message.contains("only adapters without lengths grow"), "{message}");
    assert!(problem(Config { fold: Some([2, 2]), ..base.clone() }).contains("fold: 2 of 2"));
    let unknown = Config { rank_pattern: BTreeMap::from([("q_prog".into(), 3)]), ..base };
    let message = tiny::train(&unknown, false).err().unwrap().to_string();
    assert!(message.contains("no layer \"q_prog\""), "{message}");
}

/// From a look at a model to a run with the ranks found, by each way; what cannot be is one line.
#[cfg(feature = "cli")]
#[test]
fn the_commands_choose_ranks() {
    use crate::cli::fails;
    use crate::finetune::prints;
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = files(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (model, data) = (model.to_str().unwrap().to_string(), data.to_str().unwrap().to_string());
    let about = ["--model", &model, "--data", &data, "--device", "cpu", "--batch", "2", "--max-length", "17"];
    let with = |command: &'static str, more: &[&str]| [&[command][..], &about, more].concat().join(" ");
    let words = |line: String| line.split(' ').map(str::to_string).collect::<Vec<_>>();
    let run = |line: String| prints(&words(line).iter().map(String::as_str).collect::<Vec<_>>());
    let refused = |line: String, text: &str| {
        fails(&words(line).iter().map(String::as_str).collect::<Vec<_>>(), 2, text);
    };
    let (out, svg) = (path("ranks.json"), path("ranks.svg"));
    let table = run(with("allocate", &["--budget", "600", "--min", "0", "--out", &out, "--svg", &svg]));
    assert!(table.contains("model.layers.1.mlp.down_proj") && table.contains("spent of 600 parameters"), "{table}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("down_proj"));
    let ranks: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let pattern = ranks["peft"]["rank_pattern"].as_object().unwrap();
    assert!(pattern.values().all(|rank| rank.as_u64() > Some(0)) && ranks["peft"]["use_rslora"] == true);

    let short = ["--steps", "4", "--rank", "2", "--json"];
    let report = |name: &str, more: &[&str]| -> serde_json::Value {
        let out = path(name);
        let text = run(with("finetune", &[&short[..], &["--out", &out], more].concat()));
        serde_json::from_str(&text).unwrap()
    };
    let by_file = report("by-file", &["--ranks", &out]);
    refused(with("finetune", &["--ranks", &out, "--method", "full"]), "--ranks is for adapters");
    refused(with("finetune", &["--ranks", &out, "--targets", "q_proj"]), "--targets");
    assert_eq!(by_file["trainable_parameters"], ranks["spent"]);
    let at_once = report("at-once", &["--budget", "600", "--min", "0"]);
    assert_eq!(at_once["val_loss"], by_file["val_loss"]);
    let searched = report("searched", &["--budget", "600", "--min", "0", "--search", "2"]);
    assert!(searched["trainable_parameters"].as_u64().unwrap() <= 600);
    let online = report("online", &["--budget", "600", "--min", "0", "--online"]);
    let parameters = |report: &serde_json::Value, name: &str| report[name].as_u64().unwrap();
    let grown = parameters(&online, "trainable_parameters");
    assert!((1..=600).contains(&grown));
    let frozen =
        |report: &serde_json::Value| parameters(report, "parameters") - parameters(report, "trainable_parameters");
    assert_eq!(frozen(&online), frozen(&by_file));
    let resumed = format!("finetune --resume --out {} --budget 500 --online", path("online"));
    refused(resumed, "budget was 600 parameters and is now 500 parameters");
    let out = path("online-in-words");
    let grown = ["--steps", "4", "--rank", "2", "--budget", "600", "--min", "0", "--online", "--out", &out];
    let shown = run(with("finetune", &grown));
    assert!(shown.contains("with AdamW") && FilePath::new(&out).join("adapter").is_dir(), "{shown}");

    // A budget by an adapter's update, and by a fully fine-tuned model's.
    let adapter = format!("adapter:{}", path("by-file/adapter"));
    run(with("allocate", &["--budget", "300", "--min", "0", "--sensitivity", &adapter]));
    report("of-some", &["--targets", "q_proj"]);
    let some = format!("adapter:{}", path("of-some/adapter"));
    let after = report("after-some", &["--budget", "300", "--min", "0", "--sensitivity", &some]);
    assert!((1..=300).contains(&after["trainable_parameters"].as_u64().unwrap()), "layers without curves get nothing");
    let noted = run(with("allocate", &["--budget", "300", "--min", "0", "--sensitivity", &some]));
    assert!(noted.contains("the adapter has no model.layers.0.self_attn.k_proj"), "{noted}");
    let none = ["--budget", "300", "--targets", "up_proj", "--sensitivity", &some];
    refused(with("allocate", &none), "has none of the layers that are meant");
    let most = run(with("allocate", &["--budget", "1M", "--min", "7", "--targets", "q_proj", "--sensitivity", &some]));
    assert!(most.contains("448 parameters spent"), "rank 7 whatever is known of gains: {most}");
    run(with("finetune", &["--steps", "4", "--out", &path("full"), "--method", "full"]));
    let delta = format!("delta:{}", path("full/model"));
    run(with("allocate", &["--budget", "300", "--min", "0", "--sensitivity", &delta, "--rule", "closed-form"]));
    let published = ["--budget", "700", "--rule", "published", "--sensitivity", "gauss-newton"];
    let spends = run(with("allocate", &published));
    assert!(spends.contains("times the budget"), "{spends}");

    let density = path("density.svg");
    let few = ["--sample", "1", "--samples", "8", "--steps", "6", "--probes", "2", "--eigenvalues", "2"];
    let curvature = run(with("curvature", &[&few[..], &["--svg", &density]].concat()));
    assert!(curvature.contains("eigenvalue") && curvature.contains("q_proj"), "{curvature}");
    assert!(std::fs::read_to_string(&density).unwrap().starts_with("<svg"));

    refused(with("allocate", &["--budget", "lots"]), "200k, 8MiB or memory:6GiB");
    refused(with("allocate", &[]), "budget: give one");
    refused(with("allocate", &["--budget", "10"]), "rank 1 everywhere takes");
    refused(with("allocate", &["--budget", "600", "--sensitivity", "taste"]), "none of gradient, hessian");
    refused(with("allocate", &["--budget", "600", "--online"]), "they are for finetune");
    refused(with("allocate", &["--budget", "20", "--min", "0"]), "no rank that wins anything fits into 20");
    refused(with("finetune", &["--budget", "1MiB", "--online"]), "counted in parameters");
    refused(with("finetune", &["--budget", "10", "--online"]), "growth.budget: rank 1 everywhere takes");
    refused(with("finetune", &["--budget", "10", "--online", "--min", "0"]), "growth.budget: no rank fits into 10");
    refused(with("finetune", &["--budget", "600", "--online", "--rule", "uniform"]), "cannot be used with");
    refused(with("finetune", &["--method", "full", "--targets", "q_proj"]), "--targets is for adapters");
    refused(with("finetune", &["--method", "full", "--rank", "4"]), "--rank is for adapters, and for flora");
    refused(with("finetune", &["--method", "flora", "--alpha", "4"]), "--alpha is for adapters");
    refused(with("finetune", &["--lora-plus-ratio", "4"]), "--lora-plus-ratio is for lora+");
    refused(with("finetune", &["--start", "pissa", "--start-batches", "4"]), "--start-batches is for adapters with");
    refused(with("finetune", &["--mlm-probability", "0.4"]), "no tokens are hidden from this model");
    refused(with("finetune", &["--rule", "uniform"]), "--budget");
    refused(with("finetune", &["--budget", "600", "--method", "full"]), "ranks are those of adapters");
    refused(with("finetune", &["--budget", "600", "--method", "dora"]), "give bytes");
    refused(with("finetune", &["--budget", "600", "--min", "0", "--search", "2", "--folds", "1"]), "--folds");
    refused(with("curvature", &["--sample", "0"]), "--sample");
}
