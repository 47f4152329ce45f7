//! Models that transformers wrote: every supported model_type, tiny, in double precision; and one that was trained.

use crate::torch::{Fixture, distance, norm, numbers};
use eckart::io::hub;
use eckart::nn::{Inputs, Model, Pass, Sampling, generate};
use eckart::optim::Gradients;
use eckart::{DType, Device, Module, Seed, Tensor};
use std::path::{Path, PathBuf};

/// The folders that `tests/fixtures/hub.py` writes: those that write text, and the others.
const CAUSAL: [&str; 7] = ["gpt2", "gpt2-plain", "llama", "llama-sharded", "mistral", "qwen2", "qwen3"];
const OTHERS: [&str; 6] = ["bert", "bert-classes", "roberta", "roberta-classes", "gpt2-classes", "llama-classes"];

/// All of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    CAUSAL.into_iter().chain(OTHERS)
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hub").join(name)
}

/// Each token's target is the next; the last has none.
fn next(ids: &Tensor) -> Tensor {
    let (ids, shape) = (ids.to_vec::<u32>().unwrap(), *ids.shape());
    let one = |row: &[u32]| row[1..].iter().copied().chain([u32::MAX]).collect::<Vec<_>>();
    Tensor::new(&ids.chunks(shape[1]).flat_map(one).collect::<Vec<_>>(), shape, &Device::cpu())
}

/// What a fixture gives its model, and the targets.
fn given(name: &str, fixture: &Fixture<'_>, model: &Model) -> (Inputs, Tensor) {
    let ids = fixture.indices("inputs");
    if !OTHERS.contains(&name) {
        let targets = next(&ids).to_device(&model.device()).unwrap();
        return ((&ids).into(), targets);
    }
    let inputs = Inputs {
        segments: fixture.has("segments").then(|| fixture.indices("segments")),
        mask: Some(fixture.indices("mask")),
        ..(&ids).into()
    };
    // A classifier that reads from left to right reads the last token.
    let places = name.starts_with("gpt2") || name.starts_with("llama");
    let places =
        places.then(|| places_of(&inputs, |row| row.iter().rposition(|&token| token == 1).into_iter().collect()));
    (Inputs { places, ..inputs }, fixture.indices("targets"))
}

/// Places in rows of the mask, as places in the batch.
fn places_of(inputs: &Inputs, of_row: impl Fn(&[u32]) -> Vec<usize>) -> Tensor {
    let (mask, time) = (inputs.mask.as_ref().unwrap().to_vec::<u32>().unwrap(), inputs.ids.shape()[1]);
    let rows = mask.chunks(time).enumerate();
    let places: Vec<u32> =
        rows.flat_map(|(b, row)| of_row(row).into_iter().map(move |t| (b * time + t) as u32)).collect();
    Tensor::new(&places, [places.len()], &inputs.ids.device().clone())
}

/// Logits without those of padding, which mean nothing.
fn told(logits: &[f64], inputs: &Inputs) -> Vec<f64> {
    match &inputs.mask {
        Some(mask) if logits.len() / mask.count() > 1 => {
            let size = logits.len() / mask.count();
            let rows = logits.chunks(size).zip(mask.to_vec::<u32>().unwrap());
            rows.filter(|(_, token)| *token == 1).flat_map(|(row, _)| row.to_vec()).collect()
        }
        _ => logits.to_vec(),
    }
}

/// Bounds: logits and each gradient relative to max(‖g‖, 10⁻⁶ ‖all‖), the loss absolutely. What has no influence on
/// the loss, as a key's bias, has a gradient of rounding noise: hence the second.
fn agrees(name: &str, model: &Model, pass: &Pass, bound: f64) {
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
    let fixture = Fixture::new(&bytes, &model.device());
    let (inputs, targets) = given(name, &fixture, model);
    let logits = told(&numbers(&model.logits(&inputs, pass)), &inputs);
    let error = distance(&logits, &told(&fixture.numbers("logits"), &inputs)) / norm(&logits);
    assert!(error <= bound, "{name}: logits off by {error:e}");
    let loss = model.loss(&inputs, &targets, pass);
    let error = (loss.item().unwrap() - fixture.numbers("loss")[0]).abs();
    assert!(error <= bound, "{name}: loss off by {error:e}");

    let expected = |path: &str| fixture.numbers(&format!("gradients.{}", model.config().hub_name(path)));
    let all: Vec<f64> = model.parameters().iter().flat_map(|(path, _)| expected(path)).collect();
    let mut gradients = Gradients::new();
    gradients.add(loss);
    for (path, parameter) in model.parameters() {
        let found = numbers(&Tensor::from_array(gradients.get(parameter.id()).unwrap().clone()));
        let expected = expected(&path);
        // No loss depends on a key's bias, which shifts all of a query's scores alike: in single precision its rounding
        // noise is compared with all there is.
        let idle = path.ends_with("key.bias") && model.parameters()[0].1.tensor().dtype() == DType::F32;
        let floor = if idle { 1.0 } else { 1e-6 };
        let error = distance(&found, &expected) / norm(&expected).max(floor * norm(&all));
        assert!(error <= bound, "{name}: gradient of {path} off by {error:e}");
    }
}

#[test]
fn every_kind_agrees_with_transformers_in_double_precision() {
    for name in names() {
        let model = hub::open(&folder(name), None, &Device::cpu()).unwrap().cast(DType::F64);
        for recompute in [false, true] {
            agrees(name, &model, &Pass { recompute, ..Pass::default() }, 1e-9);
        }
    }
}

#[test]
fn every_kind_agrees_with_transformers_in_single_precision() {
    for name in names() {
        agrees(name, &hub::open(&folder(name), None, &Device::cpu()).unwrap(), &Pass::default(), 1e-4);
    }
}

#[test]
#[cfg(feature = "gpu")]
fn every_kind_agrees_with_transformers_on_a_gpu() {
    let Some(device) = crate::gpu::device() else { return };
    for name in names() {
        agrees(name, &hub::open(&folder(name), None, &device).unwrap(), &Pass::default(), 1e-4);
    }
}

/// Tokens one by one, with the cache, give what all of them at once do.
#[test]
fn every_kind_generates_what_it_computes() {
    for name in CAUSAL {
        let model = hub::open(&folder(name), None, &Device::cpu()).unwrap().cast(DType::F64);
        let tokens = generate(&model, &[3, 1], 8, Sampling { temperature: 0.0, top_k: None, seed: Seed(0) }).unwrap();
        let read: Vec<u32> = [3, 1].into_iter().chain(tokens.iter().copied()).collect();
        let ids = Tensor::new(&read, [1, read.len()], &Device::cpu());
        let likeliest = model.logits(&ids, &Pass::default()).argmax(-1).to_vec::<u32>().unwrap();
        assert_eq!(tokens, likeliest[1..9], "{name}");
    }
}

#[test]
fn others_write_nothing_and_say_so() {
    for (name, word) in [("bert", "an encoder"), ("roberta-classes", "a classifier"), ("llama-classes", "a classifier")]
    {
        let model = hub::open(&folder(name), None, &Device::cpu()).unwrap();
        let sampling = Sampling { temperature: 0.0, top_k: None, seed: Seed(0) };
        let error = generate(&model, &[3, 1], 8, sampling).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("writes no text"), "{error}");
    }
}

/// Padding changes nothing: each row alone, without any, gives its logits.
#[test]
fn what_fills_rows_up_is_not_seen() {
    for name in OTHERS {
        let model = hub::open(&folder(name), None, &Device::cpu()).unwrap().cast(DType::F64);
        let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
        let fixture = Fixture::new(&bytes, &Device::cpu());
        let (inputs, _) = given(name, &fixture, &model);
        let together = told(&numbers(&model.logits(&inputs, &Pass::default())), &inputs);
        let mut alone = Vec::new();
        for (row, length) in [12, 7, 10].into_iter().enumerate() {
            let part = |x: &Tensor| x.slice(0, row, 1).slice(1, 0, length).contiguous();
            let inputs = Inputs { segments: inputs.segments.as_ref().map(part), ..(&part(&inputs.ids)).into() };
            alone.extend(numbers(&model.logits(&inputs, &Pass::default())));
        }
        let error = distance(&alone, &together) / norm(&together);
        assert!(error < 1e-12, "{name}: off by {error:e}");
    }
}

/// A head that is given some of the states makes of them what it does of all.
#[test]
fn places_choose_states() {
    for name in ["bert", "llama"] {
        let model = hub::open(&folder(name), None, &Device::cpu()).unwrap().cast(DType::F64);
        let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
        let fixture = Fixture::new(&bytes, &Device::cpu());
        let (inputs, targets) = given(name, &fixture, &model);
        let targets = targets.to_vec::<u32>().unwrap();
        let chosen: Vec<u32> = (0..targets.len() as u32).filter(|&i| targets[i as usize] != u32::MAX).collect();
        let few: Vec<u32> = chosen.iter().map(|&i| targets[i as usize]).collect();
        let tensor = |values: &[u32]| Tensor::new(values, [values.len()], &Device::cpu());
        let loss = |inputs: &Inputs, targets: &[u32]| {
            let targets = Tensor::new(targets, [targets.len()], &Device::cpu());
            let logits = model.logits(inputs, &Pass::default());
            logits.reshape([targets.count(), 17]).cross_entropy(&targets).item().unwrap()
        };
        let at_places = Inputs { places: Some(tensor(&chosen)), ..inputs.clone() };
        let difference = loss(&at_places, &few) - loss(&inputs, &targets);
        assert!(difference.abs() < 1e-12 && few.len() > 3, "{name}: {difference:e}");
    }
}

#[test]
fn a_shorter_context_takes_less_and_gives_the_same() {
    for (name, fewer) in [("llama", 4 * 8 * 4), ("gpt2", 0)] {
        let bytes = |context| {
            let device = Device::cpu();
            let model = hub::open(&folder(name), context, &device).unwrap();
            let ids = Tensor::new(&[1_u32, 5, 2], [1, 3], &device);
            let weights = device.ledger().live().total();
            (weights, model.logits(&ids, &Pass::default()).to_vec::<f32>().unwrap(), model.config().context)
        };
        let (all, short) = (bytes(None), bytes(Some(12)));
        assert_eq!((all.2, short.2), (16, 12));
        assert_eq!(all.1, short.1, "{name}");
        assert_eq!(all.0 - short.0, fewer, "{name}: bytes of four positions");
    }
}

/// What it costs is known before anything is read: shapes and tags alike.
#[test]
fn a_null_device_counts_what_a_real_one_holds() {
    for name in names() {
        let count = |device: Device| {
            let model = hub::open(&folder(name), None, &device).unwrap();
            assert_eq!(model.parameters().iter().filter(|(_, p)| !p.trains()).count(), 0);
            let (live, peak) = (device.ledger().live(), device.ledger().peak());
            assert_eq!(peak.total(), live.total(), "{name}: nothing is held twice");
            format!("{live:?}")
        };
        assert_eq!(count(Device::null()), count(Device::cpu()), "{name}");
    }
}

struct Story {
    model: Model,
    tokens: Vec<u32>,
    logits: Vec<f64>,
}

fn story(device: &Device) -> Option<Story> {
    let folder = crate::shared::file("stories260k")?;
    let text = std::fs::read_to_string(folder.join("expected_greedy.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let numbers = |key: &str| expected[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let model = hub::open(&folder, None, device).unwrap();
    let tokens = numbers("tokens").into_iter().map(|x| x as u32).collect();
    Some(Story { model, tokens, logits: numbers("logits_after_bos") })
}

impl Story {
    fn is_told(&self, count: usize) {
        let ids = Tensor::new(&self.tokens[..1], [1, 1], &self.model.device());
        let logits = numbers(&self.model.logits(&ids, &Pass::default()));
        let worst = logits.iter().zip(&self.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(logits.len() == self.logits.len() && worst <= 1e-4, "logits off by {worst:e}");
        let greedy = Sampling { temperature: 0.0, top_k: None, seed: Seed(0) };
        let tokens = generate(&self.model, &self.tokens[..1], count, greedy).unwrap();
        assert_eq!(tokens, self.tokens[1..=count]);
    }
}

#[test]
fn a_trained_llama_tells_its_story_token_for_token() {
    if let Some(story) = story(&Device::cpu()) {
        story.is_told(256);
    }
}

#[test]
#[cfg(feature = "gpu")]
fn a_trained_llama_tells_its_story_on_a_gpu() {
    let Some(device) = crate::gpu::device() else { return };
    if let Some(story) = story(&device) {
        story.is_told(24);
    }
}
