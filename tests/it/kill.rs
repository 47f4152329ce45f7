//! Killed at any moment, a run's newest checkpoint loads, and the run can be finished as if nothing had happened.

use crate::cli::{eckart, stderr};
use crate::tiny::{self, assert_same};
use eckart::Seed;
use eckart::train::{Config, Store};
use rand::Rng;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

fn config(folder: &Path, out: &str) -> Config {
    let sizes = Config { layers: 1, context: 8, batch: 2, accumulate: 2, ..tiny::config(folder, out) };
    Config { steps: 40, report_every: 1, eval_every: 10, save_every: 1, ..sizes }
}

/// The program at work on this run, resumed if it has begun.
fn start(config: &Config, file: &Path) -> Child {
    let written = Config { out: None, ..config.clone() };
    // A configuration in JSON is one in YAML.
    std::fs::write(file, serde_json::to_string(&written).unwrap()).unwrap();
    let out = config.out.as_ref().unwrap();
    let mut command = eckart(&["train", "--config", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    if Store::new(out.join("checkpoint"), 2).is_used() {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).env("RAYON_NUM_THREADS", "2").spawn().unwrap()
}

/// Kills the program so many times; runs that come to an end are compared with one that was left alone.
fn survive(kills: usize) {
    let folder = tempfile::tempdir().unwrap();
    let whole = config(folder.path(), "whole");
    tiny::train(&whole, false).unwrap();
    let file = folder.path().join("config.yaml");
    let mut moments = Seed(1).stream();
    let (mut killed, mut finished, mut inside) = (0, 0, 0);
    while killed < kills || finished == 0 {
        let now = config(folder.path(), &format!("run {finished}"));
        let mut child = start(&now, &file);
        if killed < kills {
            std::thread::sleep(Duration::from_micros(moments.next_u64() % 120_000));
            child.kill().unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        let store = Store::new(now.out.as_ref().unwrap().join("checkpoint"), 2);
        if store.is_used() {
            let newest = store.newest(u64::MAX).unwrap();
            assert!(newest.skipped.is_empty(), "{:?}", newest.skipped);
            inside += newest.checkpoint.state.progress.step.clamp(0, 1);
        }
        match ended.status.code() {
            None => killed += 1,
            Some(0) => {
                assert_same(whole.out.as_deref().unwrap(), now.out.as_deref().unwrap(), whole.steps);
                finished += 1;
            }
            Some(code) => panic!("exit {code}: {}", stderr(&ended)),
        }
    }
    println!("{killed} kills, {inside} after the first step, {finished} runs finished");
    assert!(inside > 0, "no kill came between two checkpoints");
}

#[test]
fn at_20_moments() {
    survive(20);
}

#[test]
#[ignore = "the long form of at_20_moments"]
fn at_100_moments() {
    survive(100);
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let now = Config { steps: 2000, save_every: 2000, ..config(folder.path(), "run") };
    let child = start(&now, &file);
    let log = now.out.as_ref().unwrap().join("metrics.jsonl");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 3) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    let newest = Store::new(now.out.as_ref().unwrap().join("checkpoint"), 2).newest(u64::MAX).unwrap();
    assert!(newest.checkpoint.state.progress.step > 3);
}
