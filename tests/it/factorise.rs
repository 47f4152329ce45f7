//! The command that factorises, and what is done with what it leaves.

use crate::cli::{eckart, stderr};
use crate::finetune::{base, lessons, prints};
use eckart::nn::Arch;
use serde_json::Value;

#[test]
fn a_factorised_model_goes_through_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Llama);
    let (model, data) = (model.to_str().unwrap(), lessons(folder.path()));
    let data = data.to_str().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let json = |args: &[&str]| -> Value { serde_json::from_str(&prints(args)).unwrap() };
    let loss = |args: &[&str]| {
        let fixed = ["eval", "--data", data, "--json", "--device", "cpu", "--model"];
        json(&[&fixed, args].concat())["loss"].as_f64().unwrap()
    };
    let factorise =
        |out: &str, more: &[&str]| json(&[&["factorise", "--model", model, "--out", out, "--json"], more].concat());
    // Everything that counts is kept, and layers whose factors would be no smaller stay.
    let exact = path("exact");
    let report = factorise(&exact, &["--energy", "1"]);
    assert!((loss(&[&exact]) - loss(&[model])).abs() < 1e-4);
    assert_eq!(report["parameters"][0], report["parameters"][1]);
    assert!(report["layers"].as_array().unwrap().iter().all(|row| row["rank"].is_null() && row["error"] == 0.0));
    // One rank for all.
    let two = path("two");
    let report = factorise(&two, &["--rank", "2", "--targets", "q_proj,down_proj"]);
    let rows = report["layers"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!((row["rank"].as_u64(), &row["layer"].as_str().unwrap()[..13]), (Some(2), "model.layers."));
        let error = row["error"].as_f64().unwrap();
        assert!(error > 0.01 && error < 1.0, "{row}");
    }
    let saved: u64 =
        rows.iter().map(|row| row["parameters"][0].as_u64().unwrap() - row["parameters"][1].as_u64().unwrap()).sum();
    let [before, after] = [0, 1].map(|i| report["parameters"][i].as_u64().unwrap());
    assert_eq!(before - after, saved);
    // Half of all parameters, by what the layers' inputs are.
    let half = path("half");
    let report = factorise(&half, &["--budget", "0.5", "--data", data, "--max-length", "16"]);
    let [of, left] = [0, 1].map(|i| {
        let parameters = |row: &Value| row["parameters"][i].as_u64().unwrap();
        report["layers"].as_array().unwrap().iter().map(parameters).sum::<u64>()
    });
    assert!(2 * left <= of && 2 * left > of - 200, "{left} of {of}");
    let budget = factorise(&path("count"), &["--budget", &left.to_string(), "--data", data, "--max-length", "16"]);
    assert_eq!(budget["layers"], report["layers"]);
    let blind = factorise(&path("blind"), &["--budget", "0.5"]);
    assert_ne!(blind["layers"], report["layers"]);
    let absolute = factorise(&path("absolute"), &["--budget", "0.5", "--absolute"]);
    assert_ne!(absolute["layers"], blind["layers"]);
    let with = loss(&[&half]);
    // Trained again, beside the factors and whole; adapters merge into factors, and factors multiply out.
    let tuned = path("tuned");
    let fixed = ["finetune", "--model", &half, "--data", data, "--steps", "12", "--lr", "1e-2", "--max-length", "16"];
    prints(&[&fixed[..], &["--out", &tuned]].concat());
    let adapter = path("tuned/adapter");
    let better = loss(&[&half, "--adapter", &adapter]);
    assert!(better < with, "{better} after {with}");
    let (merged, dense, whole) = (path("merged"), path("dense"), path("whole"));
    prints(&["merge", "--model", &half, "--adapter", &adapter, "--out", &merged]);
    prints(&["merge", "--model", &merged, "--dense", "--out", &dense]);
    for folder in [&merged, &dense] {
        assert!((loss(&[folder]) - better).abs() < 1e-4, "{folder}");
    }
    let config = |folder: &str| std::fs::read_to_string(format!("{folder}/config.json")).unwrap();
    assert!(config(&merged).contains("eckart") && !config(&dense).contains("eckart"));
    prints(&[&fixed[..], &["--method", "full", "--out", &whole]].concat());
    assert!(loss(&[&path("whole/model")]) < with);
    let write = |model: &str| {
        prints(&["generate", "--model", model, "--prompt", "the ", "--tokens", "9", "--temperature", "0"])
    };
    assert_eq!(write(&merged), write(&dense));
    // For people.
    let shown = prints(&["factorise", "--model", model, "--rank", "4", "--out", &path("shown")]);
    assert!(shown.contains("model.layers.0.mlp.up_proj") && shown.contains("the model has "), "{shown}");
}

#[test]
fn what_cannot_be_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let model = base(folder.path(), Arch::Gpt2);
    let out = folder.path().join("out");
    let refused = |more: &[&str]| {
        let fixed = ["factorise", "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let output = eckart(&[&fixed, more].concat()).output().unwrap();
        let said = stderr(&output);
        assert!(output.status.code() == Some(2) && said.trim_end().lines().count() == 1, "{more:?}: {said}");
        assert!(!out.exists());
        said
    };
    assert!(refused(&["--rank", "0"]).contains("rank is 0"));
    assert!(refused(&["--energy", "1.5"]).contains("energy is 1.5: it must be above 0 and at most 1"));
    assert!(refused(&["--energy", "NaN"]).contains("energy is NaN"));
    assert!(refused(&["--budget", "10"]).contains("rank 1 everywhere takes"));
    for wrong in ["lots", "-1", "0", "1.5", "0.0", "k"] {
        assert!(refused(&["--budget", wrong]).contains("neither a number of parameters"), "{wrong}");
    }
    assert!(refused(&["--rank", "2", "--energy", "0.5"]).contains("cannot be used with"));
    assert!(refused(&[]).contains("--rank"));
    assert!(refused(&["--rank", "2", "--absolute"]).contains("cannot be used with"));
    assert!(refused(&["--rank", "2", "--targets", "q_proj"]).contains("no layer is meant"));
    assert!(refused(&["--rank", "2", "--data", "nowhere.txt"]).contains("nowhere.txt"));
    for count in ["--batch", "--batches"] {
        assert!(refused(&["--rank", "2", count, "0"]).contains("0 is not in 1.."), "{count}");
    }
}
