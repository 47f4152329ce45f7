//! Which rank goes where, in a program of one's own: any model with named layers, any loss, a budget, and adapters as found.

use eckart::lowrank::{AdapterConfig, adapt};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::rank::{Bounds, Losses, Rule, Sensitivity, Survey, allocate, draw_targets};
use eckart::{Device, Module, Result, Seed, Tensor};
use rand::RngExt;

/// Two batches of tokens, each of which is followed by its double.
struct Doubles([Tensor; 2]);

impl Losses<Model> for Doubles {
    fn batches(&self) -> u64 {
        self.0.len() as u64
    }

    fn counted(&self, batch: u64) -> usize {
        self.0[batch as usize].count()
    }

    fn loss(&self, model: &Model, batch: u64) -> Result<Tensor> {
        let ids = &self.0[batch as usize];
        Ok(model.loss(ids, &doubled(ids)?, &Pass::default()))
    }

    fn drawn(&self, model: &Model, batch: u64, seed: Seed) -> Result<Tensor> {
        let ids = &self.0[batch as usize];
        let logits = model.logits(ids, &Pass::default());
        let drawn = draw_targets(&logits, seed)?;
        Ok(logits.cross_entropy(&Tensor::new(&drawn, *ids.shape(), &Device::cpu())))
    }
}

fn doubled(ids: &Tensor) -> Result<Tensor> {
    let doubles: Vec<u32> = ids.to_vec::<u32>()?.iter().map(|id| 2 * id % 40).collect();
    Ok(Tensor::new(&doubles, *ids.shape(), &Device::cpu()))
}

fn batch(seed: u64) -> Tensor {
    let mut stream = Seed(seed).stream();
    let ids: Vec<u32> = (0..64).map(|_| stream.random_range(0..40)).collect();
    Tensor::new(&ids, [4, 16], &Device::cpu())
}

fn main() -> Result<()> {
    let mut model = Model::new(&ModelConfig::new(Arch::Llama, 40, 16, 2, 2, 32), Seed(1), &Device::cpu())?;
    let data = Doubles([batch(1), batch(2)]);

    // What each layer would win by rank; then ranks for 4,000 parameters; then adapters of these ranks.
    let curves = Survey::default().look(&model, &data, Sensitivity::Gradient)?.curves;
    let costs: Vec<u64> = curves.iter().map(|curve| curve.cost()).collect();
    let found = allocate(&curves, &costs, 4000, Bounds { least: 0, ..Bounds::default() }, Rule::Greedy)?;
    let config = AdapterConfig { rank_stabilised: true, ..AdapterConfig::default() };
    adapt(&mut model, &config.with_ranks(found.of_layers(&curves)), Seed(2))?;

    for (layer, rank) in found.of_layers(&curves) {
        println!("{layer:40} rank {rank}");
    }
    println!("{} parameters of {} are adapters", model.trainable_parameters(), found.budget);
    assert_eq!(model.trainable_parameters() as u64, found.spent);
    Ok(())
}
