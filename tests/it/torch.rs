//! Tiny models written by PyTorch in double precision: logits, losses, every gradient, ten AdamW steps.

use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, Module, Seed, Tensor};
use safetensors::SafeTensors;

/// Learning rate and number of the fixture's steps.
const RATE: f64 = 1e-2;
const STEPS: u64 = 10;

pub struct Fixture<'a> {
    file: SafeTensors<'a>,
    device: Device,
}

impl<'a> Fixture<'a> {
    pub fn new(bytes: &'a [u8], device: &Device) -> Fixture<'a> {
        Fixture { file: SafeTensors::deserialize(bytes).expect("a valid fixture"), device: device.clone() }
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.file.tensor(name).unwrap_or_else(|_| panic!("{name} is in the fixture")).shape().to_vec()
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_ok()
    }

    fn words(&self, name: &str) -> Vec<[u8; 8]> {
        let data = self.file.tensor(name).unwrap_or_else(|_| panic!("{name} is in the fixture")).data();
        data.chunks_exact(8).map(|word| word.try_into().unwrap()).collect()
    }

    pub fn numbers(&self, name: &str) -> Vec<f64> {
        self.words(name).into_iter().map(f64::from_le_bytes).collect()
    }

    pub fn indices(&self, name: &str) -> Tensor {
        let ids: Vec<u32> = self.words(name).into_iter().map(|word| i64::from_le_bytes(word) as u32).collect();
        Tensor::new(&ids, &self.shape(name)[..], &self.device)
    }

    pub fn model(&self, config: &ModelConfig, dtype: DType) -> Model {
        let mut model = Model::new(config, Seed(0), &self.device).unwrap().cast(dtype);
        model.visit_mut(&eckart::module::Path::root(), &mut |path, parameter| {
            let name = format!("weights.{path}");
            assert_eq!(self.shape(&name), parameter.tensor().shape()[..], "{name}");
            let value = Tensor::new(&self.numbers(&name), &self.shape(&name)[..], &Device::cpu());
            parameter.set(value.cast(dtype).to_device(&self.device).unwrap());
        });
        model
    }
}

pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

pub fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::cpu()).unwrap().cast(DType::F64).to_vec().unwrap()
}

/// A key's bias shifts all of a query's scores alike, so no loss depends on it: its gradient is rounding noise, which
/// Adam divides by its own size. In single precision the middle third of `c_attn.bias` is therefore not compared.
///
/// Bounds: losses, each gradient relative to max(‖g‖, floor ‖all‖), each weight in units of rate × steps.
struct Bounds {
    loss: f64,
    gradient: f64,
    floor: f64,
    weight: f64,
}

fn agrees(bytes: &[u8], config: ModelConfig, dtype: DType, bounds: Bounds) {
    agrees_on(&Device::cpu(), bytes, config, dtype, bounds);
}

fn agrees_on(device: &Device, bytes: &[u8], config: ModelConfig, dtype: DType, bounds: Bounds) {
    let fixture = Fixture::new(bytes, device);
    let mut model = fixture.model(&config, dtype);
    let (ids, targets) = (fixture.indices("inputs"), fixture.indices("targets"));
    let loss = |model: &Model| model.loss(&ids, &targets, &Pass::default());
    let logits = numbers(&model.logits(&ids, &Pass::default()));
    assert!(distance(&logits, &fixture.numbers("logits")) <= bounds.gradient * norm(&logits), "logits");

    let expected = |parameter: &str| fixture.numbers(&format!("gradients.{parameter}"));
    let all: Vec<f64> = model.parameters().iter().flat_map(|(path, _)| expected(path)).collect();
    let mut gradients = Gradients::new();
    gradients.add(loss(&model));
    for (path, parameter) in model.parameters() {
        let found = numbers(&Tensor::from_array(gradients.get(parameter.id()).unwrap().clone()));
        let expected = expected(&path);
        let error = distance(&found, &expected) / norm(&expected).max(bounds.floor * norm(&all));
        assert!(error <= bounds.gradient, "gradient of {path}: off by {error:e}");
    }

    let mut optimizer = Optimizer::new(Adam { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 }, Group::decay_matrices(0.1));
    let losses = fixture.numbers("losses");
    for step in 0..STEPS {
        let now = loss(&model);
        let error = (now.item().unwrap() - losses[step as usize]).abs();
        assert!(error <= bounds.loss, "loss {step}: off by {error:e}");
        let mut gradients = Gradients::new();
        gradients.add(now);
        assert!(optimizer.step(&mut model, gradients, step, RATE, None).taken);
    }
    assert!((loss(&model).item().unwrap() - losses[STEPS as usize]).abs() <= bounds.loss, "last loss");
    for (path, parameter) in model.parameters() {
        let expected = fixture.numbers(&format!("final.{path}"));
        let found = numbers(&parameter.tensor().detach());
        let keys = found.len() / 3..2 * found.len() / 3;
        let noise = dtype == DType::F32 && path.ends_with("c_attn.bias");
        let moves = |i: &usize| !(noise && keys.contains(i));
        let error = |i: usize| (found[i] - expected[i]).abs();
        let worst = (0..found.len()).filter(moves).map(error).fold(0.0, f64::max);
        assert!(worst <= bounds.weight * RATE * STEPS as f64, "{path}: weights off by {worst:e}");
    }
}

pub fn gpt2() -> (&'static [u8], ModelConfig) {
    (include_bytes!("../fixtures/gpt2.safetensors"), ModelConfig::new(Arch::Gpt2, 17, 8, 2, 3, 12))
}

pub fn llama() -> (&'static [u8], ModelConfig) {
    let config = ModelConfig { kv_heads: 2, hidden: 24, ..ModelConfig::new(Arch::Llama, 17, 8, 2, 4, 16) };
    (include_bytes!("../fixtures/llama.safetensors"), config)
}

const DOUBLE: Bounds = Bounds { loss: 1e-9, gradient: 1e-9, floor: 1e-6, weight: 1e-8 };
const SINGLE: Bounds = Bounds { loss: 1e-5, gradient: 1e-4, floor: 1e-6, weight: 1e-2 };

#[test]
fn gpt2_agrees_with_pytorch_in_double_precision() {
    let (bytes, config) = gpt2();
    agrees(bytes, config, DType::F64, DOUBLE);
}

#[test]
fn llama_agrees_with_pytorch_in_double_precision() {
    let (bytes, config) = llama();
    agrees(bytes, config, DType::F64, DOUBLE);
}

#[test]
fn gpt2_agrees_with_pytorch_in_single_precision() {
    let (bytes, config) = gpt2();
    agrees(bytes, config, DType::F32, SINGLE);
}

#[test]
fn llama_agrees_with_pytorch_in_single_precision() {
    let (bytes, config) = llama();
    agrees(bytes, config, DType::F32, SINGLE);
}

#[test]
#[cfg(feature = "gpu")]
fn gpt2_agrees_with_pytorch_on_a_gpu() {
    let Some(device) = crate::gpu::device() else { return };
    let (bytes, config) = gpt2();
    agrees_on(&device, bytes, config, DType::F32, SINGLE);
}

#[test]
#[cfg(feature = "gpu")]
fn llama_agrees_with_pytorch_on_a_gpu() {
    let Some(device) = crate::gpu::device() else { return };
    let (bytes, config) = llama();
    agrees_on(&device, bytes, config, DType::F32, SINGLE);
}
