//! Adam with its state in eight bits: the published rules, bytes, and that it trains.

use crate::tiny;
use eckart::device::tagged;
use eckart::nn::Arch;
use eckart::optim::{Adam, Adam8bit, Gradients, Group, Optimizer};
use eckart::train::{Config, Method};
use eckart::{DType, Device, Parameter, Tag, Tensor, module};
use serde::Deserialize;

struct One {
    weight: Parameter,
}
module!(One: weight);

/// As in `tests/fixtures/adam_8bit.py`.
#[derive(Deserialize)]
struct File {
    weights: Vec<f64>,
    m: Vec<u32>,
    v: Vec<u32>,
    m_scale: Vec<f64>,
    v_scale: Vec<f64>,
}
const SHAPE: [usize; 2] = [7, 629];
const EVERY: usize = 41;

fn gradient(i: usize, w: f64, step: u64) -> f64 {
    let g = (0.7 * i as f64 + 1.3 * step as f64).sin() * 10_f64.powi(-((i % 5) as i32)) + 0.05 * w;
    if i / 256 == 3 { 0.0 } else { g }
}

/// Weights after some steps, and the optimizer.
fn run(shape: [usize; 2], dtype: DType, device: &Device, steps: u64) -> (Vec<f64>, Optimizer) {
    let start: Vec<f64> = (0..shape[0] * shape[1]).map(|i| (0.37 * i as f64).cos()).collect();
    let on = |x: &[f64]| match dtype {
        DType::F64 => Tensor::new(x, shape, device),
        _ => Tensor::new(&x.iter().map(|x| *x as f32).collect::<Vec<_>>(), shape, device),
    };
    let (mut model, mut optimizer) = (One { weight: Parameter::new(on(&start)) }, new());
    let numbers = |model: &One| -> Vec<f64> {
        let host = model.weight.tensor().detach().to_device(&Device::cpu()).unwrap();
        host.cast(DType::F64).to_vec().unwrap()
    };
    for step in 0..steps {
        let w = numbers(&model);
        let g: Vec<f64> = w.iter().enumerate().map(|(i, &w)| gradient(i, w, step)).collect();
        let mut gradients = Gradients::new();
        gradients.insert(model.weight.id(), on(&g).into_array());
        assert!(optimizer.step(&mut model, gradients, step, 0.01, None).taken);
    }
    (numbers(&model), optimizer)
}

fn new() -> Optimizer {
    let adam = Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
    Optimizer::new(Adam8bit(adam), Group::decay_matrices(0.1))
}

#[test]
fn steps_are_those_of_the_published_rules() {
    let file: File = serde_json::from_str(include_str!("../fixtures/adam_8bit.json")).unwrap();
    let (weights, optimizer) = run(SHAPE, DType::F64, &Device::cpu(), 8);
    for (found, expected) in weights.iter().step_by(EVERY).zip(&file.weights) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }
    for (name, array) in optimizer.state() {
        let code = |i: usize| array.slice::<u32>()[i / 4] >> (8 * (i % 4)) & 255;
        let codes = || (0..SHAPE[0] * SHAPE[1]).step_by(EVERY).map(code).collect::<Vec<_>>();
        let near = |expected: &[f64]| {
            assert_eq!(array.count(), expected.len());
            let apart = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b;
            assert!(array.slice::<f64>().iter().zip(expected).all(apart), "{name}");
        };
        match &*name {
            "weight.m" => assert_eq!(codes(), file.m),
            "weight.v" => assert_eq!(codes(), file.v),
            "weight.m_scale" => near(&file.m_scale),
            "weight.v_scale" => near(&file.v_scale),
            other => panic!("a slot {other}"),
        }
    }
}

/// Two bytes a parameter and eight for each block of 256, or eight for each parameter of few.
#[test]
fn state_takes_two_bytes_a_parameter() {
    for device in [Device::cpu(), Device::null(), Device::null_gpu()] {
        for (count, bytes) in [(4096, 2 * 4096 + 8 * 16), (4097, 2 * 4100 + 8 * 17), (4095, 8 * 4095), (1, 8)] {
            let weight = tagged(Tag::Weights, || Tensor::zeros([count], DType::F32, &device).contiguous());
            let model = One { weight: Parameter::new(weight) };
            let mut optimizer = new();
            optimizer.prepare(&model);
            assert_eq!(device.ledger().live()[Tag::Optimizer], bytes, "{count} parameters");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(SHAPE, DType::F32, &Device::cpu(), 3).0)
    };
    assert_eq!(bits(1), bits(3));
}

/// What is in eight bits cannot be fitted to other sizes: it begins anew.
#[test]
fn parameters_of_other_sizes_begin_anew() {
    let (_, mut optimizer) = run(SHAPE, DType::F32, &Device::cpu(), 2);
    let larger = One { weight: Parameter::new(Tensor::zeros([7, 630], DType::F32, &Device::cpu())) };
    optimizer.resize(&larger);
    for (name, array) in optimizer.state() {
        let zeros = match array.dtype() {
            DType::U32 => array.slice::<u32>().iter().all(|&word| word == 0),
            _ => array.slice::<f32>().iter().all(|&scale| scale == 0.0),
        };
        assert!(zeros, "{name}");
    }
}

/// Next to a middle a code may be the other one, which moves what follows by a part of a step: few elements, and little.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_takes_the_same_steps() {
    use eckart::device::gpu::Options;
    for (binding, shape) in [(None, SHAPE), (Some(64 << 10), [200, 101])] {
        // What is larger than can be bound goes part by part.
        let Some(device) = crate::gpu::device_with(Options { binding, ..Options::default() }) else { return };
        let (here, _) = run(shape, DType::F32, &Device::cpu(), 5);
        let (there, _) = run(shape, DType::F32, &device, 5);
        let apart: Vec<f64> = here.iter().zip(&there).map(|(a, b)| (a - b).abs()).collect();
        let far = apart.iter().filter(|&&apart| apart > 1e-6).count();
        assert!(far < here.len() / 100, "{far} of {} elements are off", here.len());
        assert!(apart.iter().all(|&apart| apart < 2e-3), "{:e}", apart.iter().fold(0.0_f64, |a, b| a.max(*b)));
    }
}

/// As AdamW does, on a model whose matrices are large enough; a resumed run is the run that never stopped.
#[test]
fn it_trains_as_adamw_does() {
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Gpt2, Arch::Llama] {
        let run = |method, out: &str| Config {
            arch,
            width: 64,
            optimizer: Some(method),
            lr: Some(3e-3),
            ..tiny::config(folder.path(), &format!("{arch:?} {out}"))
        };
        let last = |config: &Config| {
            tiny::train(config, false).unwrap().history.iter().filter_map(|line| line.loss).next_back()
        };
        let (whole, pieces) = (run(Method::Adamw8bit, "8 bits"), run(Method::Adamw8bit, "8 bits in pieces"));
        let (eight, dense) = (last(&whole).unwrap(), last(&run(Method::Adamw, "32 bits")).unwrap());
        assert!((eight - dense).abs() < 0.02 * dense, "{arch:?}: {eight}, with 32 bits {dense}");
        tiny::same_in_pieces(&whole, &pieces, 3);
    }
}
