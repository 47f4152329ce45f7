//! Runs small enough to be made by the dozen.

use eckart::train::{Config, Control, Event, Metrics, Report, Trained, run};
use eckart::{Error, Result, Seed};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Words in an order that can be learnt in part.
pub fn text(words: usize) -> String {
    let vocabulary = ["the ", "rank ", "of ", "a ", "matrix ", "is ", "its ", "number ", "and\n"];
    let word = |i: usize| vocabulary[(Seed(5).block(i as u64)[0] as usize % 3 + i) % vocabulary.len()];
    (0..words).map(word).collect()
}

/// A file with [`text`] in `folder`.
pub fn text_file(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    std::fs::write(&path, text(600)).unwrap();
    path
}

/// A run in `folder` of a few milliseconds a step, with dropout.
pub fn config(folder: &Path, out: &str) -> Config {
    Config {
        data: Some(text_file(folder)),
        out: Some(folder.join(out)),
        steps: 6,
        batch: 3,
        context: 16,
        layers: 2,
        heads: 2,
        width: 16,
        dropout: 0.1,
        report_every: 2,
        eval_every: 3,
        save_every: 3,
        ..Config::default()
    }
}

/// Trains to the end.
pub fn train(config: &Config, resume: bool) -> Result<Trained> {
    run(config, Control { resume, stop: &AtomicBool::new(false), profile: false }, &mut |_| {})
}

/// Trains until `micro_steps` are done, as if interrupted then.
pub fn train_for(config: &Config, resume: bool, micro_steps: usize) -> Result<Trained> {
    let stop = AtomicBool::new(false);
    let mut seen = 0;
    run(config, Control { resume, stop: &stop, profile: false }, &mut |event| {
        if let Event::Advanced { .. } = event {
            seen += 1;
            stop.store(seen >= micro_steps, Ordering::Relaxed);
        }
    })
}

/// Stops a run every few micro-batches until it is done.
pub fn in_pieces(config: &Config, micro_steps: usize) {
    let mut resume = false;
    loop {
        match train_for(config, resume, micro_steps) {
            Ok(_) => return,
            Err(Error::Interrupted { .. }) => resume = true,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Whether a run that is stopped every few micro-batches ends like one that was not.
pub fn same_in_pieces(whole: &Config, pieces: &Config, micro_steps: usize) {
    in_pieces(pieces, micro_steps);
    assert_same(whole.out.as_deref().unwrap(), pieces.out.as_deref().unwrap(), whole.steps);
}

/// The lines of a run, without what depends on the clock.
pub fn lines(out: &Path) -> Vec<Metrics> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let timeless = |line| Metrics { tokens_per_second: 0.0, ..serde_json::from_str(line).unwrap() };
    text.lines().map(timeless).collect()
}

/// All files of the checkpoint after `step` steps: name and contents.
pub fn checkpoint(out: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let folder = out.join("checkpoint").join(format!("step-{step:08}"));
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// What a run took is what was planned, tag by tag.
pub fn assert_as_planned(report: &Report, name: &str) {
    for ((tag, planned), (_, found)) in report.planned_peak_bytes.rows().into_iter().zip(report.peak_bytes.rows()) {
        let miss = planned.abs_diff(found) as f64 / found.max(1) as f64;
        assert!(miss <= 0.01, "{name}: {tag} was planned at {planned} bytes and took {found}");
    }
}

/// Whether two runs left the same checkpoint after `step` steps and the same lines.
pub fn assert_same(a: &Path, b: &Path, step: u64) {
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (left, right) = (checkpoint(a, step), checkpoint(b, step));
    assert_eq!(names(&left), names(&right));
    // The manifest, which differs where another file does, comes last.
    for ((name, left), (_, right)) in left.iter().zip(&right).rev() {
        if name == "state.json" {
            assert_eq!(String::from_utf8_lossy(left), String::from_utf8_lossy(right));
        }
        assert!(left == right, "{name} differs between {} and {}", a.display(), b.display());
    }
    assert_eq!(lines(a), lines(b));
}
