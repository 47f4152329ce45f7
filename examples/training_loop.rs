//! A training loop of one's own, with a model whose parameters are named, saved and loaded.

use eckart::optim::{Adam, Gradients, Group, Optimizer, Schedule};
use eckart::{Device, LinearMap, Module, Parameter, Result, Seed, Tensor, io, module::normal};

/// Two layers with a tanh between: [.., 2] to [.., 1].
#[derive(Clone)]
struct Net {
    up: LinearMap,
    bias: Parameter,
    down: LinearMap,
}
eckart::module!(Net: up, bias, down);

impl Net {
    fn new(seed: Seed, device: &Device) -> Net {
        Net {
            up: LinearMap::dense(normal(&[2, 24], 1.0, seed.named("up"), device)),
            bias: Parameter::new(normal(&[24], 1.0, seed.named("bias"), device)),
            down: LinearMap::dense(normal(&[24, 1], 0.2, seed.named("down"), device)),
        }
    }

    fn apply(&self, x: &Tensor) -> Tensor {
        self.down.apply(&self.up.apply(x, Some(self.bias.tensor())).tanh(), None)
    }

    fn loss(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let error = self.apply(x) - y;
        (&error * &error).mean_all()
    }
}

fn main() -> Result<()> {
    let device = Device::cpu();
    let x = normal(&[256, 2], 1.0, Seed(7), &device);
    let y = x.slice(1, 0, 1) * x.slice(1, 1, 1); // the product of both inputs
    let mut net = Net::new(Seed(1), &device);
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(1e-3));
    let schedule = Schedule { peak: 2e-2, floor: 1e-3, warmup: 20, steps: 500 };
    for step in 0..500 {
        let loss = net.loss(&x, &y);
        let value = loss.detach();
        let mut gradients = Gradients::new();
        gradients.add(loss);
        let stepped = optimizer.step(&mut net, gradients, step, schedule.rate(step), Some(1.0));
        if step % 100 == 0 {
            println!("step {step:>3}: loss {:.5}, gradient norm {:.3}", value.item()?, stepped.norm);
        }
    }
    let path = std::env::temp_dir().join("eckart-net.safetensors");
    io::save(&net, &path)?;
    let mut copy = Net::new(Seed(2), &device);
    io::load(&mut copy, &path)?;
    println!("loaded {:?}", copy.parameters().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    println!("loss {:.5}, of the loaded copy {:.5}", net.loss(&x, &y).item()?, copy.loss(&x, &y).item()?);
    Ok(())
}
