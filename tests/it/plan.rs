//! Memory: planned is what is measured, and none is lost on the way.

use crate::tiny;
use eckart::Error;
use eckart::nn::Arch;
use eckart::train::{Config, Method, Plan, Size, subject};

/// A run of two steps of each kind that there is.
fn grid(folder: &std::path::Path) -> Vec<Config> {
    let mut all = Vec::new();
    for (arch, layers, width) in [(Arch::Gpt2, 1, 16), (Arch::Gpt2, 3, 48), (Arch::Llama, 2, 32)] {
        for (batch, accumulate) in [(1, 1), (1, 3), (5, 1), (4, 2)] {
            for (recompute, dropout) in [(false, 0.0), (true, 0.0), (true, 0.1), (false, 0.1)] {
                let optimizer = if batch == 5 { Method::Sgd } else { Method::Adamw };
                let sizes = Config {
                    arch,
                    layers,
                    width,
                    batch,
                    accumulate,
                    recompute,
                    dropout,
                    optimizer: Some(optimizer),
                    ..tiny::config(folder, "")
                };
                all.push(Config { steps: 2, out: Some(folder.join(all.len().to_string())), ..sizes });
            }
        }
    }
    all
}

#[test]
fn planned_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut worst: f64 = 0.0;
    for config in grid(folder.path()) {
        let report = tiny::train(&config, false).unwrap().report;
        let (planned, measured) = (report.planned_peak_bytes, report.peak_bytes);
        let error = (planned.total as f64 / measured.total as f64 - 1.0).abs();
        worst = worst.max(error);
        assert!(error < 0.01, "planned {planned:?}, measured {measured:?} for {config:?}");
        for ((tag, planned), (_, measured)) in planned.rows().into_iter().zip(measured.rows()) {
            let error = planned.abs_diff(measured) as f64 / report.peak_bytes.total as f64;
            assert!(error < 0.01, "{tag}: planned {planned}, measured {measured} for {config:?}");
        }
    }
    println!("worst error {:.4} %", 100.0 * worst);
}

#[test]
fn recompute_saves_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { layers: 6, batch: 8, ..tiny::config(folder.path(), "") }.resolved().unwrap();
    let text = subject(&config).unwrap();
    let peak = |recompute| Plan::new(&Config { recompute, ..config.clone() }, &text).unwrap().peak_bytes.activations;
    assert!(peak(true) * 2 < peak(false), "{} beside {}", peak(true), peak(false));
}

#[test]
fn a_limit_is_refused_before_anything_is_written_and_what_it_names_fits() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { layers: 4, batch: 64, ..tiny::config(folder.path(), "run") }.resolved().unwrap();
    let text = subject(&config).unwrap();
    let need = |config: &Config| Plan::new(config, &text).unwrap().reserved_bytes;
    let limited = |limit: u64| tiny::train(&Config { memory: Some(Size(limit)), ..config.clone() }, false);
    let half = need(&config) / 2;
    let Err(Error::Memory { needed, limit, advice }) = limited(half) else { panic!("half of it cannot do") };
    assert_eq!((needed, limit), (need(&config), half));
    let batch: usize = advice.split_once("batch ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!(advice.starts_with("recompute or batch"), "{advice}");
    assert!(need(&Config { recompute: true, ..config.clone() }) <= half);
    assert!(need(&Config { batch, ..config.clone() }) <= half);
    assert!(need(&Config { batch: batch + 1, ..config.clone() }) > half);
    let Err(Error::Memory { advice, .. }) = limited(1000) else { panic!("a kilobyte cannot do") };
    assert!(advice.starts_with("even batch 1 needs"), "{advice}");
    assert!(!folder.path().join("run").exists());
    assert!(Plan::new(&config, &text).unwrap().check(&config, &text).is_ok());
}

/// What lives between two steps does not grow, nor does what lives in them.
fn flat(steps: u64) {
    let folder = tempfile::tempdir().unwrap();
    let config =
        Config { steps, report_every: 20, eval_every: 100, save_every: 100, ..tiny::config(folder.path(), "run") };
    let history = tiny::train(&config, false).unwrap().history;
    let (first, last) = (&history[0], &history[history.len() - 1]);
    assert_eq!((first.step, last.step), (20, steps));
    println!("live bytes at step 20: {}, at step {steps}: {}", first.live_bytes.total, last.live_bytes.total);
    assert_eq!(first.live_bytes, last.live_bytes);
    assert_eq!(first.peak_bytes, last.peak_bytes);
}

#[test]
fn memory_stays_flat() {
    flat(200);
}

#[test]
#[ignore = "the long form of memory_stays_flat"]
fn memory_stays_flat_for_2000_steps() {
    flat(2000);
}
