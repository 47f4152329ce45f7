//! Gain curves of layers against what they are defined by.

use crate::hessian::Problem;
use eckart::autograd::grad;
use eckart::data::{Batch, IGNORED};
use eckart::lowrank::svd::svd;
use eckart::lowrank::{dequantise, quantise, whitening};
use eckart::module::{Dense, Path};
use eckart::nn::{Arch, Model, Pass};
use eckart::ops::quantised::Format;
use eckart::rank::{Curve, Losses, Sensitivity, Survey};
use eckart::train::Sample;
use eckart::{DType, Device, LinearMap, Module, Result, Seed, Tensor};
use std::collections::BTreeMap;

/// Three batches, of unlike numbers of targets that count.
fn batches() -> Vec<Batch> {
    let batch = |first: u32, ignored: usize| {
        let ids: Vec<u32> = (0..10).map(|i| (first + 3 * i + i * i) % 7).collect();
        let target = |i: usize| if i < ignored { IGNORED } else { (first + 5 * i as u32 + 1) % 7 };
        Batch { ids, targets: (0..10).map(target).collect(), context: 5, ..Batch::default() }
    };
    vec![batch(0, 0), batch(2, 4), batch(5, 1)]
}

/// The same with targets that all count, of one row and of two.
fn counted() -> Vec<Batch> {
    let [mut one, _, two] = batches().try_into().expect("three");
    one.ids.truncate(5);
    one.targets.truncate(5);
    vec![one, Batch { targets: two.ids.iter().rev().copied().collect(), ..two }]
}

fn survey(rank: usize) -> Survey {
    Survey { rank, oversample: 2, iterations: 3, samples: 8, tolerance: 0.0, damping: 0.0, ..Survey::default() }
}

fn curves(survey: &Survey, model: &Model, sensitivity: Sensitivity) -> Vec<Curve> {
    survey.look(model, &Sample::new(batches()), sensitivity).unwrap().curves
}

/// Each batch's gradient of each layer's weight, [in, out], and the batch's share.
fn gradients(model: &Model) -> Vec<(f64, BTreeMap<String, Tensor>)> {
    gradients_of(model, batches())
}

fn gradients_of(model: &Model, batches: Vec<Batch>) -> Vec<(f64, BTreeMap<String, Tensor>)> {
    let all: usize = batches.iter().map(Batch::counted).sum();
    let one = |batch: Batch| {
        let leaves: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.tensor().detach().leaf()).collect();
        let mut bound = model.clone();
        bound.bind(&leaves);
        let (ids, targets) = batch.upload(&model.device());
        let found = grad(&bound.loss(&ids, &targets, &Pass::default()), &leaves.iter().collect::<Vec<_>>(), false);
        let paths = model.parameters().into_iter().map(|(path, _)| path);
        let named: BTreeMap<String, Tensor> = paths.zip(found).collect();
        let mut by_layer = BTreeMap::new();
        model.clone().visit_maps(&Path::root(), &mut |path, map| {
            let dense = map.get::<Dense>().unwrap();
            let gradient = named[&format!("{path}.weight")].clone();
            by_layer.insert(path.to_string(), if dense.transposed { gradient.t() } else { gradient });
        });
        (batch.counted() as f64 / all as f64, by_layer)
    };
    batches.into_iter().map(one).collect()
}

fn mean(gradients: &[(f64, BTreeMap<String, Tensor>)], path: &str) -> Tensor {
    gradients.iter().map(|(share, layers)| &layers[path] * *share).reduce(|a, b| a + b).unwrap()
}

fn square(x: &Tensor) -> f64 {
    (x * x).sum_all().item().unwrap()
}

fn squares(x: &Tensor) -> Vec<f64> {
    svd(x).unwrap().s.to_vec::<f64>().unwrap().iter().map(|s| s * s).collect()
}

fn near(a: f64, b: f64, part: f64) -> bool {
    (a - b).abs() <= part * b.abs()
}

#[test]
fn gains_are_squares_of_singular_values() {
    for arch in [Arch::Gpt2, Arch::Llama] {
        let model = Problem::new(arch, 2).model;
        let gradients = gradients(&model);
        for curve in curves(&survey(8), &model, Sensitivity::Gradient) {
            let g = mean(&gradients, &curve.path);
            let expected = squares(&g);
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12 * expected[0];
            assert!(curve.gains.iter().zip(&expected).all(close), "{}: {:?} {expected:?}", curve.path, curve.gains);
            assert!(curve.rest.abs() < 1e-12 * expected[0]);
            let noise: f64 = gradients.iter().map(|(share, layers)| share.powi(2) * square(&layers[&curve.path])).sum();
            let shares: f64 = gradients.iter().map(|(share, _)| share * share).sum();
            let debiased = ((square(&g) - noise) / (1.0 - shares)).max(0.0) / g.count() as f64;
            assert!((curve.score - debiased).abs() < 1e-12 * square(&g), "{}: {}", curve.path, curve.score);
        }
    }
}

#[test]
fn sketches_find_the_leading_gains() {
    let model = Problem::new(Arch::Llama, 2).model;
    let whole = curves(&survey(8), &model, Sensitivity::Gradient);
    let (mut rests, mut layers) = (0.0, 0.0);
    for (sketched, whole) in curves(&survey(2), &model, Sensitivity::Gradient).iter().zip(whole) {
        let close = |(a, b): (&f64, &f64)| near(*a, *b, 1e-2);
        assert_eq!(sketched.gains.len(), 2);
        assert!(sketched.gains.iter().zip(&whole.gains).all(close), "{sketched:?} {whole:?}");
        // What is beyond them is estimated by itself, from four columns.
        let beyond = whole.left(2);
        assert!(sketched.rest > 0.2 * beyond && sketched.rest < 5.0 * beyond, "{} is {beyond}", sketched.rest);
        rests += sketched.rest / beyond;
        layers += 1.0;
    }
    let mean = rests / layers;
    assert!((0.5..2.0).contains(&mean), "right on average: {mean}");
}

/// Curvature of batches of unlike sizes is that of all their targets, as if they were one batch.
#[test]
fn batches_weigh_by_their_targets() {
    let model = Problem::new(Arch::Llama, 1).model;
    let one = |ids: [u32; 5], targets: [u32; 5]| Batch {
        ids: ids.into(),
        targets: targets.into(),
        context: 5,
        ..Batch::default()
    };
    let few = one([0, 3, 6, 2, 1], [3, IGNORED, IGNORED, IGNORED, IGNORED]);
    let many = one([5, 5, 0, 4, 2], [5, 0, 4, 2, 3]);
    let ids = [few.ids.clone(), many.ids.clone()].concat();
    let targets = [few.targets.clone(), many.targets.clone()].concat();
    let both = Batch { ids, targets, ..many.clone() };
    let traces = |batches: Vec<Batch>, seed: u64| {
        let survey = Survey { samples: 400, seed: Seed(seed), ..survey(8) };
        survey.traces(&model, &Sample::new(batches), true).unwrap().1.layers
    };
    let (apart, joined) = (traces(vec![few.clone(), many.clone()], 1), traces(vec![both], 2));
    for (a, b) in apart.iter().zip(&joined) {
        assert_eq!((a.samples, b.samples), (400, 400));
        assert!((a.mean - b.mean).abs() < 2.0 * a.error.hypot(b.error) * 1.5, "{a:?} {b:?}");
    }
    // Which is not what both say with equal voices.
    let [few, many] = [few, many].map(|batch| traces(vec![batch], 3));
    let unlike = |i: usize| {
        let equal = 0.5 * (few[i].mean + many[i].mean);
        (equal - joined[i].mean).abs() > 3.0 * few[i].error.max(many[i].error).hypot(joined[i].error)
    };
    assert!((0..joined.len()).any(unlike), "a test that equal weights would pass");
}

/// Rows are filled up with tokens that nothing is learnt from: no gain changes.
#[test]
fn what_fills_rows_up_does_not_count() {
    let model = Problem::new(Arch::Llama, 2).model;
    let batch = |context: usize| {
        let row = |tokens: [u32; 3], fill: u32| [&tokens[..], &vec![fill; context - 3]].concat();
        let ids = [row([1, 4, 2], 6), row([5, 0, 3], 6)].concat();
        let targets = [row([4, 2, 6], IGNORED), row([0, 3, 1], IGNORED)].concat();
        Batch { ids, targets, context, ..Batch::default() }
    };
    let damped = |context| {
        let survey = Survey { damping: 0.1, ..survey(8) };
        survey.look(&model, &Sample::new(vec![batch(context)]), Sensitivity::Data).unwrap().curves
    };
    for (a, b) in damped(3).iter().zip(&damped(5)) {
        let close = |(a, b): (&f64, &f64)| near(*a, *b, 1e-9) || (a - b).abs() < 1e-12;
        assert!(near(a.score, b.score, 1e-12) && a.gains.iter().zip(&b.gains).all(close), "{a:?} {b:?}");
    }
}

/// Gains in the inputs' norm are those of C^(−½) G.
#[test]
fn inputs_weigh_by_their_moments() {
    let model = Problem::new(Arch::Gpt2, 2).model;
    let gradients = gradients_of(&model, counted());
    let damped = Survey { damping: 0.1, ..survey(8) };
    for curve in damped.look(&model, &Sample::new(counted()), Sensitivity::Data).unwrap().curves {
        let all: usize = counted().iter().map(Batch::counted).sum();
        let moments = counted().into_iter().map(|batch| {
            let mut copy = model.clone();
            let seen = eckart::lowrank::moments(&mut copy, &[&curve.path], |model| {
                model.logits(&batch.upload(&model.device()).0, &Pass::default());
                Ok(())
            });
            seen.unwrap().get(&curve.path).unwrap() * (batch.counted() as f64 / all as f64)
        });
        let c = moments.reduce(|a, b| a + b).unwrap();
        let expected = squares(&whitening(&c, 0.1).unwrap().t().matmul(&mean(&gradients, &curve.path)));
        let close = |(a, b): (&f64, &f64)| (a - 0.5 * b).abs() < 1e-9 * expected[0];
        assert!(curve.gains.iter().zip(&expected).all(close), "{}: {:?} {expected:?}", curve.path, curve.gains);
    }
}

/// `up_proj` twice as large and `down_proj` half: the model is the same, and so is what a Newton step wins; plain gradients
/// are not.
#[test]
fn whitened_gains_do_not_depend_on_units() {
    let model = Problem::new(Arch::Llama, 1).model;
    let mut other = model.clone();
    other.visit_mut(&Path::root(), &mut |path, parameter| {
        let factor = match path.to_string() {
            path if path.ends_with("up_proj.weight") => 2.0,
            path if path.ends_with("down_proj.weight") => 0.5,
            _ => return,
        };
        parameter.set(parameter.tensor().detach() * factor);
    });
    let damped = Survey { damping: 0.1, ..survey(8) };
    let both = |sensitivity| [&model, &other].map(|model| curves(&damped, model, sensitivity));
    let [before, after] = both(Sensitivity::Kronecker);
    assert!(before.iter().zip(&after).all(|(a, b)| near(a.gains[0], b.gains[0], 1e-8)), "{before:?} {after:?}");
    let [before, after] = both(Sensitivity::Gradient);
    let down = before.iter().position(|curve| curve.path.ends_with("down_proj")).unwrap();
    assert!(near(after[down].gains[0], 4.0 * before[down].gains[0], 1e-8));
}

#[test]
fn curvature_divides_gains() {
    let model = Problem::new(Arch::Gpt2, 2).model;
    let plain = curves(&survey(8), &model, Sensitivity::Gradient);
    for sensitivity in [Sensitivity::Hessian, Sensitivity::GaussNewton] {
        let found = survey(8).look(&model, &Sample::new(batches()), sensitivity).unwrap();
        for (i, (curve, plain)) in found.curves.iter().zip(&plain).enumerate() {
            assert!(curve.score > 0.0 && near(curve.gains[1], plain.gains[1] / (2.0 * curve.score), 1e-9), "{curve:?}");
            let trace = found.traces.as_ref().unwrap()[i];
            let own = near(curve.score * (curve.sizes[0] * curve.sizes[1]) as f64, trace.mean, 1e-9);
            let said = found.notes.iter().any(|note| note.starts_with(&format!("{}: a trace of", curve.path)));
            assert!(own != said, "{}: the layer's own curvature, or a note that it is not", curve.path);
        }
    }
}

/// A frozen base in fewer bits is looked at like the matrix that it stands for.
#[test]
fn weights_of_any_kind_are_looked_at() {
    let mut model = Problem::new(Arch::Llama, 1).model.cast(DType::F32);
    quantise(&mut model, Format::Int8, &["all-linear"]).unwrap();
    let found = curves(&Survey { damping: 0.1, ..survey(8) }, &model, Sensitivity::Kronecker);
    dequantise(&mut model, &["all-linear"]).unwrap();
    let expected = curves(&Survey { damping: 0.1, ..survey(8) }, &model, Sensitivity::Kronecker);
    for (found, expected) in found.iter().zip(&expected) {
        assert!(near(found.gains[0], expected.gains[0], 1e-3), "{found:?} {expected:?}");
    }
}

#[test]
fn layers_that_win_nothing_are_named() {
    let mut model = Problem::new(Arch::Gpt2, 2).model;
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string() == "h.1.mlp.c_proj.weight" {
            parameter.set(parameter.tensor().detach() * 0.0);
        }
    });
    for sensitivity in [Sensitivity::Gradient, Sensitivity::Hessian, Sensitivity::Data] {
        let found = survey(4).look(&model, &Sample::new(batches()), sensitivity).unwrap();
        assert!(
            found.notes.iter().any(|note| note.starts_with("h.1.mlp.c_fc: its gradient is zero")),
            "{:?}",
            found.notes
        );
        let curve = found.curves.iter().find(|curve| curve.path == "h.1.mlp.c_fc").unwrap();
        assert_eq!(curve.gains, [0.0; 4]);
    }
}

#[test]
fn numbers_that_are_none_are_errors() {
    let mut model = Problem::new(Arch::Gpt2, 1).model;
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string() == "h.0.mlp.c_fc.bias" {
            parameter.set(parameter.tensor().detach() * f64::NAN);
        }
    });
    let problem = |sensitivity| survey(4).look(&model, &Sample::new(batches()), sensitivity).unwrap_err().to_string();
    assert!(problem(Sensitivity::Gradient).contains("NaN"), "{}", problem(Sensitivity::Gradient));
    let traces = survey(4).traces(&model, &Sample::new(batches()), false).unwrap_err().to_string();
    assert!(traces.contains("none of 9 samples of curvature is a number"), "{traces}");
    let unknown = Survey { names: vec!["c_fx".into()], ..survey(4) };
    let error = unknown.look(&model, &Sample::new(batches()), Sensitivity::Gradient).unwrap_err().to_string();
    assert!(error.contains("no layer \"c_fx\""), "{error}");
}

/// One large layer, and rows of it as data.
#[derive(Clone)]
struct Wide {
    map: LinearMap,
}
eckart::module!(Wide: map);

struct Rows(Tensor);

impl Losses<Wide> for Rows {
    fn batches(&self) -> u64 {
        2
    }
    fn counted(&self, _: u64) -> usize {
        self.0.shape()[0]
    }
    fn loss(&self, model: &Wide, batch: u64) -> Result<Tensor> {
        let y = model.map.apply(&(&self.0 + batch as f64), None);
        Ok((&y * &y).mean_all())
    }
    fn drawn(&self, model: &Wide, batch: u64, _: Seed) -> Result<Tensor> {
        self.loss(model, batch)
    }
}

/// What is held beside the model grows with rank and rows, and holds no matrix of the layer's size.
#[test]
fn no_gradient_of_a_layer_is_formed() {
    let (size, rows, device) = (512, 8, Device::cpu());
    let normal = |shape: &[usize], seed| eckart::module::normal(shape, 0.1, Seed(seed), &device);
    let model = Wide { map: LinearMap::dense(normal(&[size, size], 1)) };
    let data = Rows(normal(&[rows, size], 2));
    let survey = Survey { names: vec!["map".into()], rank: 4, oversample: 4, ..survey(4) };
    let peak = |look: &dyn Fn()| {
        device.ledger().reset_peak();
        let before = device.ledger().live().total();
        look();
        device.ledger().peak().total() - before
    };
    let [gradient, newton] = [Sensitivity::Gradient, Sensitivity::GaussNewton].map(|sensitivity| {
        peak(&|| {
            survey.look(&model, &data, sensitivity).unwrap();
        })
    });
    let hessian = peak(&|| {
        survey.traces(&model, &data, false).unwrap();
    });
    let matrix = (size * size * 4) as u64;
    assert!(
        [gradient, newton, hessian].iter().all(|&bytes| bytes < matrix / 2),
        "{gradient} {newton} {hessian} of {matrix}"
    );
}
