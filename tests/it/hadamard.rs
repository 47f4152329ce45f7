//! Multiplicative adapters per example: what their weights would be if written out.

use eckart::autograd::{grad, hvp};
use eckart::lowrank::{self, Hadamard};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::Input;
use eckart::optim::Gradients;
use eckart::{DType, Device, LinearMap, Module, Parameter, Seed, Spec, Tensor, module::Path};

fn random(shape: &[usize], seed: u64) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, &Device::cpu())
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let [a, b] = [a, b].map(|x| x.to_vec::<f64>().unwrap());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// One layer, at `layer`.
#[derive(Clone)]
struct Net {
    layer: LinearMap,
}
eckart::module!(Net: layer);

const CHOSEN: [u32; 4] = [2, 0, 2, 1];
const SCALE: f64 = 0.7;

/// A layer of 6 inputs and 5 outputs, with 4 adapters of rank 3; its weight stored either way.
fn net([w, b, a]: [&Tensor; 3], transposed: bool) -> Net {
    let base = if transposed { LinearMap::transposed(w.t().contiguous()) } else { LinearMap::dense(w.clone()) };
    let layer = LinearMap::new(Hadamard::new(base, b.clone(), a.clone(), SCALE));
    let mut net = Net { layer };
    lowrank::select(&mut net, &CHOSEN).unwrap();
    net
}

fn factors() -> [Tensor; 3] {
    [random(&[6, 5], 1), random(&[4, 3, 6], 2), random(&[4, 3, 5], 3)]
}

/// W ∘ (1 + s Σ b aᵀ) of one adapter, from traced factors.
fn written_out([w, b, a]: [&Tensor; 3], id: usize) -> Tensor {
    let (b, a) = (b.index(0, id), a.index(0, id));
    w * &(b.t().matmul(&a) * SCALE + 1.0)
}

/// Each example by its own weight.
fn by_loop(x: &Tensor, factors: [&Tensor; 3], transposed: bool) -> Tensor {
    let one = |(e, &id): (usize, &u32)| {
        let w = written_out(factors, id as usize);
        x.index(0, e).matmul(&if transposed { w.t() } else { w }).unsqueeze(0)
    };
    let examples: Vec<Tensor> = CHOSEN.iter().enumerate().map(one).collect();
    Tensor::concat(&examples.iter().collect::<Vec<_>>(), 0)
}

/// Values, and gradients of x, W, b and a; few rows at a time, where components are stacked, and many.
#[test]
fn each_example_has_a_weight_of_its_own() {
    let factors = factors();
    for (time, transposed) in [(2, false), (2, true), (100, false), (200, true)] {
        let mut net = net(factors.each_ref(), transposed);
        let (x, c) = (random(&[4, time, 6], 4), random(&[4, time, 5], 5));
        let leaves = [&x, &factors[0], &factors[1], &factors[2]].map(Tensor::leaf);
        let w = if transposed { leaves[1].t() } else { leaves[1].clone() };
        net.bind(&[w, leaves[2].clone(), leaves[3].clone()]);
        let found = net.layer.apply(&leaves[0], None);
        let expected = by_loop(&leaves[0], [&leaves[1], &leaves[2], &leaves[3]], false);
        assert!(apart(&found.detach(), &expected.detach()) < 1e-12);
        let pull = |y: &Tensor| grad(&(y * &c).sum_all(), &leaves.each_ref(), false);
        for (i, (found, expected)) in pull(&found).iter().zip(pull(&expected)).enumerate() {
            assert!(apart(found, &expected) < 1e-11, "{i}, {time} rows each");
        }
        let back = net.layer.apply_transposed(&c);
        assert!(apart(&back.detach(), &by_loop(&c, factors.each_ref(), true)) < 1e-12);
        let bias = random(&[5], 6);
        assert!(apart(&net.layer.apply(&x, Some(&bias)).detach(), &(found.detach() + &bias)) < 1e-13);
    }
}

#[test]
fn second_derivatives_are_those_of_the_weights_written_out() {
    let factors = factors();
    let x = random(&[4, 2, 6], 4);
    let parameters = [x, factors[0].clone(), factors[1].clone(), factors[2].clone()];
    let along = [parameters.iter().enumerate().map(|(i, p)| Some(random(p.shape(), 20 + i as u64))).collect()];
    let net = net(factors.each_ref(), false);
    let by_map = |p: &[Tensor]| {
        let mut net = net.clone();
        net.bind(&p[1..]);
        net.layer.apply(&p[0], None).tanh().sum_all()
    };
    let found = hvp(by_map, &parameters, &along).products.remove(0);
    let by_loop = |p: &[Tensor]| by_loop(&p[0], [&p[1], &p[2], &p[3]], false).tanh().sum_all();
    for (found, expected) in found.iter().zip(hvp(by_loop, &parameters, &along).products.remove(0)) {
        assert!(apart(found, &expected) < 1e-11);
    }
}

/// Kept between forward and backward: the result alone, beside x, the weight and the factors.
#[test]
fn nothing_is_kept_but_the_operands() {
    let device = Device::null();
    let fill = |shape: &[usize]| Tensor::from_array(device.alloc(Spec::new(DType::F32, shape)));
    for (rank, time) in [(1, 8), (4, 8), (4, 512)] {
        let mut net = Net { layer: LinearMap::dense(fill(&[64, 48])) };
        lowrank::hadamard(&mut net, &["layer"], 3, rank, 1.0, Seed(0)).unwrap();
        lowrank::select(&mut net, &[0, 1, 2, 0]).unwrap();
        for x in [fill(&[4, time, 64]), fill(&[4, time, 64]).leaf()] {
            let before = device.ledger().live().total();
            device.ledger().reset_peak();
            let y = net.layer.apply(&x, None);
            assert!(y.is_traced());
            // And a number that stands for each part's weights.
            let kept = device.ledger().live().total() - before - 4 * (4 * time * 48) as u64;
            assert!(kept <= 4 * rank as u64, "{kept} bytes");
            let mut gradients = Gradients::new();
            gradients.add((&y * &y).sum_all());
            drop(y);
            // Both cotangents of x, and of one product what it is made of; small vectors and factors besides.
            let stacked = if time == 8 { rank } else { 1 };
            let rows = 4 * (4 * time * (64 + 48) * (stacked + 1)) as u64;
            let peak = device.ledger().peak().total() - before;
            assert!(peak < 2 * rows + 4 * 4 * 1024 * rank as u64, "{peak} of {rows}");
        }
    }
}

#[test]
fn a_models_batch_is_its_examples_one_by_one_and_trains() {
    for arch in [Arch::Gpt2, Arch::Llama] {
        let config = ModelConfig::new(arch, 11, 8, 2, 2, 8);
        let mut model = Model::new(&config, Seed(1), &Device::cpu()).unwrap().cast(DType::F64);
        let x = Input::index([3, 6], 11).tensor(Seed(3), DType::U32, &Device::cpu());
        let plain = model.logits(&x, &Pass::default()).detach();
        let layers = lowrank::hadamard(&mut model, &[lowrank::ALL_LINEAR], 2, 2, 2.0, Seed(2)).unwrap();
        let chosen = [1, 0, 1];
        lowrank::select(&mut model, &chosen).unwrap();
        assert!(apart(&model.logits(&x, &Pass::default()).detach(), &plain) < 1e-13, "a starts at zero");
        model.visit_mut(&Path::root(), &mut |path, parameter| {
            if path.to_string().ends_with("hadamard_out") {
                let value = random(parameter.tensor().shape(), 5) * 0.2;
                parameter.set(value);
            }
        });
        let together = model.logits(&x, &Pass::default()).detach();
        assert!(apart(&together, &plain) > 1e-3);
        let gradients = |recompute| {
            let mut gradients = Gradients::new();
            gradients.add(model.loss(&x, &x, &Pass { recompute, ..Pass::default() }));
            let trained = model.parameters().into_iter().filter(|(_, p)| p.trains());
            let get = |(_, p): (String, Parameter)| Tensor::from_array(gradients.get(p.id()).unwrap().clone());
            trained.map(get).collect::<Vec<_>>()
        };
        let [kept, again] = [gradients(false), gradients(true)];
        assert_eq!(kept.len(), 2 * layers.len());
        assert!(kept.iter().zip(&again).all(|(a, b)| apart(a, b) < 1e-15));
        for (e, id) in chosen.into_iter().enumerate() {
            lowrank::select(&mut model, &[id]).unwrap();
            let alone = model.logits(&x.slice(0, e, 1), &Pass::default()).detach();
            assert!(apart(&together.slice(0, e, 1), &alone) < 1e-13);
        }
    }
}

#[test]
fn adapters_of_either_kind_are_selected_together() {
    let config = ModelConfig::new(Arch::Llama, 11, 8, 1, 2, 8);
    let mut model = Model::new(&config, Seed(1), &Device::cpu()).unwrap();
    lowrank::bank(&mut model, &["q_proj"], 4, 2, 2.0, Seed(2)).unwrap();
    lowrank::hadamard(&mut model, &["v_proj"], 3, 1, 1.0, Seed(3)).unwrap();
    let error = lowrank::hadamard(&mut model, &["q_proj"], 3, 1, 1.0, Seed(3)).unwrap_err().to_string();
    assert!(error.contains("self_attn.q_proj has adapters to select from already"), "{error}");
    let trained: Vec<String> =
        model.parameters().into_iter().filter(|(_, p)| p.trains()).map(|(path, _)| path).collect();
    let names = ["q_proj.lora_A", "q_proj.lora_B", "v_proj.hadamard_in", "v_proj.hadamard_out"];
    assert!(trained.iter().zip(names).all(|(path, name)| path.ends_with(name)) && trained.len() == 4, "{trained:?}");
    let error = lowrank::select(&mut model, &[0, 3]).unwrap_err().to_string();
    assert!(error.contains("adapter 3 of example 1") && error.contains("v_proj has 3"), "{error}");
    lowrank::select(&mut model, &[0, 2]).unwrap();
    model.logits(&Tensor::new(&[1_u32, 2, 3, 4], [2, 2], &Device::cpu()), &Pass::default());
}
