//! Runs on a GPU: replayed steps, resume, memory, and what happens when the device gives up.

use crate::gpu;
use crate::tiny::{self, assert_same};
use eckart::device::gpu::{Counters, Options};
use eckart::nn::Arch;
use eckart::train::{Config, Control, Event, Store, Trained, run_on};
use eckart::{Device, Error, Module, Result, Tensor};
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn config(folder: &Path, out: &str) -> Config {
    Config { device: gpu::name(), ..tiny::config(folder, out) }
}

/// Trains on a device, and calls `step` after every step.
fn train_on(device: &Device, config: &Config, mut step: impl FnMut(u64) + Send) -> Result<()> {
    let control = Control { resume: false, stop: &AtomicBool::new(false), profile: false };
    let trained = run_on(Some(device), config, control, &mut |event| {
        if let Event::Advanced { step: done, .. } = event {
            step(done);
        }
    });
    trained.map(drop)
}

/// The largest difference between the losses and norms of two runs.
fn apart(a: &Trained, b: &Trained) -> f64 {
    let numbers = |trained: &Trained| -> Vec<f64> {
        trained.history.iter().flat_map(|line| [line.loss, line.val_loss, line.grad_norm]).flatten().collect()
    };
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// With dropout: masks are drawn anew in every step, and are the host's.
#[test]
fn a_gpu_learns_what_the_host_learns() {
    if gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (arch, accumulate, recompute) in [(Arch::Gpt2, 1, false), (Arch::Llama, 2, true)] {
        let run = |out: &str| {
            let config = config(folder.path(), &format!("{arch:?} {out}"));
            Config { arch, accumulate, recompute, dropout: 0.3, ..config }
        };
        let here = tiny::train(&Config { device: "cpu".into(), ..run("here") }, false).unwrap();
        let there = tiny::train(&run("there"), false).unwrap();
        assert_eq!(there.report.planned_peak_bytes, there.report.peak_bytes, "planned and measured");
        let worst = apart(&here, &there);
        assert!(worst < 1e-4, "{arch:?} is off by {worst:e}");
    }
}

#[test]
fn speed_counts_every_token() {
    if gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = Config { accumulate: 20, eval_every: 100, save_every: 100, ..config(folder.path(), "run") };
    let report = tiny::train(&config, false).unwrap().report;
    let tokens = config.steps * config.accumulate * (config.batch * config.context) as u64;
    // Whole runs are slower, since they also validate and save.
    let least = tokens as f64 / report.wall_seconds;
    assert!(report.tokens_per_second >= least, "{} a second, and {least} with all else", report.tokens_per_second);
}

/// Who watches kernels has every step recorded anew.
#[test]
fn a_replayed_run_is_the_run_recorded_anew_in_every_step() {
    if gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str| Config { accumulate: 2, ..config(folder.path(), out) };
    let (replayed, recorded) = (run("replayed"), run("recorded"));
    tiny::train(&replayed, false).unwrap();
    let control = Control { resume: false, stop: &AtomicBool::new(false), profile: true };
    let trained = eckart::train::run(&recorded, control, &mut |_| {}).unwrap();
    assert!(trained.profile.iter().any(|(op, ..)| *op == "dropout"), "nothing was recorded in sight");
    assert_same(replayed.out.as_deref().unwrap(), recorded.out.as_deref().unwrap(), replayed.steps);
}

#[test]
fn a_resumed_run_on_a_gpu_is_the_run_that_never_stopped() {
    if gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, accumulate, micro_steps) in [("whole", 1, 2), ("accumulated", 2, 5)] {
        let run = |out: String| Config { accumulate, ..config(folder.path(), &out) };
        let (whole, pieces) = (run(name.into()), run(format!("{name} in pieces")));
        tiny::train(&whole, false).unwrap();
        tiny::same_in_pieces(&whole, &pieces, micro_steps);
    }
}

/// What a replayed step costs: four small writes (tokens, targets, seed, learning rate) and one small read.
fn steady(options: Options) {
    let Some(device) = gpu::device_with(options) else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = Config { steps: 12, eval_every: 100, report_every: 100, ..config(folder.path(), "steady") };
    let mut seen: Vec<(Counters, u64)> = Vec::new();
    train_on(&device, &Config { save_every: 100, ..config }, |_| {
        seen.push((device.gpu().unwrap().counters(), device.ledger().live().total()));
    })
    .unwrap();
    for pair in seen[2..11].windows(2) {
        let spent = pair[1].0.since(&pair[0].0);
        assert!(spent.dispatches > 0);
        let made = [spent.pipelines, spent.bind_groups, spent.buffers, spent.bytes_allocated, spent.host_ops];
        assert_eq!((made, spent.staging_writes, spent.reads), ([0; 5], 4, 1), "{spent:?}");
        assert_eq!(pair[0].1, pair[1].1, "live bytes");
    }
    let (held, highest) = (device.reserved(), device.ledger().highest());
    assert!(held <= Device::most_reserved(highest), "{held} held, {highest} at most live");
    assert_eq!(device.ledger().live().total(), 0, "all goes back with the run");
}

#[test]
fn a_replayed_step_creates_nothing() {
    steady(Options::default());
}

#[test]
fn nor_does_it_where_parameters_come_from_a_uniform() {
    steady(Options { immediates: false, ..Options::default() });
}

/// What others allocate between two steps, and keep, is left alone by replayed steps, and they by it.
#[test]
fn replayed_steps_leave_alone_what_others_keep() {
    let Some(device) = gpu::device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut kept: Vec<Tensor> = Vec::new();
    let mut weights = [Vec::new(), Vec::new()];
    for (name, keep) in [("alone", 0), ("disturbed", 6)] {
        let config = Config { steps: 9, eval_every: 4, ..config(folder.path(), name) };
        let control = Control { resume: false, stop: &AtomicBool::new(false), profile: false };
        let trained = run_on(Some(&device), &config, control, &mut |event| {
            if matches!(event, Event::Advanced { .. }) {
                let sizes = (0..keep).flat_map(|i| [1 << (2 * i), 3 << (2 * i)]);
                kept.extend(sizes.map(|n: usize| Tensor::new(&vec![7.0_f32; n], [n], &device)));
            }
        });
        let model = trained.unwrap().model;
        weights[keep.min(1)] =
            model.parameters().iter().flat_map(|(_, p)| p.tensor().to_vec::<f32>().unwrap()).collect();
    }
    assert!(kept.len() > 50 && kept.iter().all(|x| x.to_vec::<f32>().unwrap().iter().all(|&x| x == 7.0)));
    assert!(weights[0] == weights[1], "other weights");
}

fn live_bytes_are_flat_for(steps: u64) {
    let Some(device) = gpu::device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = Config { steps, eval_every: 50, report_every: 50, save_every: 50, ..config(folder.path(), "flat") };
    let mut live = Vec::new();
    train_on(&device, &config, |_| live.push(device.ledger().live().total())).unwrap();
    assert_eq!(live[19], *live.last().unwrap());
    let (held, highest) = (device.reserved(), device.ledger().highest());
    assert!(held <= Device::most_reserved(highest), "{held} held, {highest} at most live");
}

#[test]
fn live_bytes_are_flat_over_200_steps() {
    live_bytes_are_flat_for(200);
}

#[test]
#[ignore = "long"]
fn live_bytes_are_flat_over_2000_steps() {
    live_bytes_are_flat_for(2000);
}

/// The newest checkpoint of a run that failed, and the error's exit code.
fn left_behind(config: &Config, failed: Result<()>) -> (u64, i32, String) {
    let error = failed.expect_err("the device gave up");
    let store = Store::new(config.out.as_ref().unwrap().join("checkpoint"), 2);
    let newest = store.newest(u64::MAX).unwrap();
    assert!(newest.skipped.is_empty(), "{:?}", newest.skipped);
    (newest.checkpoint.state.progress.step, error.exit_code(), error.to_string())
}

#[test]
fn memory_that_cannot_be_had_is_an_error_and_leaves_a_checkpoint() {
    let Some(device) = gpu::device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let gpu = device.gpu().unwrap();
    let config = Config { save_every: 1, ..config(folder.path(), "limited") };
    let failed = train_on(&device, &config, |step| {
        if step == 2 {
            device.trim();
            gpu.set_limit(1);
        }
    });
    let (step, code, message) = left_behind(&config, failed);
    assert_eq!((step, code), (2, 3), "{message}");
    assert!(message.contains("needs") && message.contains("smaller batch"), "{message}");
    assert_eq!(device.ledger().live().total(), 0);
}

/// A hundred times, at whatever allocation the limit meets: an error, nothing left over, no crash.
#[test]
fn a_hundred_failed_allocations_leak_nothing() {
    use eckart::nn::{Model, ModelConfig, Pass};
    use eckart::optim::Gradients;
    use eckart::{Seed, Tensor};
    if gpu::device().is_none() {
        return;
    }
    let sizes = ModelConfig::new(Arch::Gpt2, 17, 8, 1, 2, 16);
    let step = |device: &Device| -> Result<f64> {
        let model = Model::new(&sizes, Seed(0), device)?;
        let ids = Tensor::new(&[1_u32; 16], [2, 8], device);
        let loss = model.loss(&ids, &ids, &Pass::default());
        let value = loss.detach();
        Gradients::new().add(loss);
        value.item()
    };
    let folder = tempfile::tempdir().unwrap();
    let cache = Some(folder.path().to_owned());
    let whole = gpu::device_with(Options { cache: cache.clone(), ..Options::default() }).unwrap();
    step(&whole).unwrap();
    let highest = whole.reserved();
    drop(whole);
    for i in 0..100 {
        let limit = highest * i / 100;
        let device =
            gpu::device_with(Options { limit: Some(limit), cache: cache.clone(), ..Options::default() }).unwrap();
        match step(&device) {
            Err(error) => assert!(matches!(error, Error::Memory { .. }), "{error}"),
            // A limit near the top can be met by a pool that keeps less.
            Ok(loss) => assert!(loss.is_finite() && i > 50, "no error at {i} %"),
        }
        assert_eq!(device.ledger().live().total(), 0);
        assert!(device.reserved() <= limit, "{} held at a limit of {limit}", device.reserved());
    }
}

#[test]
fn a_lost_device_is_an_error_and_leaves_a_checkpoint() {
    let Some(device) = gpu::device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = Config { save_every: 1, ..config(folder.path(), "lost") };
    let failed = train_on(&device, &config, |step| {
        if step == 4 {
            device.gpu().unwrap().abandon()
        }
    });
    let (step, code, message) = left_behind(&config, failed);
    assert_eq!((step, code), (3, 3), "{message}");
    assert!(message.starts_with("device lost"), "{message}");
    assert_eq!(device.ledger().live().total(), 0);
}
