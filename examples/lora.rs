//! Adapters of rank 4 on a small GPT: all else is frozen, and in the end they are merged into the weights.

use eckart::lowrank::{AdapterConfig, Keep, LoraPlus, adapt, merge};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Optimizer};
use eckart::{Device, Module, Result, Seed, Tensor};

fn main() -> Result<()> {
    let device = Device::cpu();
    let mut model = Model::new(&ModelConfig::new(Arch::Gpt2, 27, 16, 2, 2, 32), Seed(0), &device)?;
    let layers = adapt(&mut model, &AdapterConfig { rank: 4, alpha: 8.0, ..AdapterConfig::default() }, Seed(1))?;
    let all: usize = model.parameters().iter().map(|(_, p)| p.tensor().count()).sum();
    println!("{} of {all} parameters train, beside {}", model.trainable_parameters(), layers.join(", "));
    let groups = LoraPlus { rate: 3e-3, ratio: 4.0, embedding_rate: 3e-3, decay: 0.0 }.groups()?;
    let mut optimizer = Optimizer::new(Adam::default(), groups);
    let text: Vec<u32> =
        b"the rank of a matrix is the number of its independent".iter().map(|c| u32::from(c & 31)).collect();
    let batch = |from: usize| Tensor::new(&text[from..from + 48], [3, 16], &device);
    for step in 0..100 {
        let loss = model.loss(&batch(0), &batch(1), &Pass::default());
        let value = loss.detach();
        let mut gradients = Gradients::new();
        gradients.add(loss);
        optimizer.step(&mut model, gradients, step, 3e-3, Some(1.0));
        if step % 20 == 0 {
            println!("step {step:>2}: loss {:.4}", value.item()?);
        }
    }
    merge(&mut model, Keep::Nothing, true)?;
    println!("merged: loss {:.4}", model.loss(&batch(0), &batch(1), &Pass::default()).item()?);
    Ok(())
}
