//! The commands: what they print, and what bad input comes to.

use crate::tiny;
use std::path::Path;
use std::process::{Command, Output};

/// The program.
pub fn eckart(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eckart"));
    command.args(args);
    command
}

/// What it wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Flags of a small run on `data`.
fn small<'a>(command: &'a str, data: &'a str) -> Vec<&'a str> {
    let sizes = ["--context", "8", "--layers", "1", "--heads", "2", "--width", "8", "--batch", "2", "--steps", "4"];
    [&[command, "--data", data][..], &sizes].concat()
}

fn ran(args: &[&str]) -> Output {
    eckart(args).output().unwrap()
}

/// What it prints as JSON.
fn json(args: &[&str]) -> serde_json::Value {
    let output = ran(args);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Ends with this code and one line that has these words.
pub fn fails(args: &[&str], code: i32, words: &str) {
    let output = ran(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{args:?} says more than a line: {text}");
    assert!(text.contains(words), "{args:?}: {text}");
}

fn write(folder: &Path, name: &str, contents: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, contents).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn bad_flags_and_files_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(folder.path(), "text", tiny::text(300).as_bytes());
    let config = |text: &str| write(folder.path(), "config.yaml", text.as_bytes());
    let out = folder.path().join("run");
    let fails = |more: &[&str], code, words| {
        fails(&[&small("train", &data)[..], &["--out", out.to_str().unwrap()], more].concat(), code, words)
    };
    fails(&["--stepz", "3"], 2, "unexpected argument '--stepz'");
    fails(&["--steps", "three"], 2, "invalid value 'three' for '--steps <N>'");
    fails(&["--arch", "t5"], 2, "unknown variant `t5`, expected one of `gpt2`, `llama`, `bert`, `roberta`");
    fails(&["--heads", "3"], 2, "width 8 is not divisible by heads 3");
    fails(&["--lr", "-1"], 2, "lr is -1: it must be a positive number");
    fails(&["--lr", "0"], 2, "lr is 0: it must be a positive number");
    fails(&["--optimizer", "adamw", "--resample", "8"], 2, "--resample is for optimizers with subspaces");
    fails(&["--optimizer", "apollo-mini", "--rank", "8"], 2, "--rank is for adapters, and for flora");
    fails(&["--optimizer", "galore", "--lift", "within"], 2, "--lift is for flora");
    fails(&["--adapter", "lora", "--embedding-lr", "1e-6"], 2, "--embedding-lr is for lora+");
    fails(&["--device", "tpu"], 2, "there is no device \"tpu\"; there are auto, cpu");
    fails(&["--memory", "9kB"], 3, "the limit is 9000");
    fails(&["--memory", "much"], 2, "no amount of memory");
    fails(&["--data", "/no/such/file"], 2, "/no/such/file: No such file");
    fails(&["--data", folder.path().to_str().unwrap()], 2, "Is a directory");
    fails(
        &["--config", &config("lerning_rate: 3")],
        2,
        "unknown field `lerning_rate`, expected one of `model`, `base`",
    );
    fails(&["--config", &config("steps: many")], 2, "steps: invalid type: string \"many\", expected u64");
    fails(&["--config", &config("steps: [")], 2, "config.yaml");
    fails(&["--resume"], 2, "nothing to resume");
    fails(&["--out", "/proc/run"], 2, "/proc/run");
    assert!(!out.exists(), "nothing is written before all is known to be well");
}

#[test]
fn texts_that_cannot_be_learnt_are_one_line_and_others_are_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let with = |data: &str| [&small("train", data)[..], &["--out", out.to_str().unwrap()]].concat().join("\n");
    let train = |data: &str, code, words: &str| fails(&with(data).split('\n').collect::<Vec<_>>(), code, words);
    train(&write(folder.path(), "empty", b""), 2, "the text is empty");
    train(&write(folder.path(), "tiny", b"abcabcabc"), 2, "too short");
    let bytes: Vec<u8> = (0..2000_u32).map(|i| (i % 7 + 250) as u8).collect();
    let binary = write(folder.path(), "binary", &bytes);
    let output = ran(&with(&binary).split('\n').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", stderr(&output));
    let state = std::fs::read_to_string(out.join("checkpoint/step-00000004/state.json")).unwrap();
    assert!(state.contains("\"vocabulary\": \"bytes\""));
}

#[test]
fn a_run_leaves_what_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(folder.path(), "text", tiny::text(300).as_bytes());
    let out = folder.path().join("run");
    let out = out.to_str().unwrap();
    let config = write(folder.path(), "config.yaml", b"steps: 99\nclip: 0.5\nreport_every: 2\n");
    let output =
        ran(&[&small("train", &data)[..], &["--out", out, "--config", &config, "--json", "--profile"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    keys.sort();
    let wanted = "config device parameters peak_bytes planned_peak_bytes seed steps tokens_per_second train_loss \
                  trainable_parameters val_loss val_perplexity wall_seconds";
    assert_eq!(keys, wanted.split_whitespace().collect::<Vec<_>>());
    assert_eq!(report["steps"], 4, "flags override the file");
    assert_eq!(report["config"]["clip"], 0.5);
    assert_eq!(report["peak_bytes"], report["planned_peak_bytes"]);
    for curve in ["loss.svg", "memory.svg"] {
        assert!(std::fs::read_to_string(Path::new(out).join(curve)).unwrap().contains("<polyline"), "{curve}");
    }
    let lines = tiny::lines(Path::new(out));
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [2, 4]);
    assert!(lines[1].val_loss.is_some() && lines[0].val_loss.is_none());
    assert!(stderr(&output).contains("all else"), "a profile was asked for");
    generates(out);
    plans(out);
}

/// Plans for the model that a run left, whose context is 8, and reads a text with a character that it has no token for.
fn plans(out: &str) {
    let plan = |flags: &[&str]| {
        let config = format!("{out}/model/config.json");
        json(&[&["plan", "--model", &config, "--batch", "2", "--json"], flags].concat())
    };
    assert_eq!(plan(&["--context", "100"]), plan(&["--context", "8"]), "texts are no longer than the model reads");
    assert_eq!(plan(&["--all-methods", "--context", "100"]), plan(&["--all-methods", "--context", "8"]));
    let text = write(Path::new(out), "other.txt", "the π of it".as_bytes());
    fails(
        &["eval", "--model", &format!("{out}/model"), "--data", &text],
        2,
        "cannot encode 'π', which its vocabulary lacks",
    );
}

/// A reader that is gone when a run ends costs nothing of what it learnt.
#[cfg(unix)]
#[test]
fn a_closed_pipe_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(folder.path(), "text", tiny::text(300).as_bytes());
    let out = folder.path().join("run");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "\"$@\" | true", "sh", env!("CARGO_BIN_EXE_eckart")]);
    let output = shell.args(small("train", &data)).args(["--out", out.to_str().unwrap()]).output().unwrap();
    assert!(out.join("model/model.safetensors").is_file(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

/// Samples from a run's folder, its folder of checkpoints and a single checkpoint.
fn generates(out: &str) {
    let text = |more: &[&str]| {
        let output = ran(&[&["generate", "--tokens", "30"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let one = format!("{out}/checkpoint/step-00000004");
    let by_run = text(&["--checkpoint", out, "--prompt", "the rank"]);
    assert!(by_run.starts_with("the rank") && by_run.chars().count() == 8 + 30 + 1, "{by_run:?}");
    assert_eq!(by_run, text(&["--checkpoint", &format!("{out}/checkpoint"), "--prompt", "the rank"]));
    assert_eq!(by_run, text(&["--checkpoint", &one, "--prompt", "the rank"]));
    assert_ne!(by_run, text(&["--checkpoint", &one, "--prompt", "the rank", "--seed", "2"]));
    let cold = |seed| text(&["--checkpoint", &one, "--temperature", "0", "--top-k", "3", "--seed", seed]);
    assert_eq!(cold("1"), cold("2"));
    fails(&["generate", "--checkpoint", &one, "--prompt", "π"], 2, "'π' is not among");
    fails(&["generate", "--checkpoint", &one, "--temperature", "-1"], 2, "temperature is -1");
    fails(&["generate", "--checkpoint", "/no/such/run"], 2, "there is no such folder");
    fails(&["generate"], 2, "<--checkpoint <DIR>|--model <DIR>>");
    for ignored in [["--adapter", "nowhere"], ["--with", "nobody"], ["--top-k", "0"]] {
        let flags = [&["generate", "--checkpoint", &one, "--prompt", "the"], &ignored[..]].concat();
        fails(&flags, 2, ignored[0]);
    }
    let model = format!("{one}/model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&model, bytes).unwrap();
    fails(&["generate", "--checkpoint", &one], 2, "model.safetensors is damaged");
}

#[test]
fn a_plan_is_what_train_would_refuse_by() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(folder.path(), "text", tiny::text(300).as_bytes());
    let plan = |limit: &str| json(&[&small("plan", &data)[..], &["--json", "--memory", limit]].concat());
    let roomy = plan("1GiB");
    assert_eq!(roomy["fits"], true);
    let need = roomy["reserved_bytes"].as_u64().unwrap();
    assert_eq!(plan(&need.to_string())["fits"], true);
    let tight = plan(&(need - 1).to_string());
    assert_eq!(tight["fits"], false);
    assert!(tight["what_fits"].as_str().unwrap().contains("batch 1 would fit"), "{tight}");
    let out = folder.path().join("run");
    let limit = (need - 1).to_string();
    let train = [&small("train", &data)[..], &["--out", out.to_str().unwrap(), "--memory", &limit]].concat();
    fails(&train, 3, &format!("needs {need} bytes"));
}

#[test]
fn check_has_a_row_for_every_op() {
    let rows = json(&["check", "--json"]);
    let rows = rows.as_array().unwrap();
    let ops: std::collections::BTreeSet<_> = eckart::ops::samples().iter().map(|sample| sample.op.name()).collect();
    assert!(rows.iter().all(|row| row["passed"] == true && ops.contains(row["op"].as_str().unwrap())));
    assert!(rows.len() * 2 > ops.len(), "{} rows for {} ops", rows.len(), ops.len());
    fails(&["check", "--device", "tpu"], 2, "there is no device");
}

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_noticed_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(folder.path(), "text", tiny::text(300).as_bytes());
    let out = folder.path().join("run");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_eckart")]);
    let output = shell.args(small("train", &data)).args(["--out", out.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("File too large") && text.lines().count() == 1, "{text}");
    assert_eq!(std::fs::read_dir(out.join("checkpoint")).unwrap().count(), 0, "nothing half written is left");
    assert_eq!(std::fs::metadata(out.join("metrics.jsonl")).unwrap().len(), 0);
}
