//! Adapters per example on a GPU: sizes on both sides of a workgroup's tile, against double precision on the host.

use crate::gpu::device;
use eckart::autograd::grad;
use eckart::lowrank::{self, Method, Weighting};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::Input;
use eckart::optim::Gradients;
use eckart::{DType, Device, Module, Seed, Tensor};
use std::collections::BTreeMap;

/// Examples, their adapters, and sizes: time, in, rank, out.
const CASES: [(&[u32], usize, [usize; 4]); 6] = [
    (&[0], 1, [1, 1, 1, 1]),
    (&[1, 1, 0, 3, 1], 4, [7, 33, 3, 70]),
    (&[2, 0], 3, [70, 40, 20, 90]),
    (&[0, 1, 0], 2, [65, 17, 16, 64]),
    (&[0; 9], 1, [1, 100, 64, 20]),
    (&[5, 4, 3, 2, 1, 0], 7, [16, 31, 17, 33]),
];

/// The sum and all gradients. `onto` a product, or in a storage of its own.
fn run(case: &(&[u32], usize, [usize; 4]), dtype: DType, device: &Device, onto: bool) -> Vec<Vec<f64>> {
    let (ids, n, [time, inputs, rank, outputs]) = *case;
    let batch = ids.len();
    let random = |shape: &[usize], seed| {
        Input::normal(shape).tensor(Seed(seed), DType::F32, &Device::cpu()).to_device(device).unwrap().cast(dtype)
    };
    let x = random(&[batch, time, inputs], 1).leaf();
    let (a, b) = (random(&[n, inputs, rank], 2).leaf(), random(&[n, rank, outputs], 3).leaf());
    let base = match onto {
        true => x.linear(&random(&[inputs, outputs], 4), None),
        false => random(&[batch, time, outputs], 5).leaf(),
    };
    let kept = (!onto).then(|| base.clone());
    let y = base.add_adapters(&x, &a, &b, &Tensor::new(ids, [batch], device), 0.5);
    drop(kept);
    let c = random(&[batch, time, outputs], 6);
    let pulled = grad(&(&y * &c).sum_all(), &[&x, &a, &b], false);
    let all = [y.detach()].into_iter().chain(pulled);
    all.map(|t| t.cast(dtype)).map(|t| eckart::float!(t.dtype(), T => widened(&t.to_vec::<T>().unwrap()))).collect()
}

fn widened<T: eckart::dtype::Element>(x: &[T]) -> Vec<f64> {
    x.iter().map(|&x| x.to_f64()).collect()
}

#[test]
fn every_size_agrees_with_the_host() {
    let Some(gpu) = device() else { return };
    for case in &CASES {
        for onto in [true, false] {
            let found = run(case, DType::F32, &gpu, onto);
            let expected = run(case, DType::F64, &Device::cpu(), onto);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
                let off: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
                assert!(norm(&off) <= 2e-6 * norm(expected), "{case:?}, onto {onto}, result {i}: {}", norm(&off));
            }
        }
    }
    assert_eq!(gpu.gpu().unwrap().counters().host_ops, 0);
}

#[test]
fn adapters_beyond_the_bank_give_nan() {
    let Some(gpu) = device() else { return };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &gpu).contiguous();
    let ids = Tensor::new(&[0_u32, 2], [2], &gpu);
    let y = zeros(&[2, 3, 4]).add_adapters(&zeros(&[2, 3, 5]), &zeros(&[2, 5, 1]), &zeros(&[2, 1, 4]), &ids, 1.0);
    let y = y.to_vec::<f32>().unwrap();
    assert!(y[..12].iter().all(|&y| y == 0.0) && y[12..].iter().all(|y| y.is_nan()), "{y:?}");
}

/// Loss and gradients of a small model in single precision.
fn losses(model: &Model, ids: &Tensor) -> Vec<f64> {
    let loss = model.loss(ids, ids, &Pass::default());
    let mut all = widened(&loss.detach().to_vec::<f32>().unwrap());
    let mut gradients = Gradients::new();
    gradients.add(loss);
    for (_, parameter) in model.parameters().iter().filter(|(_, parameter)| parameter.trains()) {
        let gradient = Tensor::from_array(gradients.get(parameter.id()).unwrap().clone());
        all.extend(widened(&gradient.to_vec::<f32>().unwrap()));
    }
    all
}

/// Adapters of either kind in one model, and factors where inputs lie, all the way from weights on the card.
#[test]
fn models_with_adapters_and_factors_agree_with_the_host() {
    let Some(gpu) = device() else { return };
    let run = |device: &Device| {
        let mut model = Model::new(&ModelConfig::new(Arch::Llama, 11, 8, 2, 2, 8), Seed(1), device).unwrap();
        let ids: Vec<u32> = (0..24).map(|i| i * 7 % 11).collect();
        let ids = Tensor::new(&ids, [4, 6], device);
        let moments = lowrank::moments(&mut model, &["up_proj"], |model| {
            model.logits(&ids, &Pass::default());
            Ok(())
        });
        let ranks = BTreeMap::from([("model.layers.1.mlp.up_proj".to_owned(), 3)]);
        let weighting = Weighting { moments: &moments.unwrap(), damping: 1e-3 };
        let method = Method { inputs: Some(weighting), ..Method::default() };
        lowrank::factorize(&mut model, &ranks, &method).unwrap();
        let trained = losses(&model, &ids);
        lowrank::bank(&mut model, &["q_proj", "down_proj"], 3, 2, 4.0, Seed(2)).unwrap();
        lowrank::hadamard(&mut model, &["v_proj"], 3, 2, 1.0, Seed(3)).unwrap();
        lowrank::select(&mut model, &[2, 0, 0, 2]).unwrap();
        [trained, losses(&model, &ids)].concat()
    };
    let (found, expected) = (run(&gpu), run(&Device::cpu()));
    assert!(found.len() == expected.len() && found.len() > 1000);
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "number {i}: {a} where the host has {b}");
    }
}
