//! Every op on a GPU against double precision on the host, and none of them on the host.

use crate::gpu;
use eckart::autograd::{Hvp, hvp};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::{Device, Module, Seed, Tensor, check};

#[test]
fn every_op_agrees_with_double_precision_and_has_its_own_kernels() {
    let Some(device) = gpu::device() else { return };
    let rows = check::device(&device).unwrap();
    let failed: Vec<String> = rows.iter().filter(|row| !row.passed).map(|row| format!("{row:?}")).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(device.gpu().unwrap().counters().host_ops, 0);
    assert_eq!(device.ledger().live().total(), 0);
    eprintln!("{} of {} ops", rows.len() - failed.len(), rows.len());
}

/// Loss, gradient and a Hessian-vector product of a small model, all parameters moving.
fn second_order(arch: Arch, device: &Device) -> Vec<f64> {
    let mut model = Model::new(&ModelConfig::new(arch, 17, 16, 2, 2, 16), Seed(3), device).unwrap();
    let ids: Vec<u32> = (0..32).map(|i| i * 7 % 17).collect();
    let ids = Tensor::new(&ids, [2, 16], device);
    let parameters: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.tensor().detach()).collect();
    let along = |(i, p): (usize, &Tensor)| Some(eckart::module::normal(p.shape(), 1.0, Seed(i as u64), device));
    let direction = parameters.iter().enumerate().map(along).collect();
    let loss = |p: &[Tensor]| {
        let mut p = p.iter();
        model.visit_mut(&eckart::module::Path::root(), &mut |_, parameter| parameter.bind(p.next().unwrap().clone()));
        model.loss(&ids, &ids, &Pass::default())
    };
    let Hvp { loss, gradient, products } = hvp(loss, &parameters, &[direction]);
    let all = [loss].into_iter().chain(gradient).chain(products.into_iter().flatten());
    all.flat_map(|x| x.to_vec::<f32>().unwrap()).map(f64::from).collect()
}

#[test]
fn hessian_vector_products_are_the_hosts() {
    let Some(device) = gpu::device() else { return };
    for arch in [Arch::Gpt2, Arch::Llama] {
        let (there, here) = (second_order(arch, &device), second_order(arch, &Device::cpu()));
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut there.iter().zip(&here).map(|(a, b)| a - b));
        assert!(error <= 1e-5 * norm(&mut here.iter().copied()), "off by {error:e}");
    }
    assert_eq!(device.gpu().unwrap().counters().host_ops, 0);
}
