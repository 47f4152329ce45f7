//! A small Llama learns text; its MLPs are replaced by thin factors, nearest in the weights' norm or where inputs lie,
//! and what is left learns on.

use eckart::data::{Corpus, EMBEDDED, training_batch};
use eckart::lowrank::{Method, Weighting, factorize, moments};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{Device, Module, Result, Seed, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

const LAYERS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
const RANK: usize = 6;

fn batch(text: &[u32], step: u64, device: &Device) -> (Tensor, Tensor) {
    training_batch(text, 32, 8, Seed(step)).upload(device)
}

fn train(model: &mut Model, text: &[u32], steps: u64, rate: f64) {
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.01));
    for step in 0..steps {
        let (x, y) = batch(text, step, &model.device());
        let mut gradients = Gradients::new();
        gradients.add(model.loss(&x, &y, &Pass::default()));
        optimizer.step(model, gradients, step, rate, Some(1.0));
    }
}

/// Mean loss on text that was held back.
fn loss(model: &Model, text: &[u32]) -> Result<f64> {
    let one = |i: u64| {
        let (x, y) = batch(text, i, &model.device());
        model.loss(&x, &y, &Pass::default()).item()
    };
    Ok((0..8).map(one).sum::<Result<f64>>()? / 8.0)
}

fn main() -> Result<()> {
    let corpus = Corpus::new(EMBEDDED.as_bytes(), Path::new("built in"))?;
    let (text, held) = (&corpus.train, &corpus.validation);
    let config = ModelConfig::new(Arch::Llama, corpus.vocabulary.size(), 32, 2, 4, 64);
    let mut model = Model::new(&config, Seed(1), &Device::cpu())?;
    train(&mut model, text, 400, 3e-3);
    println!("trained                    loss {:.3}, {} parameters", loss(&model, held)?, model.trainable_parameters());

    // What goes into each layer, counted over a few batches.
    let inputs = moments(&mut model, &LAYERS, |model| {
        (0..16).for_each(|i| drop(model.logits(&batch(text, i, &model.device()).0, &Pass::default())));
        Ok(())
    })?;
    let mut ranks = BTreeMap::new();
    model.visit_maps(&eckart::module::Path::root(), &mut |path, _| {
        let path = path.to_string();
        if LAYERS.iter().any(|name| path.ends_with(name)) {
            ranks.insert(path, RANK);
        }
    });

    let mut plain = model.clone();
    factorize(&mut plain, &ranks, &Method::default())?;
    println!(
        "nearest weights of rank {RANK}  loss {:.3}, {} parameters",
        loss(&plain, held)?,
        plain.trainable_parameters()
    );

    let weighting = Weighting { moments: &inputs, damping: 1e-4 };
    let replaced = factorize(&mut model, &ranks, &Method { inputs: Some(weighting), ..Method::default() })?;
    println!("nearest outputs of rank {RANK}  loss {:.3}", loss(&model, held)?);
    for layer in &replaced {
        println!("  {:34} off by {:.0} %", layer.path, 100.0 * layer.error);
    }
    train(&mut model, text, 100, 1e-3);
    println!("a hundred steps later      loss {:.3}", loss(&model, held)?);
    Ok(())
}
