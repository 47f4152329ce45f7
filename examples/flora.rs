//! Flora on a small model: the optimizer keeps a few rows for each matrix instead of all of them.

use eckart::lowrank::{Lift, Projection, Subspaces, Transfer, flora};
use eckart::nn::{Arch, Model, ModelConfig};
use eckart::optim::{Gradients, Group, Optimizer};
use eckart::{Device, Result, Seed, Tag, Tensor};

fn main() -> Result<()> {
    let device = Device::cpu();
    let mut model = Model::new(&ModelConfig::new(Arch::Gpt2, 32, 16, 2, 2, 32), Seed(1), &device)?;
    let tokens: Vec<u32> = (0..4 * 17).map(|i| (i * i + i / 7) % 32).collect();
    let windows = |from: usize| {
        let ids: Vec<u32> = tokens.chunks(17).flat_map(|window| window[from..from + 16].to_vec()).collect();
        Tensor::new(&ids, [4, 16], &device)
    };
    let (ids, targets) = (windows(0), windows(1));

    let projection = Projection::Rademacher;
    let subspaces = Subspaces { projection, rank: 4, resample: 20, transfer: Transfer::Reset };
    let transform = flora(subspaces, 0.9, Lift::Within, false);
    let mut optimizer = Optimizer::new(transform, Group::decay_matrices(0.0)).seeded(Seed(2));
    for step in 0..60 {
        let loss = model.loss(&ids, &targets, &Default::default());
        if step % 20 == 0 {
            println!("step {step:2}: loss {:.3}", loss.item()?);
        }
        let mut gradients = Gradients::new();
        gradients.add(loss);
        optimizer.step(&mut model, gradients, step, 5e-3, Some(1.0));
    }
    let last = model.loss(&ids, &targets, &Default::default()).item()?;
    let live = device.ledger().live();
    println!("step 60: loss {last:.3}");
    println!("{} bytes of optimizer state for {} of weights", live[Tag::Optimizer], live[Tag::Weights]);
    assert!(last < 1.0 && live[Tag::Optimizer] < live[Tag::Weights] / 2);
    Ok(())
}
