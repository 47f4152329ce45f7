//! Fine-tuning from a folder to a folder: what a run of `train` leaves is what `finetune` begins with, and what that
//! leaves computes what the run reported.

use crate::tiny;
use eckart::Device;
use eckart::data::{Batches, Dataset, Layout, Reading, Tokenizer};
use eckart::io::{hub, peft};
use eckart::lowrank::{Keep, bake, merge};
use eckart::nn::{Arch, Model};
use eckart::ops::quantised::Format;
use eckart::train::{Adapter, Config, Figures, Method, Source, evaluate, subject};
use std::path::{Path, PathBuf};

/// A model that has learnt a little, in Hugging Face's layout.
pub fn base(folder: &Path, arch: Arch) -> PathBuf {
    let config = Config { arch, dropout: 0.0, ..tiny::config(folder, &format!("{arch:?}")) };
    tiny::train(&config, false).unwrap().export().unwrap()
}

/// Prompts and completions of many lengths, some of them longer than a window.
pub fn lessons(folder: &Path) -> PathBuf {
    let path = folder.join("lessons");
    std::fs::create_dir_all(&path).unwrap();
    let text = tiny::text(600);
    let line = |i: usize| {
        let piece = |from: usize, length: usize| text[from % 900..][..length].to_string();
        serde_json::json!({"prompt": piece(i * 7, 3 + i % 5), "completion": piece(i * 7 + 50, 4 + i * i % 37)})
    };
    let file = |range: std::ops::Range<usize>| range.map(|i| line(i).to_string() + "\n").collect::<String>();
    std::fs::write(path.join("train.jsonl"), file(0..23)).unwrap();
    std::fs::write(path.join("valid.jsonl"), file(40..47)).unwrap();
    path
}

pub fn config(folder: &Path, model: &Path, out: &str) -> Config {
    Config {
        model: Some(model.into()),
        data: Some(lessons(folder)),
        out: Some(folder.join(out)),
        steps: 6,
        batch: 3,
        context: 32,
        rank: 4,
        lr: Some(3e-3),
        report_every: 2,
        eval_every: 3,
        save_every: 3,
        ..Config::fine_tuning()
    }
}

/// Loss of what was held back, by a model opened anew.
pub fn held_back(config: &Config, model: &Model) -> f64 {
    let tokenizer = Tokenizer::open(config.model.as_ref().unwrap()).unwrap();
    let reading = Reading { max_length: config.context.min(16), mask_prompt: config.mask_prompt };
    let set = Dataset::open(config.data.as_ref().unwrap(), &tokenizer, reading).unwrap();
    let batches = Batches::new(set.validation.examples, 2, reading.max_length, Layout::Padded);
    evaluate(model, batches.validation(2)).unwrap().unwrap().loss
}

#[test]
fn every_method_leaves_what_it_reported() {
    let folder = tempfile::tempdir().unwrap();
    let set = |adapter, optimizer| move |config: &mut Config| (config.adapter, config.optimizer) = (adapter, optimizer);
    type Set = Box<dyn Fn(&mut Config)>;
    let ways: [(&str, Set); 6] = [
        ("lora", Box::new(set(Adapter::Lora, None))),
        ("lora+", Box::new(|config| (config.adapter, config.lr) = (Adapter::LoraPlus, Some(5e-4)))),
        ("dora", Box::new(set(Adapter::Dora, None))),
        ("flora", Box::new(set(Adapter::None, Some(Method::Flora)))),
        ("full", Box::new(set(Adapter::None, Some(Method::Adamw)))),
        ("packed", Box::new(|config| (config.pack, config.lr) = (true, Some(1e-2)))),
    ];
    for arch in [Arch::Gpt2, Arch::Llama] {
        let model = base(folder.path(), arch);
        for (name, set) in &ways {
            let mut config = config(folder.path(), &model, &format!("{arch:?} {name}"));
            config.mask_prompt = *name == "dora";
            set(&mut config);
            let trained = tiny::train(&config, false).unwrap();
            let losses: Vec<f64> = trained.history.iter().filter_map(|line| line.val_loss).collect();
            let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
            tiny::assert_as_planned(&trained.report, name);
            let before = held_back(&config, &hub::open(&model, None, &Device::cpu()).unwrap());
            assert!(best < before - 1e-3, "{arch:?} {name}: {best} after {before}");
            let out = trained.export().unwrap();
            let opened = if config.adapter == Adapter::None {
                hub::open(&out, None, &Device::cpu()).unwrap()
            } else {
                let mut opened = hub::open(&model, None, &Device::cpu()).unwrap();
                peft::open(&out).unwrap().put_on(&mut opened).unwrap();
                let beside = held_back(&config, &opened);
                assert!((beside - best).abs() < 1e-5, "{arch:?} {name}: {beside} beside its base, reported {best}");
                merge(&mut opened, Keep::Nothing, true).unwrap();
                bake(&mut opened);
                opened
            };
            let again = held_back(&config, &opened);
            assert!((again - best).abs() < 1e-5, "{arch:?} {name}: {again} opened again, reported {best}");
        }
    }
}

#[test]
fn frozen_weights_in_fewer_bits_train_adapters_as_planned() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Llama);
    let mut weights = Vec::new();
    for format in [None, Some(Format::BF16), Some(Format::Int8), Some(Format::Nf4)] {
        let config = Config { base: format, ..config(folder.path(), &model, &format!("{format:?}")) };
        let trained = tiny::train(&config, false).unwrap();
        tiny::assert_as_planned(&trained.report, &format!("{format:?}"));
        let losses: Vec<f64> = trained.history.iter().filter_map(|line| line.val_loss).collect();
        assert!(losses[1] < losses[0], "{format:?}: {losses:?}");
        weights.push(trained.report.peak_bytes.weights);
        let out = trained.export().unwrap();
        assert!(peft::open(&out).unwrap().check(None).is_empty());
    }
    assert!(weights.is_sorted_by(|a, b| a > b), "{weights:?}");
    let whole = Config { base: Some(Format::Nf4), adapter: Adapter::None, ..config(folder.path(), &model, "whole") };
    assert!(tiny::train(&whole, false).map(drop).unwrap_err().to_string().contains("base: fewer bits"));
}

#[test]
fn a_run_resumes_inside_epochs_and_accumulation_with_dropout() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    for pack in [false, true] {
        let run = |out: &str| Config {
            accumulate: 3,
            adapter_dropout: 0.3,
            dropout: 0.1,
            pack,
            ..config(folder.path(), &model, &format!("{out} {pack}"))
        };
        let (whole, pieces) = (run("whole"), run("pieces"));
        tiny::train(&whole, false).unwrap();
        tiny::same_in_pieces(&whole, &pieces, 4);
    }
}

/// The model's own dropout too, though its files say none.
#[test]
fn dropout_changes_what_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Llama);
    let loss = |name: &str, dropout, adapter_dropout| {
        let config = Config { dropout, adapter_dropout, steps: 2, ..config(folder.path(), &model, name) };
        tiny::train(&config, false).unwrap().history[0].loss.unwrap()
    };
    let [none, own, beside] = [loss("none", 0.0, 0.0), loss("own", 0.5, 0.0), loss("beside", 0.0, 0.5)];
    assert!((none - own).abs() > 1e-3 && none != beside, "{none}, {own}, {beside}");
}

/// Micro-batches weigh as many tokens as they have that count.
#[test]
fn shares_are_by_tokens_that_count() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    let config = Config { accumulate: 4, mask_prompt: true, ..config(folder.path(), &model, "") };
    let config = config.resolved().unwrap();
    let subject = subject(&config).unwrap();
    let source: &dyn Source = &*subject.source;
    for step in 0..5 {
        let counted: Vec<usize> = (0..4).map(|m| source.batch(&config, step, m).counted()).collect();
        let all = counted.iter().sum::<usize>() as f64;
        for (m, counted) in counted.iter().enumerate() {
            let share = source.share(&config, step, m as u64);
            assert!((share - *counted as f64 / all).abs() < 1e-12, "step {step}, micro-batch {m}: {share}");
        }
        assert!(counted.iter().any(|&other| other != counted[0]), "step {step} tells nothing");
    }
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_learns_what_the_host_learns() {
    if crate::gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Llama);
    let losses = |device: String| {
        let out = format!("on {device}");
        let config = Config { device, accumulate: 2, report_every: 1, ..config(folder.path(), &model, &out) };
        let trained = tiny::train(&config, false).unwrap();
        let losses: Vec<f64> = trained.history.iter().filter_map(|line| line.loss).collect();
        trained.export().unwrap();
        losses
    };
    let (here, there) = (losses("cpu".into()), losses(crate::gpu::name()));
    assert_eq!(here.len(), 6);
    let worst = here.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 2e-4, "{here:?} and {there:?}");
}

#[test]
fn what_cannot_work_is_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    let usual = config(folder.path(), &model, "refused");
    let message = |config: Config| tiny::train(&config, false).map(drop).unwrap_err().to_string();
    let targets = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<String>>();
    let found = message(Config { adapter_targets: targets(&["q_proj"]), ..usual.clone() });
    assert!(found.contains("q_proj") && found.contains("c_attn"), "{found}");
    let found = message(Config { rank: 17, ..usual.clone() });
    assert!(found.contains("rank 17"), "{found}");
    let found = message(Config { data: None, ..usual.clone() });
    assert!(found.contains("data:"), "{found}");
    let found = message(Config { model: Some(folder.path().join("nowhere")), ..usual.clone() });
    assert!(found.contains("nowhere"), "{found}");
    assert!(!folder.path().join("refused").exists());
    tiny::train(&usual, false).unwrap();
    let longer = Config { steps: 6, ..usual.clone() };
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let found = tiny::train(&longer, true).map(drop).unwrap_err().to_string();
    assert!(found.contains("model: its files are not those"), "{found}");
}

#[test]
fn patience_ends_a_run_that_learns_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    // So large a rate does harm, so that the first validation stays the best.
    let config = Config {
        steps: 40,
        lr: Some(3.0),
        eval_every: 1,
        clip: 0.0,
        patience: Some(2),
        ..config(folder.path(), &model, "impatient")
    };
    let trained = tiny::train(&config, false).unwrap();
    assert!(trained.report.steps < 40, "it went on to the end");
    let losses: Vec<f64> = trained.history.iter().filter_map(|line| line.val_loss).collect();
    let (best, last) = (losses.iter().copied().fold(f64::INFINITY, f64::min), &losses[losses.len() - 2..]);
    assert!(last.iter().all(|loss| *loss >= best), "{losses:?}");
    let model = trained.export().unwrap();
    assert!(model.ends_with("adapter"));
}

/// The command's figures for a model and a text that are public: ECKART_DATA/stories260k on tinyshakespeare's end.
#[test]
fn a_published_model_makes_of_shakespeare_what_it_should() {
    let (Some(model), Some(text)) =
        (crate::shared::file("stories260k"), crate::shared::file("tinyshakespeare/input.txt"))
    else {
        return;
    };
    let tokenizer = Tokenizer::open(&model).unwrap();
    let text = std::fs::read(text).unwrap();
    let text = std::str::from_utf8(&text[text.len() - 6000..]).unwrap();
    let windows = eckart::data::windows(&tokenizer.encode(text).unwrap(), tokenizer.begins(), 256);
    let batches = Batches::new(windows, 4, 256, Layout::Padded);
    let model = hub::open(&model, Some(256), &Device::cpu()).unwrap();
    let found = evaluate(&model, batches.validation(4)).unwrap().unwrap();
    assert!(matches!(found.figures, Figures::Tokens { tokens: 3858, .. }), "{found:?}");
    assert!((found.loss - 5.16258).abs() < 1e-4, "{}", found.loss);
}

/// What a command prints; it must not fail.
#[cfg(feature = "cli")]
pub fn prints(args: &[&str]) -> String {
    let output = crate::cli::eckart(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", crate::cli::stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// From a model of `train` by `finetune` to an adapter, looked into, evaluated, merged and made to write.
#[cfg(feature = "cli")]
#[test]
fn the_commands_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (model, data, out) = (model.to_str().unwrap().to_string(), lessons(folder.path()), path("run"));
    let data = data.to_str().unwrap();
    let file = path("theirs.yaml");
    std::fs::write(&file, "iters: 6\nbatch_size: 3\nlora_parameters: {rank: 4, scale: 2.0, keys: [c_attn, c_proj]}\n")
        .unwrap();
    let fixed = ["finetune", "--model", &model, "--data", data, "--out", &out, "--config", &file, "--lr", "3e-3"];
    let report = prints(&[&fixed[..], &["--eval-every", "3", "--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((report["steps"].as_u64(), report["config"]["alpha"].as_f64()), (Some(6), Some(8.0)));
    let adapter = path("run/adapter");
    let shown = prints(&["adapter", "show", &adapter]);
    assert!(shown.contains("transformer.h.0.attn.c_attn") && !shown.contains("c_fc"), "{shown}");
    assert!(prints(&["adapter", "check", &adapter, "--model", &model]).starts_with("nothing is wrong"));
    let small = path("small");
    assert!(prints(&["adapter", "shrink", &adapter, "--rank", "2", "--out", &small]).contains("transformer.h.1"));
    let loss = |args: &[&str]| {
        let found =
            prints(&[&["eval", "--data", data, "--max-length", "16", "--json", "--device", "cpu"], args].concat());
        serde_json::from_str::<serde_json::Value>(&found).unwrap()["loss"].as_f64().unwrap()
    };
    let (before, after) = (loss(&["--model", &model]), loss(&["--model", &model, "--adapter", &adapter]));
    assert!(after < before, "{after} after {before}");
    let shrunk = loss(&["--model", &model, "--adapter", &small]);
    assert!(after < shrunk + 1e-3 && shrunk < before, "{shrunk} between {after} and {before}");
    let clamped = prints(&["eval", "--data", data, "--model", &model, "--json", "--device", "cpu"]);
    let clamped: serde_json::Value = serde_json::from_str(&clamped).unwrap();
    assert_eq!(clamped["loss"].as_f64(), Some(before), "longer windows than the model has are as long as it has");
    let fewer = path("fewer");
    let said =
        prints(&["finetune", "--model", &model, "--data", data, "--out", &fewer, "--base", "nf4", "--steps", "1"]);
    assert!(said.contains("validation loss"), "{said}");
    let merged = path("merged");
    prints(&["merge", "--model", &model, "--adapter", &adapter, "--out", &merged]);
    assert!((loss(&["--model", &merged]) - after).abs() < 1e-5);
    let write = |args: &[&str]| {
        prints(&[&["generate", "--prompt", "the ", "--tokens", "9", "--temperature", "0"], args].concat())
    };
    let written = write(&["--model", &merged]);
    assert!(written.starts_with("the ") && written.trim_end().len() > 4, "{written:?}");
    assert_eq!(written, write(&["--model", &model, "--adapter", &adapter]));
    assert_eq!(written, write(&["--checkpoint", &out]));
}
