//! Three adapters over one frozen model, trained in one batch and applied in one batch: each example has its own.

use eckart::lowrank::{ALL_LINEAR, bank, select};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{Device, Module, Result, Seed, Tensor};

const TOKENS: u32 = 13;
const CONTEXT: u32 = 12;

/// A sequence that counts up by `step`, and what follows each of its tokens.
fn sequence(start: u32, step: u32) -> [Vec<u32>; 2] {
    [0, 1].map(|ahead| (0..CONTEXT).map(|i| (start + (i + ahead) * step) % TOKENS).collect())
}

/// One sequence for each task: task i counts by 2 + i.
fn batch(tasks: &[u32], draw: u32) -> [Tensor; 2] {
    let rows: Vec<[Vec<u32>; 2]> = (0..).zip(tasks).map(|(e, task)| sequence(draw * 7 + e * 3, 2 + task)).collect();
    [0, 1].map(|k| {
        let ids: Vec<u32> = rows.iter().flat_map(|row| row[k].clone()).collect();
        Tensor::new(&ids, [tasks.len(), CONTEXT as usize], &Device::cpu())
    })
}

fn train(model: &mut Model, steps: u64, rate: f64, batch: impl Fn(u32) -> [Tensor; 2]) {
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0));
    for step in 0..steps {
        let [x, y] = batch(step as u32);
        let mut gradients = Gradients::new();
        gradients.add(model.loss(&x, &y, &Pass::default()));
        optimizer.step(model, gradients, step, rate, Some(1.0));
    }
}

fn main() -> Result<()> {
    let config = ModelConfig::new(Arch::Llama, TOKENS as usize, CONTEXT as usize, 1, 2, 32);
    let mut model = Model::new(&config, Seed(1), &Device::cpu())?;
    // What all share: counting by one.
    train(&mut model, 150, 3e-3, |draw| {
        let rows: Vec<[Vec<u32>; 2]> = (0..6).map(|e| sequence(draw * 7 + e * 3, 1)).collect();
        [0, 1].map(|k| {
            Tensor::new(&rows.iter().flat_map(|row| row[k].clone()).collect::<Vec<_>>(), [6, 12], &Device::cpu())
        })
    });

    let layers = bank(&mut model, &[ALL_LINEAR], 3, 4, 8.0, Seed(2))?;
    println!("{} layers have 3 adapters of rank 4: {} parameters train", layers.len(), model.trainable_parameters());
    let tasks = [0, 1, 2, 2, 1, 0];
    select(&mut model, &tasks)?;
    train(&mut model, 200, 1e-2, |draw| batch(&tasks, draw));

    // Every adapter on every task: the three of a row are one batch.
    for task in 0..3 {
        let [x, y] = batch(&[task; 3], 1000);
        select(&mut model, &[0, 1, 2])?;
        let logits = model.logits(&x, &Pass::default());
        let loss = |e| logits.slice(0, e, 1).cross_entropy(&y.slice(0, e, 1)).item();
        println!("counting by {}: loss {:.2} {:.2} {:.2} by adapter", 2 + task, loss(0)?, loss(1)?, loss(2)?);
    }
    Ok(())
}
