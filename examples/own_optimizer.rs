//! An optimizer of one's own, sign momentum (Lion's inner step, Chen et al. 2023), in a subspace of rank 4.
//!
//! A transform is written in tensor operations once; `InSubspace` compresses what it keeps, on any device.

use eckart::device::Spec;
use eckart::lowrank::{InSubspace, Lift, Projection, Transfer};
use eckart::optim::{At, ChangeBasis, Gradients, Group, Optimizer, Slot, Transform};
use eckart::{Array, Device, Module, Parameter, Result, Seed, Tensor, module, module::normal};

struct SignMomentum {
    beta: f64,
}

impl Transform for SignMomentum {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        vec![("momentum", *parameter)]
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], gradient: Array) -> Array {
        let g = Tensor::from_array(at.scaled(gradient));
        let mean = Tensor::from_array(state[0].clone()) * self.beta + &g * (1.0 - self.beta);
        let sign = &mean / (mean.abs() + 1e-12);
        at.store(&mut state[0], mean);
        sign.into_array()
    }

    fn moves(&self) -> Option<&dyn ChangeBasis> {
        Some(self)
    }
}

impl ChangeBasis for SignMomentum {
    fn change_basis(&self, at: &At<'_>, state: &mut [Array], q: &Tensor) {
        let moved = q.matmul(&Tensor::from_array(state[0].clone()));
        at.store(&mut state[0], moved);
    }
}

struct Model {
    weight: Parameter,
}
module!(Model: weight);

fn main() -> Result<()> {
    let device = Device::cpu();
    let wanted = normal(&[32, 48], 1.0, Seed(1), &device);
    let mut model = Model { weight: Parameter::new(Tensor::zeros([32, 48], wanted.dtype(), &device)) };
    let transform = InSubspace {
        projection: Projection::Rademacher,
        rank: 4,
        resample: 10,
        transfer: Transfer::Scaled,
        inner: Box::new(SignMomentum { beta: 0.9 }),
        lift: Lift::Up,
        scale: 1.0,
        limit: None,
    };
    let mut optimizer = Optimizer::new(transform, Group::decay_matrices(0.0)).seeded(Seed(2));
    let miss = |model: &Model| {
        let d = model.weight.tensor() - &wanted;
        (&d * &d).mean_all()
    };
    let before = miss(&model).item()?;
    for step in 0..1500 {
        let mut gradients = Gradients::new();
        gradients.add(miss(&model));
        optimizer.step(&mut model, gradients, step, 0.02 * (1.0 - step as f64 / 1500.0), None);
    }
    let after = miss(&model).item()?;
    let kept: usize = optimizer.state().map(|(_, array)| array.count()).sum();
    println!("mean square {before:.3} to {after:.5}; {kept} numbers kept for {} weights", 32 * 48);
    assert!(after < 0.05 * before && kept == 4 * 48);
    assert_eq!(model.trainable_parameters(), 32 * 48);
    Ok(())
}
