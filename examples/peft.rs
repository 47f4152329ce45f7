//! An adapter trained here and read by PEFT, and one of PEFT's put on a model.
//!
//!     cargo run --release --example peft --features hub -- FOLDER

use eckart::io::peft::{About, open, save};
use eckart::lowrank::{AdapterConfig, Keep, adapt, initial, merge};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{Device, Error, Result, Seed, Tensor};
use std::path::PathBuf;

fn main() -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("eckart-adapter-{}", std::process::id()));
    let folder = std::env::args().nth(1).map_or(scratch.clone(), PathBuf::from);
    let device = Device::cpu();
    let config = ModelConfig::new(Arch::Llama, 64, 16, 2, 4, 32);
    let base = Model::new(&config, Seed(1), &device)?;
    let ids: Vec<u32> = (0..32).map(|i| i * 7 % 64).collect();
    let ids = Tensor::new(&ids, [2, 16], &device);

    let mut model = base.clone();
    let layers =
        AdapterConfig { rank: 4, alpha: 8.0, targets: vec!["q_proj".into(), "v_proj".into()], ..Default::default() };
    adapt(&mut model, &layers, Seed(2))?;
    // Starts that take a part of the base, such as PiSSA's, are undone by the factors that they began with.
    let about = About { base_model: Some("my-llama".into()), initial: initial(&mut model), ..About::default() };
    let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let mut optimizer = Optimizer::new(adam, Group::decay_matrices(0.0));
    for step in 0..20 {
        let mut gradients = Gradients::new();
        gradients.add(model.loss(&ids, &ids, &Pass::default()));
        optimizer.step(&mut model, gradients, step, 1e-2, None);
    }
    save(&model, &about, &folder)?;

    let mut again = base;
    let adapter = open(&folder)?;
    for layer in adapter.show()? {
        println!(
            "{}: rank {}, norm {:.3}, {:.0} % of it in rank 1",
            layer.module,
            layer.rank,
            layer.norm(),
            100.0 * layer.energy(1).sqrt()
        );
    }
    adapter.put_on(&mut again)?;
    merge(&mut again, Keep::Nothing, true)?;
    let [trained, read] = [&model, &again].map(|model| model.loss(&ids, &ids, &Pass::default()).item());
    let (trained, read) = (trained?, read?);
    println!("loss {trained:.6}, and {read:.6} of the model that the adapter was merged into");
    if folder == scratch {
        std::fs::remove_dir_all(&folder).map_err(Error::file(&folder))?;
    }
    if (trained - read).abs() < 1e-5 { Ok(()) } else { Err(Error::Config("the adapter came back changed".into())) }
}
