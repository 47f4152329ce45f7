//! Adapters of loralib as PEFT's, and how much of a trained one is left at half its parameters.

use crate::shared;
use eckart::io::encode;
use eckart::io::peft::{Budget, from_loralib, open};
use eckart::nn::{Arch, Model, ModelConfig};
use eckart::rank::{Bounds, Curve, Rule, Tail, allocate};
use eckart::{Device, Seed, Tensor};
use std::path::{Path, PathBuf};

const RULES: [(&str, Rule); 6] = [
    ("uniform", Rule::Uniform),
    ("published", Rule::Published),
    ("closed form, slow", Rule::ClosedForm(Tail::Slow)),
    ("closed form, power", Rule::ClosedForm(Tail::Power)),
    ("closed form, exponential", Rule::ClosedForm(Tail::Exponential)),
    ("greedy", Rule::Greedy),
];

/// RoBERTa's base on MNLI: rank 8 on queries and values of twelve blocks, alpha 16, and a classifier of three.
fn trained() -> Option<PathBuf> {
    shared::file("lora-weights/roberta_base_lora_mnli.safetensors")
}

#[test]
fn a_trained_adapter_is_converted_and_fits_its_model() {
    let Some(file) = trained() else { return };
    let adapter = from_loralib(&file, 16.0).unwrap();
    let sizes = ModelConfig::new(Arch::Roberta, 50_265, 514, 12, 12, 768);
    let model = |labels: &[&str]| {
        let labels = Some(labels.iter().map(|label| label.to_string()).collect());
        Model::new(&ModelConfig { labels, ..sizes.clone() }, Seed(0), &Device::null()).unwrap()
    };
    assert_eq!(adapter.check(Some(&model(&["a", "b", "c"]))), [""; 0]);
    assert!(!adapter.check(Some(&model(&["a", "b"]))).is_empty(), "a classifier of three does not fit one of two");
    assert_eq!(adapter.classes(None).map(|classes| classes.len()), Some(3));
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("adapter");
    adapter.write(&folder).unwrap();
    let read = open(&folder).unwrap();
    assert_eq!((read.config.rank, read.config.alpha, &*read.config.whole), (8, 16.0, &["classifier".to_string()][..]));
    let layers = read.show().unwrap();
    assert_eq!((layers.len(), layers[0].scale, read.parameters().unwrap()), (24, 2.0, 24 * 8 * 1536));
}

/// The error of the nearest adapter with half the parameters, over the norm of the whole.
#[test]
fn half_of_a_trained_adapter_by_each_rule() {
    let Some(file) = trained() else { return };
    let adapter = from_loralib(&file, 16.0).unwrap();
    let curves: Vec<Curve> = adapter.show().unwrap().iter().map(|layer| layer.curve()).collect();
    let costs: Vec<u64> = curves.iter().map(Curve::cost).collect();
    let budget = adapter.parameters().unwrap() as u64 / 2;
    let whole: f64 = curves.iter().map(|curve| curve.left(0)).sum();
    let found = RULES.map(|(name, rule)| {
        let found = allocate(&curves, &costs, budget, Bounds::default(), rule).unwrap();
        let error = (found.left / whole).sqrt();
        println!("{name:26} {:6} of {budget} parameters, error {error:.4}, ranks {:?}", found.spent, found.ranks);
        assert!(found.spent <= budget || rule == Rule::Published, "{name}");
        (error, found)
    });
    let [(uniform, _), .., (greedy, best)] = &found;
    assert!(greedy < uniform, "{greedy} is not below {uniform}");
    let kept = found.iter().filter(|(_, found)| found.spent <= budget);
    assert!(kept.into_iter().all(|(error, _)| error >= greedy), "at equal costs greedy is the best there is");
    // What is written has this error.
    let small = adapter.shrink(Budget::Parameters(budget, Rule::Greedy)).unwrap();
    let left: f64 = small.show().unwrap().iter().map(|layer| layer.norm().powi(2)).sum();
    assert!((whole - left - best.left).abs() < 1e-6 * whole);
    assert_eq!(small.parameters().unwrap() as u64, best.spent);
    let ranks: Vec<usize> = small.show().unwrap().iter().map(|layer| layer.rank).collect();
    assert_eq!(ranks, best.ranks);
    let error = adapter.shrink(Budget::Parameters(24 * 1536 - 1, Rule::Greedy)).unwrap_err().to_string();
    assert!(error.contains("rank 1 everywhere takes 36864, and there are 36863"), "{error}");
}

fn file(folder: &Path, tensors: &[(&str, [usize; 2])]) -> PathBuf {
    let tensors: Vec<(String, Tensor)> = tensors
        .iter()
        .map(|(name, shape)| (name.to_string(), Tensor::zeros(*shape, eckart::DType::F32, &Device::cpu()).contiguous()))
        .collect();
    let bytes = encode(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.array()))).unwrap();
    let path = folder.join("adapter.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_is_no_adapter_of_loralib_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let refused = |tensors: &[(&str, [usize; 2])], alpha: f64, words: &str| {
        let error = from_loralib(&file(scratch.path(), tensors), alpha).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let pair = [("h.0.q.lora_A", [2, 6]), ("h.0.q.lora_B", [5, 2])];
    refused(&[("h.0.q.weight", [2, 2])], 8.0, "no tensor's name ends in .lora_A");
    refused(&pair[..1], 8.0, "h.0.q has one factor of two");
    refused(&[pair[0], ("h.0.q.lora_B", [5, 1])], 8.0, "merged maps are not read");
    refused(&[pair[0], pair[1], ("h.0.q.bias", [5, 1])], 8.0, "h.0.q.bias was trained beside an adapter");
    refused(&pair, f64::NAN, "alpha");
    let adapter = from_loralib(&file(scratch.path(), &[pair[0], pair[1], ("h.1.norm.weight", [3, 1])]), 8.0).unwrap();
    assert_eq!((adapter.config.rank, adapter.config.alpha, adapter.config.whole), (2, 8.0, vec!["h.1.norm".into()]));
}
