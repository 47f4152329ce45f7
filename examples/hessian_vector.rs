//! Hessian-vector products of a small GPT, exact, by forward over reverse: several directions share one primal pass.

use eckart::autograd::{Direction, hvp};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::{Device, Module, Result, Seed, Tensor, module::normal};

fn main() -> Result<()> {
    let device = Device::cpu();
    let model = Model::new(&ModelConfig::new(Arch::Gpt2, 16, 8, 2, 2, 32), Seed(1), &device)?;
    let ids = Tensor::new(&[3_u32, 1, 4, 1, 5, 9, 2, 6], [1, 8], &device);
    let targets = Tensor::new(&[1_u32, 4, 1, 5, 9, 2, 6, 5], [1, 8], &device);

    let parameters: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.tensor().detach()).collect();
    let direction = |k: u64| -> Direction {
        let draw = |(i, p): (usize, &Tensor)| Some(normal(p.shape(), 1.0, Seed(k).fold(i as u64), &device));
        parameters.iter().enumerate().map(draw).collect()
    };
    let directions = [direction(1), direction(2)];
    let loss = |tensors: &[Tensor]| {
        let mut model = model.clone();
        model.bind(tensors);
        model.loss(&ids, &targets, &Pass::default())
    };
    let found = hvp(loss, &parameters, &directions);
    println!("loss {:.4}", found.loss.item()?);

    // u'Hv = v'Hu
    let dot = |a: &Direction, b: &[Tensor]| -> Result<f64> {
        a.iter().flatten().zip(b).map(|(a, b)| (a * b).sum_all().item()).sum()
    };
    println!("u'Hv = {:.6}", dot(&directions[0], &found.products[1])?);
    println!("v'Hu = {:.6}", dot(&directions[1], &found.products[0])?);
    Ok(())
}
