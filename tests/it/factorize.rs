//! Layers replaced by their factors: the nearest of a rank, and trainable again.

use eckart::lowrank::svd::{orthonormal, svd};
use eckart::lowrank::{self, Factored, Method, Moments, Sketch, Weighting};
use eckart::module::{Path, normal};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::Input;
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, Error, LinearMap, Module, Parameter, Seed, Tensor};
use std::collections::BTreeMap;

fn random(shape: &[usize], seed: u64) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, &Device::cpu())
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_vec().unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// One layer, at `layer`.
#[derive(Clone)]
struct Net {
    layer: LinearMap,
}
eckart::module!(Net: layer);

fn net(w: &Tensor) -> Net {
    Net { layer: LinearMap::dense(w.clone()) }
}

fn rank(rank: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([("layer".to_owned(), rank)])
}

/// L R of a factorised layer.
fn product(net: &Net) -> Tensor {
    let Factored { factor_in, factor_out } = net.layer.get().unwrap();
    factor_in.tensor().detach().matmul(&factor_out.tensor().detach())
}

/// tr((W − LR)ᵀ C (W − LR)).
fn squared(w: &Tensor, product: &Tensor, c: &Tensor) -> f64 {
    let rest = w - product;
    (&rest * &c.matmul(&rest)).sum_all().item().unwrap()
}

/// Inputs that lie mostly along few directions, and their second moments by the layer's own count.
fn inputs(width: usize, net: &mut Net) -> (Tensor, Moments) {
    let spread: Vec<f64> = (0..width).map(|i| 0.6_f64.powi(i as i32)).collect();
    let x = random(&[40, width], 8) * &Tensor::new(&spread, [width], &Device::cpu());
    let x = x.matmul(&random(&[width, width], 9));
    let moments = lowrank::moments(net, &["layer"], |net| {
        for batch in 0..4 {
            net.layer.apply(&x.slice(0, batch * 10, 10).reshape([2, 5, width]), None);
        }
        Ok(())
    });
    (x, moments.unwrap())
}

/// Eckart & Young: the error is the tail of the spectrum, and is what is reported.
#[test]
fn plain_factors_are_off_by_the_tail_of_the_spectrum() {
    let w = random(&[12, 9], 1);
    let s = numbers(&svd(&w).unwrap().s);
    let square = |s: &[f64]| s.iter().map(|s| s * s).sum::<f64>();
    for (r, transposed) in [(1, false), (4, true), (9, false)] {
        let layer = if transposed { LinearMap::transposed(w.t().contiguous()) } else { LinearMap::dense(w.clone()) };
        let mut net = Net { layer };
        let x = random(&[2, 3, 12], 2);
        let replaced = lowrank::factorize(&mut net, &rank(r), &Method::default()).unwrap().remove(0);
        let rest = &w - &product(&net);
        let error = (&rest * &rest).sum_all().item().unwrap();
        assert!((error - square(&s[r..])).abs() < 1e-11);
        assert!((replaced.error - (square(&s[r..]) / square(&s)).sqrt()).abs() < 1e-12);
        assert_eq!((replaced.rank, replaced.parameters), (r, [108, r * 21]));
        let bias = random(&[9], 3);
        assert!(apart(&net.layer.apply(&x, Some(&bias)), &(x.matmul(&product(&net)) + &bias)) < 1e-12);
        let back = random(&[3, 9], 4);
        assert!(apart(&net.layer.apply_transposed(&back), &back.matmul(&product(&net).t())) < 1e-12);
        let ids = Tensor::new(&[3_u32, 11], [2], &Device::cpu());
        assert!(apart(&net.layer.rows(&ids), &product(&net).gather(&ids)) < 1e-12);
        let paths: Vec<String> = net.parameters().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["layer.factor_in", "layer.factor_out"]);
    }
}

/// Moments are those of all inputs, whatever the batches, and the model is what it was.
#[test]
fn moments_are_counted_over_batches() {
    let w = random(&[6, 5], 1);
    let mut net = net(&w);
    let id = net.parameters()[0].1.id();
    let (x, moments) = inputs(6, &mut net);
    assert_eq!(moments.rows("layer"), 40);
    assert!(apart(&moments.get("layer").unwrap(), &(x.t().matmul(&x) * (1.0 / 40.0))) < 1e-12);
    assert_eq!(net.parameters()[0].1.id(), id);
    assert!(net.layer.get::<eckart::module::Dense>().is_some());
    let failed = lowrank::moments(&mut net, &["layer"], |_| Err(Error::Config("no data".into())));
    assert_eq!(failed.err().unwrap().to_string(), "no data");
    assert!(net.layer.get::<eckart::module::Dense>().is_some() && moments.get("other").is_none());
}

/// Batches leave one sum for each layer behind, not activations.
#[test]
fn moments_take_no_memory_for_batches() {
    let device = Device::cpu();
    let w = Tensor::zeros([32, 8], DType::F32, &device).contiguous();
    let mut net = net(&w);
    let x = Tensor::zeros([64, 32], DType::F32, &device).contiguous();
    let before = device.ledger().live().total();
    let peak = |net: &mut Net, batches: usize| {
        device.ledger().reset_peak();
        let moments = lowrank::moments(net, &["layer"], |net| {
            (0..batches).for_each(|_| drop(net.layer.apply(&x, None)));
            Ok(())
        });
        assert_eq!(device.ledger().live().total() - before, 4 * 32 * 32);
        drop(moments);
        device.ledger().peak().total() - before
    };
    assert_eq!(peak(&mut net, 1), 4 * (32 * 32 + 64 * 8));
    assert_eq!(peak(&mut net, 9), peak(&mut net, 1));
}

#[test]
fn weighted_factors_are_nearer_where_inputs_lie() {
    let w = random(&[10, 8], 1);
    let mut weighted = net(&w);
    let (x, moments) = inputs(10, &mut weighted);
    let c = moments.get("layer").unwrap();
    let method = Method { inputs: Some(Weighting { moments: &moments, damping: 0.0 }), ..Method::default() };
    let replaced = lowrank::factorize(&mut weighted, &rank(3), &method).unwrap().remove(0);
    let mut plain = net(&w);
    lowrank::factorize(&mut plain, &rank(3), &Method::default()).unwrap();
    let [near, far] = [&weighted, &plain].map(|net| squared(&w, &product(net), &c));
    assert!(near < 0.5 * far, "{near} of {far}");
    let [in_weights, plain_in_weights] = [&weighted, &plain].map(|net| squared(&w, &product(net), &one(10)));
    assert!(in_weights > plain_in_weights);
    // What is reported is the error of the outputs.
    let outputs = |w: &Tensor| (&x.matmul(w) * &x.matmul(w)).sum_all().item().unwrap();
    let share = (outputs(&(&w - &product(&weighted))) / outputs(&w)).sqrt();
    assert!((replaced.error - share).abs() < 1e-10, "{} {share}", replaced.error);
}

fn one(n: usize) -> Tensor {
    let one: Vec<f64> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    Tensor::new(&one, [n, n], &Device::cpu())
}

/// Rank 1 in two dimensions: L is a direction, and R follows from it by least squares. All directions are tried.
#[test]
fn the_weighted_optimum_is_the_best_of_all_directions() {
    let w = random(&[2, 3], 5);
    let mut net = net(&w);
    let (_, moments) = inputs(2, &mut net);
    let c = moments.get("layer").unwrap();
    let along = |angle: f64| {
        let u = Tensor::new(&[angle.cos(), angle.sin()], [2, 1], &Device::cpu());
        let cu = c.matmul(&u);
        let r = cu.t().matmul(&w) * (1.0 / u.t().matmul(&cu).item().unwrap());
        squared(&w, &u.matmul(&r), &c)
    };
    let best = (0..20_000).map(|i| along(std::f64::consts::PI * f64::from(i) / 2e4)).fold(f64::INFINITY, f64::min);
    let method = Method { inputs: Some(Weighting { moments: &moments, damping: 0.0 }), ..Method::default() };
    lowrank::factorize(&mut net, &rank(1), &method).unwrap();
    let found = squared(&w, &product(&net), &c);
    assert!(found <= best && (best - found) < 1e-6 * best, "{found} of {best}");
}

/// Damping makes up for directions that no input has: there, factors are near W all the same.
#[test]
fn singular_moments_are_damped() {
    let w = random(&[6, 6], 1);
    let mut net = net(&w);
    // All inputs in three of six dimensions.
    let x = random(&[30, 3], 2).pad(1, 0, 3);
    let moments = lowrank::moments(&mut net, &["layer"], |net| {
        net.layer.apply(&x, None);
        Ok(())
    })
    .unwrap();
    let method = |damping| Method { inputs: Some(Weighting { moments: &moments, damping }), ..Method::default() };
    let error = lowrank::factorize(&mut net, &rank(3), &method(0.0)).unwrap_err().to_string();
    assert!(error.contains("layer layer: second moments of its inputs are singular with damping 0"), "{error}");
    assert!(net.layer.get::<eckart::module::Dense>().is_some());
    let exact = &x.matmul(&w);
    lowrank::factorize(&mut net, &rank(3), &method(1e-6)).unwrap();
    assert!(apart(&net.layer.apply(&x, None), exact) < 1e-4);
    let mut rest = self::net(&w);
    lowrank::factorize(&mut rest, &rank(5), &method(1e-6)).unwrap();
    // Three ranks are for the rows that are seen; of the others, what those do not span is left to the other two.
    let [seen, unseen] = [0, 3].map(|first| w.slice(0, first, 3));
    let span = orthonormal(&seen.t()).unwrap();
    let s = numbers(&svd(&(&unseen - &unseen.matmul(&span).matmul(&span.t()))).unwrap().s);
    let far = (&w - &product(&rest)).slice(0, 3, 3);
    assert!(((&far * &far).sum_all().item().unwrap().sqrt() - s[2]).abs() < 1e-3 * s[2]);
}

/// A spectrum that decays, as trained weights have.
#[test]
fn sketches_are_close() {
    let found = svd(&random(&[60, 50], 3)).unwrap();
    let s: Vec<f64> = (0..50).map(|i| 0.85_f64.powi(i)).collect();
    let w = (&found.u * &Tensor::new(&s, [50], &Device::cpu())).matmul(&found.v.t());
    let sketch = Sketch { oversample: 6, iterations: 1, seed: Seed(4) };
    let (mut exact, mut near) = (net(&w), net(&w));
    let (_, moments) = inputs(60, &mut exact.clone());
    for inputs in [None, Some(Weighting { moments: &moments, damping: 1e-3 })] {
        let best =
            lowrank::factorize(&mut exact.clone(), &rank(10), &Method { sketch: None, inputs }).unwrap()[0].error;
        let method = Method { sketch: Some(sketch), inputs };
        let found = lowrank::factorize(&mut near.clone(), &rank(10), &method).unwrap()[0].error;
        assert!(best <= found + 1e-9 && found < 1.02 * best, "{found} of {best}");
    }
    lowrank::factorize(&mut exact, &rank(10), &Method::default()).unwrap();
    let error =
        lowrank::factorize(&mut near, &rank(10), &Method { sketch: Some(sketch), inputs: None }).unwrap()[0].error;
    let rest = &w - &product(&near);
    let share = (&rest * &rest).sum_all().item().unwrap() / (&w * &w).sum_all().item().unwrap();
    assert!((error - share.sqrt()).abs() < 1e-9, "what is reported is what there is");
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_nothing_changes() {
    let config = ModelConfig::new(Arch::Gpt2, 11, 8, 1, 2, 8);
    let mut model = Model::new(&config, Seed(1), &Device::cpu()).unwrap();
    let before: Vec<String> = model.parameters().into_iter().map(|(path, _)| path).collect();
    let ranks = |named: &[(&str, usize)]| named.iter().map(|(path, r)| (path.to_string(), *r)).collect();
    let none = Moments::default();
    let weighted = Method { inputs: Some(Weighting { moments: &none, damping: 0.0 }), ..Method::default() };
    let mut refused = |named: &[(&str, usize)], method: &Method<'_>, part: &str| {
        let error = lowrank::factorize(&mut model, &ranks(named), method).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        let after: Vec<String> = model.parameters().into_iter().map(|(path, _)| path).collect();
        assert_eq!(after, before);
    };
    let plain = Method::default();
    refused(&[("h.0.mlp.c_fc", 0)], &plain, "layer h.0.mlp.c_fc: rank 0 of a layer [8, 32]: from 1 to 8");
    refused(&[("h.0.attn.c_attn", 2), ("h.0.mlp.c_fc", 9)], &plain, "layer h.0.mlp.c_fc: rank 9");
    refused(&[("h.0.attn.c_attn", 2), ("c_fc", 2)], &plain, "no layer \"c_fc\"; there are wte, wpe, h.0.attn.c_attn");
    refused(&[("h.0.mlp.c_fc", 2)], &weighted, "layer h.0.mlp.c_fc: there are no second moments");
    lowrank::factorize(&mut model, &ranks(&[("h.0.mlp.c_fc", 2)]), &plain).unwrap();
    let error = lowrank::factorize(&mut model, &ranks(&[("h.0.mlp.c_fc", 2)]), &plain).unwrap_err().to_string();
    assert!(error.contains("layer h.0.mlp.c_fc: only a dense layer"), "{error}");
    let mut bad = net(&(random(&[3, 3], 1) * f64::NAN));
    let error = lowrank::factorize(&mut bad, &rank(1), &plain).unwrap_err();
    assert!(matches!(&error, Error::NotFinite(text) if text.starts_with("layer layer: element (0, 0)")), "{error}");
}

/// A plan of what comes after needs shapes alone.
#[test]
fn the_null_device_has_factors_without_numbers() {
    let device = Device::null();
    let mut net = net(&normal(&[30, 20], 1.0, Seed(0), &device));
    net.visit_mut(&Path::root(), &mut |_, parameter| parameter.freeze());
    let replaced = lowrank::factorize(&mut net, &rank(3), &Method::default()).unwrap().remove(0);
    assert!(replaced.error.is_nan() && net.layer.get::<Factored>().unwrap().rank() == 3);
    assert!(net.parameters().iter().all(|(_, parameter)| !parameter.trains()), "what was frozen stays so");
}

/// The sequence 0 1 2 … from any start, by a model that learns it.
fn batch(start: u32) -> [Tensor; 2] {
    let row = |shift: u32| (0..4 * 12).map(|i| (start * 5 + i / 12 * 3 + i % 12 + shift) % 11).collect::<Vec<u32>>();
    [row(0), row(1)].map(|ids| Tensor::new(&ids, [4, 12], &Device::cpu()))
}

fn train(model: &mut Model, steps: u64) -> f64 {
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0));
    let mut last = f64::NAN;
    for step in 0..steps {
        let [x, y] = batch(step as u32);
        let loss = model.loss(&x, &y, &Pass::default());
        last = loss.item().unwrap();
        let mut gradients = Gradients::new();
        gradients.add(loss);
        optimizer.step(model, gradients, step, 1e-2, Some(1.0));
    }
    last
}

/// Factorising costs, fewer parameters learn it back.
#[test]
fn a_factorised_model_learns_again() {
    let config = ModelConfig::new(Arch::Llama, 11, 16, 2, 2, 16);
    let mut model = Model::new(&config, Seed(1), &Device::cpu()).unwrap();
    let trained = train(&mut model, 60);
    let names = ["gate_proj", "up_proj", "down_proj", "q_proj", "o_proj"];
    let moments = lowrank::moments(&mut model, &names, |model| {
        (0..8).for_each(|i| drop(model.logits(&batch(i)[0], &Pass::default())));
        Ok(())
    })
    .unwrap();
    let mut ranks = BTreeMap::new();
    let named = |path: &str| names.iter().any(|name| path.ends_with(name));
    model.visit_maps(&Path::root(), &mut |path, _| {
        let path = path.to_string();
        if named(&path) {
            ranks.insert(path, 2);
        }
    });
    let before = model.trainable_parameters();
    let method = Method { inputs: Some(Weighting { moments: &moments, damping: 1e-4 }), ..Method::default() };
    let replaced = lowrank::factorize(&mut model, &ranks, &method).unwrap();
    assert_eq!(replaced.len(), 10);
    let saved: usize = replaced.iter().map(|layer| layer.parameters[0] - layer.parameters[1]).sum();
    assert_eq!(model.trainable_parameters(), before - saved);
    let loss = |model: &Model| model.loss(&batch(3)[0], &batch(3)[1], &Pass::default()).item().unwrap();
    let cut = loss(&model);
    train(&mut model, 30);
    let tuned = loss(&model);
    assert!(trained < cut - 0.05 && tuned < 0.5 * cut, "{trained}, {cut} factorised, {tuned} tuned");
    let trains = |(_, parameter): &(String, Parameter)| parameter.trains();
    assert!(model.parameters().iter().all(trains));
}
