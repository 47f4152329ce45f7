//! Adapters by name: each prompt and each line of a data set has its own, in one batch.

use crate::cli::{eckart, stderr};
use crate::finetune::{base, config, prints};
use crate::tiny;
use eckart::nn::Arch;
use eckart::train::Config;
use serde_json::{Value, json};
use std::path::Path;

/// What a command says when it refuses to run.
fn refused(args: &[&str]) -> String {
    let output = eckart(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    stderr(&output)
}

/// A model, and two adapters of different ranks and layers that have learnt different things.
fn adapters(folder: &Path) -> [String; 3] {
    let model = base(folder, Arch::Llama);
    let adapter = |name: &str, rank, targets: &str, seed| {
        let usual = config(folder, &model, name);
        let targets = vec![targets.to_string()];
        let config = Config { rank, adapter_targets: targets, seed, lr: Some(2e-2), steps: 8, ..usual };
        tiny::train(&config, false).unwrap().export().unwrap()
    };
    let [a, b] = [adapter("a", 2, "all-linear", 1), adapter("b", 4, "q_proj", 9)];
    [&model, &a, &b].map(|path| path.to_str().unwrap().to_string())
}

#[test]
fn every_line_is_read_by_its_own_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let [model, a, b] = adapters(folder.path());
    let text = tiny::text(600);
    let lines: Vec<(Option<&str>, String)> = (0..17)
        .map(|i| ([Some("a"), None, Some("b"), Some("a"), Some("__base__")][i % 5], text[17 * i..][..6 + 3 * i].into()))
        .collect();
    let file = |name: &str, wanted: &dyn Fn(Option<&str>) -> bool, named: bool| {
        let line = |(adapter, text): &(Option<&str>, String)| match adapter.filter(|_| named) {
            Some(adapter) => json!({"text": text, "adapter": adapter}).to_string() + "\n",
            None => json!({"text": text}).to_string() + "\n",
        };
        let path = folder.path().join(name);
        std::fs::write(&path, lines.iter().filter(|(adapter, _)| wanted(*adapter)).map(line).collect::<String>())
            .unwrap();
        path.to_str().unwrap().to_string()
    };
    let eval = |data: &str, more: &[&str]| -> Value {
        let fixed = ["eval", "--model", &model, "--data", data, "--json", "--device", "cpu", "--batch", "4"];
        serde_json::from_str(&prints(&[&fixed, more].concat())).unwrap()
    };
    let all = file("all.jsonl", &|_| true, true);
    let [named_a, named_b] = [format!("a={a}"), format!("b={b}")];
    let together = eval(&all, &["--adapter", &named_a, "--adapter", &named_b]);
    let [only_a, only_b, base] = [
        eval(&file("a.jsonl", &|name| name == Some("a"), false), &["--adapter", &a]),
        eval(&file("b.jsonl", &|name| name == Some("b"), true), &["--adapter", &b]),
        eval(&file("base.jsonl", &|name| name.is_none_or(|name| name == "__base__"), true), &[]),
    ];
    let near = |found: &Value, expected: &Value| {
        let [found, expected] = [found, expected].map(|figures| figures["loss"].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-5, "{found} in place of {expected}");
    };
    let mut sum = 0.0;
    for (name, alone) in [("a", &only_a), ("b", &only_b), ("__base__", &base)] {
        near(&together["adapters"][name], alone);
        assert_eq!(together["adapters"][name]["tokens"], alone["tokens"]);
        sum += alone["loss"].as_f64().unwrap() * alone["tokens"].as_f64().unwrap();
    }
    let mean = sum / together["tokens"].as_f64().unwrap();
    assert!((together["loss"].as_f64().unwrap() - mean).abs() < 1e-5);
    let of_base = eval(&file("unnamed.jsonl", &|name| name == Some("a"), false), &["--adapter", &named_a]);
    assert!(
        (of_base["loss"].as_f64().unwrap() - only_a["loss"].as_f64().unwrap()).abs() > 1e-3,
        "it is the model's own"
    );
    let unknown = ["eval", "--model", &model, "--data", &all, "--device", "cpu", "--adapter", &named_a];
    let said = refused(&unknown);
    assert!(said.contains("all.jsonl") && said.contains("there is no adapter \"b\": give --adapter b=DIR"), "{said}");
}

#[test]
fn every_prompt_is_answered_by_its_own_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let [model, a, b] = adapters(folder.path());
    let [named_a, named_b] = [format!("a={a}"), format!("b={b}")];
    let write = |more: &[&str]| {
        let fixed = ["generate", "--model", &model, "--tokens", "9", "--temperature", "0"];
        prints(&[&fixed, more].concat())
    };
    let alone = |adapter: &[&str], prompt: &str| {
        let text = write(&[&["--prompt", prompt], adapter].concat());
        text.strip_suffix('\n').unwrap().to_string()
    };
    let both = ["--adapter", &named_a, "--adapter", &named_b];
    let [of_a, of_b, of_base] =
        [&["--adapter", &a][..], &["--adapter", &b], &[]].map(|adapter| alone(adapter, "the rank "));
    let answers = [&of_a, &of_b, &of_base];
    assert!(answers.iter().any(|answer| *answer != &of_base), "{answers:?}");
    let asked = write(&[&both[..], &["--prompt", "the rank "]].concat());
    assert_eq!(asked, format!("a:\n{of_a}\n\nb:\n{of_b}\n"));
    let with = ["--with", "__base__", "--with", "b", "--with", "a"];
    let asked = write(&[&both[..], &with, &["--prompt", "the rank "]].concat());
    assert_eq!(asked, format!("__base__:\n{of_base}\n\nb:\n{of_b}\n\na:\n{of_a}\n"));
    // Of unequal length, and without names under their numbers.
    let (short, long) = ("is ", "and\na matrix is the rank of ");
    let asked = write(&[&both[..], &["--prompt", short, "--prompt", long]].concat());
    let [first, second] = [alone(&["--adapter", &a], short), alone(&["--adapter", &b], long)];
    assert_eq!(asked, format!("a:\n{first}\n\nb:\n{second}\n"));
    let asked = write(&["--prompt", short, "--prompt", long]);
    assert_eq!(asked, format!("1:\n{}\n\n2:\n{}\n", alone(&[], short), alone(&[], long)));
    let say = |more: &[&str]| refused(&[&["generate", "--model", &model, "--prompt", "a"][..], more].concat());
    assert!(say(&[&both[..], &["--with", "c"]].concat()).contains("there is no adapter \"c\""));
    assert!(say(&["--adapter", &named_a, "--adapter", &format!("a={b}")]).contains("a=…: two have this name"));
    assert!(say(&["--adapter", "__base__=x"]).contains("\"__base__\" names no adapter"));
    let three = [&both[..], &["--prompt", "b", "--prompt", "c"]].concat();
    assert!(say(&three).contains("2 adapters for 3 prompts"));
    let merge = ["merge", "--model", &model, "--adapter", &named_a, "--out", "nowhere"];
    assert!(refused(&merge).contains("a=…: there is nothing to choose by name here"));
}
