//! Models that get adapters: which layers, how they begin, and what cannot be.

use crate::lora::{Net, assert_near, numbers, random};
use eckart::lowrank::{AdapterConfig, Keep, Lora, Start, adapt, each, merge, svd};
use eckart::module::{Dense, Map, Path};
use eckart::nn::{Arch, Model, ModelConfig};
use eckart::{DType, Device, Error, LinearMap, Module, Parameter, Seed, Shape, Tensor};
use std::collections::BTreeMap;

pub fn model(arch: Arch) -> Model {
    Model::new(&ModelConfig::new(arch, 11, 8, 2, 2, 12), Seed(1), &Device::cpu()).unwrap()
}

pub fn named(names: &[&str]) -> AdapterConfig {
    AdapterConfig { rank: 2, targets: names.iter().map(|name| name.to_string()).collect(), ..AdapterConfig::default() }
}

/// Every parameter's path and values.
pub fn contents(model: &dyn Module) -> Vec<(String, Vec<u64>)> {
    let bits = |p: &Parameter| numbers(p.tensor()).iter().map(|x| x.to_bits()).collect();
    model.parameters().iter().map(|(path, p)| (path.clone(), bits(p))).collect()
}

#[test]
fn names_choose_layers() {
    let chosen = |config: &AdapterConfig| adapt(&mut model(Arch::Gpt2), config, Seed(0)).unwrap();
    assert_eq!(chosen(&named(&["attn.c_proj"])), ["h.0.attn.c_proj", "h.1.attn.c_proj"]);
    assert_eq!(chosen(&named(&["h.1.mlp.c_fc", "wte"])), ["wte", "h.1.mlp.c_fc"]);
    let layers = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    let all: Vec<String> = (0..2).flat_map(|i| layers.map(|layer| format!("h.{i}.{layer}"))).collect();
    assert_eq!(chosen(&named(&["all-linear"])), all);
    let config = AdapterConfig { exclude: vec!["mlp.c_fc".into(), "attn.c_attn".into()], ..named(&["all-linear"]) };
    assert_eq!(chosen(&config), ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.attn.c_proj", "h.1.mlp.c_proj"]);
    let llama = adapt(&mut model(Arch::Llama), &named(&["q_proj"]), Seed(0)).unwrap();
    assert_eq!(llama, ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]);
}

#[test]
fn ranks_and_alphas_are_the_layers_own() {
    let mut gpt = model(Arch::Gpt2);
    let config = AdapterConfig {
        rank: 4,
        alpha: 6.0,
        rank_pattern: vec![("h.1.attn.c_proj".into(), 1), ("c_proj".into(), 3), ("attn.c_proj".into(), 2)],
        alpha_pattern: vec![("mlp.c_proj".into(), 9.0)],
        ..named(&["attn.c_proj", "mlp.c_proj", "mlp.c_fc"])
    };
    adapt(&mut gpt, &config, Seed(0)).unwrap();
    let mut found = Vec::new();
    each::<Lora>(&mut gpt, |path, map| found.push((path.to_owned(), map.rank(), map.scale())));
    let expected = [("attn.c_proj", 3, 2.0), ("mlp.c_fc", 4, 1.5), ("mlp.c_proj", 3, 3.0)];
    let expected: Vec<_> = expected.map(|(name, rank, scale)| (format!("h.0.{name}"), rank, scale)).into();
    assert_eq!(found[..3], expected);
    assert_eq!(found[3], ("h.1.attn.c_proj".into(), 1, 6.0));
    let mut gpt = model(Arch::Gpt2);
    adapt(&mut gpt, &AdapterConfig { rank_stabilised: true, ..config }, Seed(0)).unwrap();
    each::<Lora>(&mut gpt, |path, map| {
        let alpha = if path.ends_with("mlp.c_proj") { 9.0 } else { 6.0 };
        assert_eq!(map.scale(), alpha / (map.rank() as f64).sqrt());
    });
}

#[test]
fn adapters_alone_train_and_lie_beside_their_weights() {
    let mut gpt = model(Arch::Gpt2);
    let config = AdapterConfig { dora: true, ..named(&["h.0.attn.c_attn", "wte"]) };
    adapt(&mut gpt, &config, Seed(0)).unwrap();
    let trains: Vec<(String, Shape)> = gpt
        .parameters()
        .iter()
        .filter(|(_, p)| p.trains())
        .map(|(path, p)| (path.clone(), *p.tensor().shape()))
        .collect();
    let expected: [(&str, &[usize]); 6] = [
        ("wte.lora_embedding_A", &[11, 2]),
        ("wte.lora_embedding_B", &[2, 12]),
        ("wte.lora_magnitude_vector", &[12]),
        ("h.0.attn.c_attn.lora_A", &[12, 2]),
        ("h.0.attn.c_attn.lora_B", &[2, 36]),
        ("h.0.attn.c_attn.lora_magnitude_vector", &[36]),
    ];
    assert_eq!(trains, expected.map(|(path, shape)| (path.to_owned(), Shape::new(shape))));
    assert!(gpt.parameters().iter().any(|(path, p)| path == "h.0.attn.c_attn.weight" && !p.trains()));
    let mut gpt = model(Arch::Gpt2);
    adapt(&mut gpt, &AdapterConfig { freeze_a: true, ..named(&["attn.c_proj"]) }, Seed(0)).unwrap();
    assert!(gpt.parameters().iter().all(|(path, p)| p.trains() == path.ends_with("lora_B")));
}

/// Adapts, and gives the error, after which the model must be as it was.
#[track_caller]
fn refused(model: &mut dyn Module, config: &AdapterConfig) -> String {
    let before = contents(model);
    let trains = |model: &dyn Module| model.parameters().iter().map(|(_, p)| p.trains()).collect::<Vec<_>>();
    let trained = trains(model);
    let error = adapt(model, config, Seed(0)).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    assert_eq!((contents(model), trains(model)), (before, trained));
    error.to_string()
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut gpt = model(Arch::Gpt2);
    let mut error = |config: AdapterConfig| refused(&mut gpt, &config);
    let there = error(named(&["attn.c_proj", "c_prj"]));
    assert!(there.contains("no layer \"c_prj\"") && there.contains("wte, wpe, h.0.attn.c_attn"), "{there}");
    assert!(error(AdapterConfig { exclude: vec!["q".into()], ..named(&["c_fc"]) }).contains("no layer \"q\""));
    let pattern = AdapterConfig { rank_pattern: vec![("attn.c_proj".into(), 1)], ..named(&["c_fc"]) };
    let there = error(pattern);
    assert!(there.contains("no layer \"attn.c_proj\"; there are h.0.mlp.c_fc, h.1.mlp.c_fc"), "{there}");
    assert!(
        error(AdapterConfig { alpha_pattern: vec![("x".into(), 1.0)], ..named(&["c_fc"]) }).contains("no layer \"x\"")
    );
    assert!(error(named(&[])).contains("no layer is left"));
    let all = AdapterConfig { exclude: vec!["c_fc".into()], ..named(&["c_fc"]) };
    assert!(error(all).contains("no layer is left"));
    let zero = error(AdapterConfig { rank_pattern: vec![("h.1.mlp.c_fc".into(), 0)], ..named(&["c_fc"]) });
    assert_eq!(zero, "h.1.mlp.c_fc: rank 0 for a map [12, 48]: give one from 1 to 12");
    assert!(error(AdapterConfig { rank: 13, ..named(&["c_fc"]) }).contains("h.0.mlp.c_fc: rank 13"));
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(error(AdapterConfig { alpha, ..named(&["c_fc"]) }).contains("h.0.mlp.c_fc: alpha"));
    }
    let none = error(AdapterConfig { start: Start::Gradient(BTreeMap::new()), ..named(&["c_fc"]) });
    assert_eq!(none, "h.0.mlp.c_fc.weight: no gradient to start from");
    let gradient = |shape: &[usize]| {
        let gradient = Tensor::zeros(shape, DType::F32, &Device::cpu());
        Start::Gradient(BTreeMap::from([("h.0.mlp.c_fc.weight".to_owned(), gradient)]))
    };
    let shape = error(AdapterConfig { start: gradient(&[48, 12]), ..named(&["h.0.mlp.c_fc"]) });
    assert!(shape.contains("h.0.mlp.c_fc.weight: a gradient of shape [48, 12]"), "{shape}");
    let rank = error(AdapterConfig { rank: 7, start: gradient(&[12, 48]), ..named(&["h.0.mlp.c_fc"]) });
    assert!(rank.contains("h.0.mlp.c_fc: rank 7") && rank.contains("at most 6"), "{rank}");
    let none = error(AdapterConfig { start: Start::Given(BTreeMap::new()), ..named(&["c_fc"]) });
    assert_eq!(none, "h.0.mlp.c_fc: no factors to start from");
    let factors = [[12, 3], [3, 48]].map(|sizes| Tensor::zeros(sizes, DType::F32, &Device::cpu()));
    let start = Start::Given(BTreeMap::from([("h.0.mlp.c_fc".to_owned(), factors)]));
    let shapes = error(AdapterConfig { rank: 2, start, ..named(&["h.0.mlp.c_fc"]) });
    assert_eq!(shapes, "h.0.mlp.c_fc: factors [12, 3] and [3, 48] to start from at rank 2");
}

#[test]
fn layers_get_one_adapter() {
    let mut gpt = model(Arch::Gpt2);
    adapt(&mut gpt, &named(&["c_fc"]), Seed(0)).unwrap();
    let error = refused(&mut gpt, &named(&["all-linear"]));
    assert!(error.contains("h.0.mlp.c_fc: it has an adapter already"), "{error}");
    adapt(&mut gpt, &named(&["c_attn"]), Seed(0)).unwrap();
}

/// A map that is no matrix: twice another.
#[derive(Clone, Debug)]
struct Twice(LinearMap);

impl Module for Twice {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.0.visit(path, see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.0.visit_mut(path, see);
    }
}

impl Map for Twice {
    fn sizes(&self) -> [usize; 2] {
        self.0.sizes()
    }
    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let y = self.0.apply(x, None) * 2.0;
        bias.map_or_else(|| y.clone(), |bias| &y + bias)
    }
    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        self.0.apply_transposed(x) * 2.0
    }
    fn rows(&self, ids: &Tensor) -> Tensor {
        self.0.rows(ids) * 2.0
    }
    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        self.0.rows_between(start, count) * 2.0
    }
    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

/// Any map can be adapted; what needs the matrix itself says so.
#[test]
fn bases_need_not_be_dense() {
    let device = Device::cpu();
    let layer = LinearMap::new(Twice(LinearMap::dense(random([6, 5], 1, &device))));
    let mut net = Net { layer, bias: Parameter::new(random([5], 2, &device)) };
    let start = |start| AdapterConfig { start, ..named(&["layer"]) };
    let principal = refused(&mut net, &start(Start::Principal { iterations: None }));
    assert_eq!(principal, "layer: its base is not a dense matrix, which this start needs");
    let dora = refused(&mut net, &AdapterConfig { dora: true, ..named(&["layer"]) });
    assert_eq!(dora, "layer: its base is not a dense matrix, whose norms DoRA needs");
    let x = random([4, 6], 3, &device);
    let before = net.apply(&x);
    adapt(&mut net, &named(&["layer"]), Seed(0)).unwrap();
    assert_near(&net.apply(&x), &before, 0.0);
    let error = merge(&mut net, Keep::Weights, false).unwrap_err().to_string();
    assert_eq!(error, "layer: its base is not a dense matrix, so nothing can be added to it");
}

/// A layer [in, out] in double precision, stored this way or that.
pub fn layer(sides: [usize; 2], transposed: bool) -> Net {
    let device = Device::cpu();
    let w = random(sides, 1, &device);
    let layer = if transposed { LinearMap::transposed(w.t().contiguous()) } else { LinearMap::dense(w) };
    Net { layer, bias: Parameter::new(random([sides[1]], 2, &device)) }
}

pub fn lora(net: &Net) -> &Lora {
    net.layer.get().unwrap()
}

/// W of the base, [in, out].
pub fn weight(net: &Net) -> Tensor {
    let base = net.layer.get::<Dense>().or_else(|| lora(net).base().get()).unwrap();
    let w = base.weight.tensor().detach();
    if base.transposed { w.t() } else { w }
}

pub fn product(map: &Lora) -> Tensor {
    map.a().tensor().matmul(map.b().tensor()).detach() * map.scale()
}

pub fn deviation(x: &Tensor) -> f64 {
    let x = numbers(x);
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
}

/// W + s A B is W before, whatever the start, and sizes of A and B are as published.
#[test]
fn starts_change_nothing() {
    let gradients = |net: &Net| {
        let shape = *net.parameters()[0].1.tensor().shape();
        Start::Gradient(BTreeMap::from([("layer.weight".to_owned(), random(shape, 9, &Device::cpu()))]))
    };
    let cpu = Device::cpu();
    for transposed in [false, true] {
        let net = layer([40, 30], transposed);
        let starts = [
            Start::Uniform,
            Start::Gaussian,
            Start::ZeroA,
            Start::Principal { iterations: None },
            Start::Principal { iterations: Some(8) },
            gradients(&net),
            Start::Given(BTreeMap::from([(
                "layer".to_owned(),
                [[40, 4], [4, 30]].map(|sizes| random(sizes, 5, &cpu)),
            )])),
        ];
        for start in starts {
            let mut net = net.clone();
            let before = weight(&net);
            adapt(&mut net, &AdapterConfig { rank: 4, alpha: 6.0, start: start.clone(), ..named(&["layer"]) }, Seed(3))
                .unwrap();
            let map = lora(&net);
            assert_near(&(weight(&net) + product(map)), &before, 1e-14);
            let [a, b] = [map.a(), map.b()].map(|p| deviation(p.tensor()));
            let largest = |p: &Parameter| numbers(p.tensor()).iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            let near = |x: f64, y: f64| (x / y - 1.0).abs() < 0.15;
            match start {
                Start::Uniform => {
                    let bound = 1.0 / 40_f64.sqrt();
                    assert!(b == 0.0 && largest(map.a()) <= bound && near(a, bound / 3_f64.sqrt()), "{a}");
                }
                Start::Gaussian => assert!(b == 0.0 && near(a, 0.25), "{a}"),
                Start::ZeroA => {
                    assert!(a == 0.0 && largest(map.b()) <= 0.5 && near(b, 0.5 / 3_f64.sqrt()), "{b}");
                }
                // Columns of length 1, times c = ∜30 / 4.
                Start::Gradient(_) => {
                    let c = 30_f64.powf(0.25) / 4.0;
                    assert!(near(a, c / 40_f64.sqrt()) && near(b, c / 30_f64.sqrt()), "{a} {b}");
                }
                Start::Principal { .. } | Start::Given(_) => assert!(a > 0.1 && b > 0.1),
            }
        }
    }
}

/// What is left of W has the singular values that PiSSA did not take, and s A B those that it did.
#[test]
fn principal_starts_take_the_leading_values() {
    for (transposed, iterations) in [(false, None), (true, None), (false, Some(30))] {
        let mut net = layer([14, 10], transposed);
        let values = |x: &Tensor| numbers(&svd::svd(x).unwrap().s);
        let before = values(&weight(&net));
        let start = Start::Principal { iterations };
        adapt(&mut net, &AdapterConfig { rank: 3, alpha: 6.0, start, ..named(&["layer"]) }, Seed(3)).unwrap();
        let (rest, taken) = (values(&weight(&net)), values(&product(lora(&net))));
        let bound = if iterations.is_none() { 1e-12 } else { 1e-6 };
        assert!(before[..3].iter().zip(&taken).all(|(a, b)| (a - b).abs() < bound), "{before:?} {taken:?}");
        assert!(before[3..].iter().zip(&rest).all(|(a, b)| (a - b).abs() < bound), "{before:?} {rest:?}");
        // A and B share each value evenly.
        let lengths = |x: &Tensor| numbers(&(x * x).sum(&[0]));
        let (a, b) = (lengths(lora(&net).a().tensor()), lengths(&lora(&net).b().tensor().t()));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < bound), "{a:?} {b:?}");
    }
}

/// A of a gradient start spans its leading left vectors, B its next right ones.
#[test]
fn gradient_starts_span_singular_vectors() {
    let mut net = layer([14, 10], true);
    let gradient = random([10, 14], 9, &Device::cpu());
    let start = Start::Gradient(BTreeMap::from([("layer.weight".to_owned(), gradient.clone())]));
    adapt(&mut net, &AdapterConfig { rank: 2, start, ..named(&["layer"]) }, Seed(3)).unwrap();
    let found = svd::svd(&gradient.t()).unwrap();
    let c = 10_f64.powf(0.25) / 4.0;
    let within = |x: &Tensor, basis: &Tensor| {
        let coordinates = basis.t().matmul(x);
        (&coordinates * &coordinates).sum_all().item().unwrap() / (c * c)
    };
    let a = within(lora(&net).a().tensor(), &found.u.slice(1, 0, 2));
    let b = within(&lora(&net).b().tensor().t(), &found.v.slice(1, 2, 2));
    assert!((a - 2.0).abs() < 1e-3 && (b - 2.0).abs() < 1e-3, "{a} {b}");
}

#[test]
fn starts_are_functions_of_seed_and_path() {
    let adapted = |names: &[&str], seed| {
        let mut gpt = model(Arch::Gpt2);
        adapt(&mut gpt, &named(names), Seed(seed)).unwrap();
        contents(&gpt).into_iter().filter(|(path, _)| path.ends_with("lora_A")).collect::<Vec<_>>()
    };
    let (all, some) = (adapted(&["all-linear"], 5), adapted(&["attn.c_proj"], 5));
    assert!(some.len() == 2 && some.iter().all(|one| all.contains(one)) && some[0].1 != some[1].1);
    assert!(adapted(&["attn.c_proj"], 6) != some);
}
