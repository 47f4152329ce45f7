//! Classification from a table to a folder: what a run leaves computes what it reported, for other programs too.

use crate::tiny;
use eckart::data::Tokenizer;
use eckart::io::{hub, peft};
use eckart::lowrank::{Keep, bake, merge};
use eckart::nn::{Arch, Model, ModelConfig};
use eckart::ops::quantised::Format;
use eckart::train::{Adapter, Config, Evaluation, Method, Questions, Source, Task, evaluate, subject};
use eckart::{Device, Error, Seed};
use std::path::{Path, PathBuf};

/// A model that has learnt next to nothing, in Hugging Face's layout.
fn base(folder: &Path, arch: Arch) -> PathBuf {
    let config = Config { arch, dropout: 0.0, context: 64, ..tiny::config(folder, &format!("{arch:?}")) };
    tiny::train(&config, false).unwrap().export().unwrap()
}

/// A text of up to `most` words, all of one half of them or all of the other, and which of both.
fn line(i: usize, most: usize) -> (String, &'static str) {
    let words = [["the", "of", "a", "matrix"], ["is", "its", "number", "and"]];
    let draw = |j: usize| Seed(8).fold(i as u64).block(j as u64)[0] as usize;
    let half = draw(0) % 2;
    let text: Vec<&str> = (0..1 + draw(1) % most).map(|j| words[half][draw(j + 2) % 4]).collect();
    (text.join(" "), ["first", "second"][half])
}

/// A folder with tables of such texts, of up to `most` words.
fn tables(folder: &Path, most: usize) -> PathBuf {
    let path = folder.join("tables");
    std::fs::create_dir_all(&path).unwrap();
    let table = |range: std::ops::Range<usize>| {
        let row = |(text, label): (String, &str)| format!("{text}\t{label}\n");
        String::from("sentence\tlabel\n") + &range.map(|i| row(line(i, most))).collect::<String>()
    };
    std::fs::write(path.join("train.tsv"), table(0..400)).unwrap();
    std::fs::write(path.join("dev.tsv"), table(1000..1100)).unwrap();
    path
}

fn config(folder: &Path, model: &Path, out: &str) -> Config {
    Config {
        model: Some(model.into()),
        data: Some(tables(folder, 9)),
        out: Some(folder.join(out)),
        task: Task::Classify,
        steps: 6,
        batch: 5,
        context: 64,
        rank: 4,
        lr: Some(5e-3),
        report_every: 2,
        eval_every: 3,
        save_every: 3,
        ..Config::fine_tuning()
    }
}

/// What a model opened anew makes of the tables.
fn held_back(config: &Config, model: &Model) -> Evaluation {
    let tokenizer = Tokenizer::open(config.model.as_ref().unwrap()).unwrap();
    let questions = Questions { mask_prompt: false, columns: None, batch: 7, mlm_probability: None, seed: 9 };
    let sizes = ModelConfig { context: config.context, ..model.config().clone() };
    let exam = questions.read(config.data.as_ref().unwrap(), &tokenizer, &sizes).unwrap();
    evaluate(model, exam.batches.into_iter()).unwrap().unwrap()
}

/// The base with what a run left put on it.
fn adapted(base: &Path, adapter: &Path) -> Model {
    let adapter = peft::open(adapter).unwrap();
    let config = ModelConfig { labels: adapter.classes(None), ..hub::read_config(base, 64).unwrap() };
    let (mut model, _) = hub::load_with_head(base, &config, Seed(0), &Device::cpu()).unwrap();
    adapter.put_on(&mut model).unwrap();
    model
}

#[test]
fn tiny_models_learn_to_tell_texts_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (arch, adapter, lr) in
        [(Arch::Bert, Adapter::Lora, 5e-3), (Arch::Roberta, Adapter::None, 3e-3), (Arch::Llama, Adapter::Lora, 5e-3)]
    {
        let model = base(folder.path(), arch);
        let usual = config(folder.path(), &model, &format!("{arch:?} learns"));
        let data = Some(tables(folder.path(), 4));
        let usual = Config { data, adapter, optimizer: Some(Method::Adamw), rank: 8, steps: 150, batch: 16, ..usual };
        let report = tiny::train(&Config { lr: Some(lr), eval_every: 75, ..usual }, false).unwrap().report;
        let accuracy = report.val_accuracy.unwrap();
        assert!(accuracy >= 0.97, "{arch:?}: {accuracy}");
        assert!(report.val_perplexity.is_none());
        tiny::assert_as_planned(&report, &format!("{arch:?}"));
    }
}

#[test]
fn every_method_leaves_what_it_reported() {
    let folder = tempfile::tempdir().unwrap();
    type Set = Box<dyn Fn(&mut Config)>;
    let set = |adapter, optimizer| move |config: &mut Config| (config.adapter, config.optimizer) = (adapter, optimizer);
    let ways: [(&str, Set); 6] = [
        ("lora", Box::new(set(Adapter::Lora, None))),
        ("lora+", Box::new(|config| (config.adapter, config.lr) = (Adapter::LoraPlus, Some(5e-4)))),
        ("dora", Box::new(set(Adapter::Dora, None))),
        ("galore", Box::new(set(Adapter::None, Some(Method::Galore)))),
        ("full", Box::new(set(Adapter::None, Some(Method::Adamw)))),
        ("nf4", Box::new(|config| config.base = Some(Format::Nf4))),
    ];
    for arch in [Arch::Bert, Arch::Roberta, Arch::Gpt2] {
        let model = base(folder.path(), arch);
        for (name, set) in &ways {
            // No longer than what every batch is filled up to, so that each takes what is planned.
            let mut config = Config { context: 32, ..config(folder.path(), &model, &format!("{arch:?} {name}")) };
            set(&mut config);
            let trained = tiny::train(&config, false).unwrap();
            tiny::assert_as_planned(&trained.report, name);
            let losses: Vec<f64> = trained.history.iter().filter_map(|line| line.val_loss).collect();
            let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
            let out = trained.export().unwrap();
            if config.base.is_some() {
                assert!(peft::open(&out).unwrap().classes(None).is_some());
                continue;
            }
            let opened = if config.adapter == Adapter::None {
                hub::open(&out, None, &Device::cpu()).unwrap()
            } else {
                let mut opened = adapted(&model, &out);
                let beside = held_back(&config, &opened).loss;
                assert!((beside - best).abs() < 1e-5, "{arch:?} {name}: {beside} beside its base, reported {best}");
                merge(&mut opened, Keep::Nothing, true).unwrap();
                bake(&mut opened);
                opened
            };
            let mut labels = opened.config().labels.clone().unwrap();
            labels.sort();
            assert_eq!(labels, ["first", "second"], "{arch:?} {name}");
            let again = held_back(&config, &opened).loss;
            assert!((again - best).abs() < 1e-5, "{arch:?} {name}: {again} opened again, reported {best}");
        }
    }
}

/// The head, and a pooler that the files lack, train beside adapters and are left with them.
#[test]
fn what_files_lack_is_new_and_goes_with_the_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let new = |arch| {
        let model = base(folder.path(), arch);
        let config = config(folder.path(), &model, &format!("{arch:?} new"));
        let notes = subject(&config.resolved().unwrap()).unwrap().notes;
        let trained = tiny::train(&Config { steps: 2, ..config }, false).unwrap();
        (notes, peft::open(&trained.export().unwrap()).unwrap())
    };
    let (notes, adapter) = new(Arch::Bert);
    let label = if line(0, 9).1 == "first" { "first, second" } else { "second, first" };
    assert_eq!(
        notes,
        [
            format!("400 texts of 2 classes ({label}), 100 for validation"),
            "new in this model: pooler.dense.weight, pooler.dense.bias, classifier.weight, classifier.bias".into()
        ]
    );
    assert_eq!(adapter.config.whole, ["bert.pooler.dense", "classifier"]);
    assert_eq!(adapter.config.task_type.as_deref(), Some("SEQ_CLS"));
    assert!(!adapter.tensors.keys().any(|name| name.contains("pooler.dense.lora")));
    assert_eq!(adapter.labels.as_ref().map(Vec::len), Some(2));
    assert_eq!(new(Arch::Roberta).1.config.whole, ["classifier"]);
    assert_eq!(new(Arch::Llama).1.config.whole, ["score"]);
}

#[test]
fn a_run_resumes_inside_epochs_and_accumulation_with_dropout() {
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Bert, Arch::Gpt2] {
        let model = base(folder.path(), arch);
        let run = |out: &str| Config {
            accumulate: 3,
            adapter_dropout: 0.3,
            dropout: 0.1,
            batch: 13,
            ..config(folder.path(), &model, &format!("{arch:?} {out}"))
        };
        let (whole, pieces) = (run("whole"), run("pieces"));
        tiny::train(&whole, false).unwrap();
        tiny::same_in_pieces(&whole, &pieces, 4);
    }
}

#[test]
fn shares_are_by_texts() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Bert);
    // Two epochs' ends lie among these: a batch of 4 texts.
    let config = Config { accumulate: 4, batch: 12, ..config(folder.path(), &model, "") }.resolved().unwrap();
    let subject = subject(&config).unwrap();
    let source: &dyn Source = &*subject.source;
    for step in 0..17 {
        let counted: Vec<usize> = (0..4).map(|m| source.batch(&config, step, m).counted()).collect();
        let all = counted.iter().sum::<usize>() as f64;
        for (m, counted) in counted.iter().enumerate() {
            let share = source.share(&config, step, m as u64);
            assert!((share - *counted as f64 / all).abs() < 1e-12, "step {step}, micro-batch {m}: {share}");
        }
    }
    assert!((0..17).any(|step| source.share(&config, step, 0) != 0.25 || source.share(&config, step, 1) != 0.25));
}

/// The second text of a pair says which class it is, the first nothing.
#[test]
fn pairs_are_told_apart_by_segments() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Bert);
    let path = folder.path().join("pairs.csv");
    let row = |i: usize| {
        let ((first, _), (second, label)) = (line(2 * i, 4), line(2 * i + 1, 4));
        format!("{i},\"{first}\",{second},{label}\n")
    };
    let rows: String = (0..330).map(row).collect();
    std::fs::write(&path, String::from("index,question,sentence,label\n") + &rows).unwrap();
    let usual = config(folder.path(), &model, "pairs");
    let pairs = Config { data: Some(path), adapter: Adapter::None, optimizer: Some(Method::Adamw), ..usual };
    let subject = subject(&pairs.resolved().unwrap()).unwrap();
    assert!(
        subject.notes[0].starts_with("297 texts of 2 classes") && subject.notes[0].ends_with("the last 33 held back")
    );
    let batch = subject.source.batch(&pairs, 0, 0);
    let segments = batch.segments.unwrap();
    assert!(segments.chunks(batch.context).all(|row| row.contains(&1) && row[0] == 0));
    let learning = Config { steps: 200, batch: 16, lr: Some(4e-3), eval_every: 100, ..pairs };
    let report = tiny::train(&learning, false).unwrap().report;
    assert!(report.val_accuracy.unwrap() >= 0.9, "{:?}", report.val_accuracy);
}

#[test]
fn lines_of_json_are_a_table_too() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Bert);
    let path = folder.path().join("texts.jsonl");
    let row = |i: usize| serde_json::json!({"id": i, "text": line(i, 9).0, "label": i % 3}).to_string() + "\n";
    std::fs::write(&path, (0..40).map(row).collect::<String>()).unwrap();
    let config = Config { data: Some(path), ..config(folder.path(), &model, "json") };
    let found = subject(&config.resolved().unwrap()).unwrap();
    assert_eq!(found.names.labels.unwrap(), ["0", "1", "2"]);
    assert!(found.notes[0].starts_with("36 texts of 3 classes (0, 1, 2), the last 4 held back"), "{:?}", found.notes);
}

#[test]
fn what_cannot_work_is_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Bert);
    let usual = config(folder.path(), &model, "refused");
    let message = |config: Config| tiny::train(&config, false).map(drop).unwrap_err().to_string();
    let fails = |config: Config, words: &str| {
        let found = message(config);
        assert!(found.contains(words), "{found}");
    };
    fails(Config { pack: true, ..usual.clone() }, "pack: a text to classify");
    fails(Config { mask_prompt: true, ..usual.clone() }, "mask_prompt: there is no prompt");
    let lm = Config { task: Task::Lm, data: Some(tiny::text_file(folder.path())), ..usual.clone() };
    fails(Config { pack: true, ..lm.clone() }, "pack: an encoder learns by hidden tokens");
    fails(Config { mask_prompt: true, ..lm.clone() }, "mask_prompt: an encoder");
    fails(Config { tokenizer: Some(model.clone()), ..lm }, "tokenizer: a model of files has its own");
    let columns = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    fails(
        Config { columns: columns(&["text", "label"]), ..usual.clone() },
        "has no column \"text\"; it has sentence, label",
    );
    fails(Config { columns: columns(&["label"]), ..usual.clone() }, "columns: give text,label or text,text,label");
    fails(
        Config { adapter_targets: vec!["classifier".into()], ..usual.clone() },
        "name only what is trained as a whole",
    );
    let path = folder.path().join("bare.tsv");
    std::fs::write(&path, "one\t0\ntwo\t1\n").unwrap();
    fails(Config { data: Some(path.clone()), ..usual.clone() }, "has no columns with usual names");
    std::fs::write(&path, "sentence\tlabel\na\t0\na\t0\na\t0\n").unwrap();
    fails(Config { data: Some(path), ..usual.clone() }, "1 labels: a classifier needs at least 2");
    let path = folder.path().join("empty.tsv");
    std::fs::write(&path, "sentence\tlabel\na\t0\n\t1\na\t1\n").unwrap();
    let gpt2 = base(folder.path(), Arch::Gpt2);
    fails(Config { model: Some(gpt2), data: Some(path), ..usual.clone() }, "line 3: has an empty text");
    let limited = Config { memory: Some("20kB".parse().unwrap()), ..usual.clone() };
    let error = tiny::train(&limited, false).map(drop).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    assert!(!folder.path().join("refused").exists());
    // A model that classifies keeps its classes.
    let trained = tiny::train(&Config { adapter: Adapter::None, lr: Some(1e-4), ..usual.clone() }, false).unwrap();
    let again = Config { model: Some(trained.export().unwrap()), out: Some(folder.path().join("again")), ..usual };
    tiny::train(&again, false).unwrap();
    let path = folder.path().join("others.tsv");
    std::fs::write(&path, "sentence\tlabel\na\tfirst\na\tnowhere\n").unwrap();
    fails(
        Config { data: Some(path), out: Some(folder.path().join("others")), ..again },
        "line 3: the label is \"nowhere\"",
    );
}

/// Ranks are chosen for classifiers as for any model, the head left alone, and adapters grow beside it.
#[test]
fn ranks_are_shared_out_beside_a_head() {
    use eckart::rank::{Bounds, Rule, Sensitivity};
    use eckart::train::{Budget, Growth, Sharing, look, share_out};
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Roberta, Arch::Gpt2] {
        let model = base(folder.path(), arch);
        let config = config(folder.path(), &model, &format!("{arch:?}")).resolved().unwrap();
        let subject = subject(&config).unwrap();
        let bounds = Bounds { least: 0, most: 8 };
        let head = |path: &str| path.contains("classifier") || path.contains("score");
        for kind in ["gradient", "hessian", "gauss-newton", "data", "kronecker"] {
            let kind: Sensitivity = serde_json::from_value(kind.into()).unwrap();
            let curves = look(&config, &subject, &Device::cpu(), kind, 8, 2).unwrap().curves;
            assert!(curves.len() >= 8 && !curves.iter().any(|curve| head(&curve.path)), "{arch:?} {kind:?}");
            assert!(curves.iter().any(|curve| curve.gains[0] > 0.0), "{arch:?} {kind:?}");
            let sharing = Sharing { budget: Budget::Parameters(900), rule: Rule::Greedy, bounds };
            let ranks = share_out(&config, &subject, &curves, sharing).unwrap();
            assert!(ranks.spent <= 900 && ranks.spent > 500, "{arch:?} {kind:?}: {}", ranks.spent);
        }
        let curves = look(&config, &subject, &Device::cpu(), Sensitivity::Gradient, 8, 2).unwrap().curves;
        let sharing = Sharing { budget: Budget::Bytes(16 << 10), rule: Rule::Greedy, bounds };
        let ranks = share_out(&config, &subject, &curves, sharing).unwrap();
        let adapters: u64 = curves.iter().map(|curve| ranks.ranks[&curve.path] as u64 * curve.cost()).sum();
        // A number, its gradient, and two moments; the head's are not in the budget.
        assert!(ranks.spent <= 16 << 10 && ranks.spent >= 16 * adapters && adapters > 600, "{ranks:?}");
        let growth = Some(Growth { budget: 900, batches: 2, every: Some(1), ..Growth::default() });
        let growing = Config { growth, out: Some(folder.path().join(format!("{arch:?} grown"))), ..config.clone() };
        let trained = tiny::train(&growing, false).unwrap();
        let [planned, found] = [trained.report.planned_peak_bytes, trained.report.peak_bytes].map(|bytes| bytes.total);
        assert!(planned >= found, "{arch:?}: planned {planned}, took {found}");
        let adapter = peft::open(&trained.export().unwrap()).unwrap();
        assert!(adapter.classes(None).is_some() && adapter.parameters().unwrap() <= 900);
        // Each part held back in turn, of texts with labels too.
        let parts = [0, 1].map(|fold| {
            let out = Some(folder.path().join(format!("{arch:?} {fold}")));
            tiny::train(&Config { fold: Some([fold, 2]), out, ..config.clone() }, false).unwrap().report.val_loss
        });
        assert_ne!(parts[0], parts[1]);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_learns_what_the_host_learns() {
    if crate::gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Bert, Arch::Llama] {
        let model = base(folder.path(), arch);
        let losses = |device: String| {
            let out = format!("{arch:?} on {device}");
            let usual = config(folder.path(), &model, &out);
            let config = Config { device, report_every: 1, dropout: 0.1, context: 32, ..usual };
            let trained = tiny::train(&config, false).unwrap();
            tiny::assert_as_planned(&trained.report, &out);
            let losses = trained.history.iter().flat_map(|line| [line.loss, line.val_loss]).flatten();
            losses.collect::<Vec<f64>>()
        };
        let (here, there) = (losses("cpu".into()), losses(crate::gpu::name()));
        assert_eq!((here.len(), there.len()), (8, 8));
        let worst = here.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-4, "{arch:?}: {here:?} and {there:?}");
    }
}

/// From an encoder of `train` by `finetune` to a classifier: evaluated beside its base and merged, the same figures.
#[cfg(feature = "cli")]
#[test]
fn the_commands_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = crate::cli::eckart(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", crate::cli::stderr(&output));
        (String::from_utf8(output.stdout.clone()).unwrap(), crate::cli::stderr(&output))
    };
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (text, data) = (tiny::text_file(folder.path()), tables(folder.path(), 9));
    let (text, data) = (text.to_str().unwrap(), data.to_str().unwrap());
    let (first, second) = (path("bert"), path("classes"));
    let sizes = ["--context", "64", "--layers", "2", "--heads", "2", "--width", "16", "--steps", "5", "--batch", "3"];
    let (said, _) = run(&[&["train", "--arch", "bert", "--data", text, "--out", &first][..], &sizes].concat());
    assert!(said.contains("validation loss") && !said.contains("sample:"), "{said}");
    let (model, adapter, merged) = (path("bert/model"), path("classes/adapter"), path("merged"));
    let fixed = ["finetune", "--task", "classify", "--model", &model, "--data", data, "--out", &second];
    let (report, notes) = run(&[&fixed[..], &["--steps", "9", "--lr", "0.01", "--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["val_accuracy"].is_number() && notes.contains("new in this model: pooler.dense.weight"), "{notes}");
    let eval = |args: &[&str]| {
        let (found, _) = run(&[&["eval", "--data", data, "--json", "--device", "cpu"], args].concat());
        serde_json::from_str::<serde_json::Value>(&found).unwrap()
    };
    let beside = eval(&["--model", &model, "--adapter", &adapter, "--columns", "sentence,label"]);
    assert!((beside["loss"].as_f64().unwrap() - report["val_loss"].as_f64().unwrap()).abs() < 1e-5);
    assert_eq!((beside["accuracy"].clone(), beside["examples"].as_u64()), (report["val_accuracy"].clone(), Some(100)));
    assert!(run(&["adapter", "check", &adapter, "--model", &model]).0.starts_with("nothing is wrong"));
    run(&["merge", "--model", &model, "--adapter", &adapter, "--out", &merged]);
    let whole = eval(&["--model", &merged]);
    for figure in ["loss", "accuracy", "f1", "matthews"] {
        let [a, b] = [&beside, &whole].map(|found| found[figure].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{figure}: {a} and {b}");
    }
    let words = run(&["eval", "--data", data, "--model", &merged, "--device", "cpu"]).0;
    assert!(words.contains("nats a text, accuracy") && words.contains("F1 of "), "{words}");
    for args in [&["--model", &merged][..], &["--model", &model], &["--checkpoint", &first], &["--checkpoint", &second]]
    {
        let output = crate::cli::eckart(&[&["generate", "--prompt", "the "], args].concat()).output().unwrap();
        let said = crate::cli::stderr(&output);
        assert!(
            output.status.code() == Some(2) && said.contains("writes no text") && said.lines().count() == 1,
            "{said}"
        );
    }
    // Without the adapter there is no classifier.
    let output =
        crate::cli::eckart(&["eval", "--model", &model, "--data", data, "--columns", "sentence,label"]).output();
    assert!(crate::cli::stderr(&output.unwrap()).contains("columns: this model is no classifier"));
}
