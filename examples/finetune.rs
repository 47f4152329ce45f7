//! A story teller learns to write like Shakespeare: LoRA on a published model, in under a minute on two cores, with samples
//! before and after.
//!
//!     cargo run --release --example finetune -- MODEL TEXT
//!
//! MODEL is a folder in Hugging Face's layout, such as karpathy/tinyllamas' stories260K converted to it; TEXT is
//! tinyshakespeare's input.txt (karpathy/char-rnn). Without them the example trains a small model of its own on this
//! crate's text first, and fine-tunes that on a poem.

use eckart::data::Tokenizer;
use eckart::io::{hub, peft};
use eckart::nn::{Model, Sampling, generate};
use eckart::train::{Config, Control, run};
use eckart::{Device, Module, Result, Seed};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const POEM: &str = "Tyger Tyger, burning bright, In the forests of the night; What immortal hand or eye, Could frame thy \
                    fearful symmetry?\n";

fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("room for a folder");
    let given: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let (model, text, steps) = match &given[..] {
        [model, text] => (model.clone(), text.clone(), 150),
        _ => (own(scratch.path())?, poem(scratch.path()), 20),
    };
    let config = Config {
        model: Some(model.clone()),
        data: Some(text),
        out: Some(scratch.path().join("run")),
        steps,
        batch: 8,
        context: 128,
        lr: Some(3e-3),
        eval_every: steps,
        save_every: steps,
        eval_batches: Some(20),
        ..Config::fine_tuning()
    };
    println!("before: {}\n", sample(&hub::open(&model, None, &Device::cpu())?, &model)?);
    let trained = train(&config)?;
    println!("loss {:.3} nats a token after {steps} steps", trained.report.val_loss.unwrap_or(f64::NAN));
    let adapter = trained.export()?;
    // From here on as if in another program: PEFT would read the same folder.
    let mut tuned = hub::open(&model, None, &Device::cpu())?;
    let placed = peft::open(&adapter)?.put_on(&mut tuned)?;
    println!("{} layers have an adapter\n", placed.layers.len());
    println!("after: {}", sample(&tuned, &model)?);
    Ok(())
}

fn train(config: &Config) -> Result<eckart::train::Trained> {
    run(config, Control { resume: false, stop: &AtomicBool::new(false), profile: false }, &mut |_| {})
}

fn sample(model: &Model, folder: &Path) -> Result<String> {
    let tokenizer = Tokenizer::open(folder)?;
    let mut prompt: Vec<u32> = tokenizer.begins().into_iter().collect();
    prompt.extend(tokenizer.encode("The ")?);
    let sampling = Sampling { temperature: 0.8, top_k: None, seed: Seed(1) };
    let tokens = generate(&model.frozen(), &prompt, 80, sampling)?;
    Ok(format!("The {}", tokenizer.decode(&tokens)))
}

/// A model of this crate's own text, as `eckart train` leaves one in `model` of its folder.
fn own(folder: &Path) -> Result<PathBuf> {
    let out = Some(folder.join("own"));
    let config =
        Config { out, steps: 30, layers: 2, width: 64, context: 64, eval_batches: Some(2), ..Config::default() };
    train(&config)?.export()
}

fn poem(folder: &Path) -> PathBuf {
    let path = folder.join("poem.txt");
    std::fs::write(&path, POEM.repeat(40)).expect("room for a poem");
    path
}
