//! Memory over rank, measured in bytes: criterion's reports under `target/criterion` chart the optimizer's state and the
//! whole peak of every method. Each point is a run of two steps and a validation, and has to be as planned.
//!
//! `cargo bench --bench memory_vs_rank`, or with `-- flora` for one method.

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkId, Criterion, Throughput};
use eckart::train::{Config, Control, MemoryUse, Report, Size, VARIANTS, run};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const RANKS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Bytes instead of time: benches hand them over themselves.
struct Peak;

struct Words;

impl ValueFormatter for Words {
    fn format_value(&self, value: f64) -> String {
        Size(value as u64).to_string()
    }
    fn scale_values(&self, _: f64, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|value| *value /= 1_048_576.0);
        "MiB"
    }
    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        "MiB"
    }
    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "B"
    }
}

impl Measurement for Peak {
    type Intermediate = ();
    type Value = u64;
    fn start(&self) {}
    fn end(&self, (): ()) -> u64 {
        unreachable!("every bench hands its bytes over")
    }
    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }
    fn zero(&self) -> u64 {
        0
    }
    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        &Words
    }
}

/// Two steps of the default model on a short text.
fn measured(config: &Config, name: &str) -> Report {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "the quick brown fox jumps over the lazy dog\n".repeat(120)).expect("a temporary file");
    let config =
        Config { data: Some(text), out: Some(folder.path().join("run")), device: "cpu".into(), ..config.clone() };
    let control = Control { resume: false, stop: &AtomicBool::new(false), profile: false };
    let report = run(&config, control, &mut |_| {}).unwrap_or_else(|error| panic!("{name}: {error}")).report;
    as_planned(name, report.planned_peak_bytes, report.peak_bytes);
    report
}

/// `n` times so many bytes. Takes a little time for each: criterion looks for an `n` that takes long enough, and would
/// not stop before it overflows.
fn times(n: u64, bytes: u64) -> u64 {
    (0..n).map(|_| std::hint::black_box(bytes)).sum()
}

fn as_planned(name: &str, planned: MemoryUse, measured: MemoryUse) {
    for ((tag, planned), (_, measured)) in planned.rows().into_iter().zip(measured.rows()) {
        let miss = planned.abs_diff(measured) as f64 / measured.max(1) as f64;
        assert!(miss <= 0.01, "{name}: {tag} was planned at {planned} bytes and took {measured}");
    }
}

type Part = fn(&MemoryUse) -> u64;
const PARTS: [(&str, Part); 2] = [("optimizer bytes", |bytes| bytes.optimizer), ("peak bytes", |bytes| bytes.total)];

fn main() {
    // Samples are all alike, and criterion's comparison with an earlier run divides by their spread.
    for (part, _) in PARTS {
        let _ = std::fs::remove_dir_all(PathBuf::from("target/criterion").join(part));
    }
    let short = Duration::from_millis(1);
    let quick = |c: Criterion| c.sample_size(10).warm_up_time(short).measurement_time(short).nresamples(1001);
    let mut criterion = quick(Criterion::default()).with_measurement(Peak).configure_from_args();
    let base = Config { steps: 2, batch: 4, width: 128, layers: 2, ..Config::default() };
    for variant in &VARIANTS {
        for rank in RANKS {
            let name = format!("{} rank {rank}", variant.name);
            let mut report = None;
            for (part, bytes) in PARTS {
                let mut group = criterion.benchmark_group(part);
                group.bench_with_input(BenchmarkId::new(variant.name, rank), &rank, |bench, &rank| {
                    let report = report.get_or_insert_with(|| measured(&variant.of(&base, rank), &name));
                    let peak = bytes(&report.peak_bytes).max(1);
                    bench.iter_custom(|n| times(n, peak));
                });
            }
        }
    }
    criterion.final_summary();
}
