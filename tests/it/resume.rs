//! A run that was stopped and resumed is the run that never stopped, byte for byte.

use crate::tiny::{self, assert_same, in_pieces, same_in_pieces};
use eckart::nn::Arch;
use eckart::train::{Config, Method, Store};
use std::path::Path;

/// Steps that are large enough to be shared out between threads.
fn config(folder: &Path, out: &str) -> Config {
    Config { accumulate: 3, batch: 8, context: 32, width: 64, save_every: 2, ..tiny::config(folder, out) }
}

fn with_threads(threads: usize, f: impl FnOnce() + Send) {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f);
}

#[test]
fn for_any_number_of_threads_inside_accumulation_windows_with_dropout() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config(folder.path(), "whole");
    with_threads(2, || drop(tiny::train(&whole, false).unwrap()));
    for (threads, micro_steps) in [(1, 7), (2, 2), (8, 5)] {
        let pieces = config(folder.path(), &format!("{threads}"));
        with_threads(threads, || in_pieces(&pieces, micro_steps));
        assert_same(whole.out.as_deref().unwrap(), pieces.out.as_deref().unwrap(), whole.steps);
    }
}

#[test]
fn for_every_method_and_family() {
    let folder = tempfile::tempdir().unwrap();
    for (arch, optimizer) in [(Arch::Llama, Method::Adamw), (Arch::Gpt2, Method::Sgd)] {
        let run = |out: String| Config {
            arch,
            optimizer: Some(optimizer),
            accumulate: 2,
            ..tiny::config(folder.path(), &out)
        };
        let (whole, pieces) = (run(format!("{arch:?}")), run(format!("{arch:?} in pieces")));
        tiny::train(&whole, false).unwrap();
        same_in_pieces(&whole, &pieces, 3);
    }
}

#[test]
fn a_damaged_checkpoint_is_left_out_and_the_one_before_leads_to_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config(folder.path(), "whole");
    tiny::train(&whole, false).unwrap();
    let cut = config(folder.path(), "cut");
    tiny::train(&cut, false).unwrap();
    let root = cut.out.as_ref().unwrap().join("checkpoint");
    let newest = root.join("step-00000006").join("optimizer.safetensors");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let found = Store::new(root.clone(), 2).newest(u64::MAX).unwrap();
    assert_eq!(found.checkpoint.state.progress.step, 4);
    assert!(found.skipped[0].contains("optimizer.safetensors has"), "{:?}", found.skipped);
    tiny::train(&cut, true).unwrap();
    assert_same(whole.out.as_deref().unwrap(), cut.out.as_deref().unwrap(), whole.steps);
    assert!(root.join("damaged-step-00000006").exists(), "what was damaged is kept aside");
}

#[test]
fn the_field_that_differs_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny::config(folder.path(), "run");
    tiny::train(&config, false).unwrap();
    let message = |config: Config| tiny::train(&config, true).err().map(|error| (error.exit_code(), error.to_string()));
    let refused = |config: Config, words: &str| {
        let (code, message) = message(config).expect("another configuration is refused");
        assert!(code == 2 && message.contains(words), "{code}: {message}");
    };
    refused(Config { width: 32, ..config.clone() }, "width was 16 and is now 32");
    refused(Config { steps: 60, ..config.clone() }, "steps was 6 and is now 60");
    let other = folder.path().join("other.txt");
    std::fs::write(&other, tiny::text(601)).unwrap();
    refused(Config { data: Some(other), ..config.clone() }, "the text is not the one it learnt");
    let elsewhere = Config { keep: 5, save_every: 1, ..config.clone() };
    assert_eq!(message(elsewhere), None, "what changes no number may change");
    let Err(error) = tiny::train(&config, false) else { panic!("a folder in use is refused") };
    assert!(error.to_string().contains("a run was saved here already"), "{error}");
}

#[test]
fn numbers_that_are_none_leave_the_weights_alone_and_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        Config { lr: Some(1e38), warmup: Some(0), steps: 50, save_every: 1, ..tiny::config(folder.path(), "run") };
    let Err(error) = tiny::train(&config, false) else { panic!("such a rate cannot do") };
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    assert!(message.contains("is not finite, first in ") && message.contains("5 steps in a row"), "{message}");
    let good = message.rsplit_once("the last good checkpoint is ").unwrap().1;
    let good = eckart::train::Checkpoint::read(good.into()).unwrap();
    let model = good.model(&eckart::Device::cpu()).unwrap();
    eckart::Module::visit(&model, &eckart::module::Path::root(), &mut |path, parameter| {
        let values = parameter.tensor().to_vec::<f32>().unwrap();
        assert!(values.iter().all(|x| x.abs() < 1e30), "{path} is broken in the checkpoint that is said to be good");
    });
}
