//! Models with adapters: training, merging, other ranks, groups.

use crate::adapt::{contents, deviation, layer, lora, model, named, product};
use crate::lora::{Net, assert_near, numbers, random};
use eckart::autograd::grad;
use eckart::lowrank::{AdapterConfig, Keep, Lora, LoraPlus, Start, adapt, bake, merge, svd, unmerge, with_dropout};
use eckart::module::Path;
use eckart::nn::{Arch, Model, Pass};
use eckart::ops::dropout::Mask;
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, Error, LinearMap, Module, Parameter, Seed, Shape, Tensor};
use std::collections::BTreeMap;

/// Gives factors other values.
fn stir(model: &mut dyn Module) {
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string().contains("lora_") {
            let (shape, device) = (*parameter.tensor().shape(), Device::cpu());
            let noise = random(shape, shape.count() as u64, &device).cast(parameter.tensor().dtype());
            let sum = parameter.tensor().detach() + noise * 0.3;
            parameter.set(sum);
        }
    });
}

fn logits(model: &Model) -> Tensor {
    model.logits(&Tensor::new(&[3_u32, 1, 4, 1, 5, 9], [2, 3], &Device::cpu()), &Pass::default()).detach()
}

#[test]
fn merged_models_compute_the_same_and_come_back_to_the_bit() {
    for (arch, dora) in [(Arch::Gpt2, false), (Arch::Llama, false), (Arch::Gpt2, true), (Arch::Llama, true)] {
        let mut model = model(arch);
        let table = if arch == Arch::Gpt2 { "wte" } else { "embed_tokens" };
        adapt(&mut model, &AdapterConfig { dora, ..named(&["all-linear", table]) }, Seed(0)).unwrap();
        stir(&mut model);
        let original = model.clone();
        let (before, parameters) = (logits(&model), contents(&model));
        merge(&mut model, Keep::Weights, true).unwrap();
        assert_near(&logits(&model), &before, 1e-5);
        let merged = contents(&model);
        assert_ne!(merged, parameters);
        merge(&mut model, Keep::Weights, true).unwrap();
        assert_eq!(contents(&model), merged, "merged twice");
        unmerge(&mut model, &mut |path| panic!("{path} was kept")).unwrap();
        assert_eq!((contents(&model), numbers(&logits(&model))), (parameters.clone(), numbers(&before)));
        // The same without keeping, from where the model came from.
        merge(&mut model, Keep::Nothing, true).unwrap();
        assert_eq!(contents(&model), merged);
        let weights: BTreeMap<String, Parameter> = original.parameters().into_iter().collect();
        let bad = unmerge(&mut model, &mut |path| Err(Error::Config(path.to_owned()))).unwrap_err().to_string();
        assert!(bad.ends_with(&format!("{table}.weight")), "{bad}");
        let small = Tensor::zeros([1, 1], DType::F32, &Device::cpu());
        assert!(unmerge(&mut model, &mut |_| Ok(small.clone())).unwrap_err().to_string().contains("in place of"));
        assert_eq!(contents(&model), merged);
        unmerge(&mut model, &mut |path| Ok(weights[path].tensor().detach())).unwrap();
        assert_eq!(contents(&model), parameters);
        // For good.
        merge(&mut model, Keep::Nothing, false).unwrap();
        let adapters = parameters.iter().filter(|(path, _)| path.ends_with("_B")).count();
        assert_eq!(bake(&mut model).len(), adapters);
        assert!(model.parameters().iter().all(|(path, _)| !path.contains("lora_")));
        assert_near(&logits(&model), &before, 1e-5);
    }
}

#[test]
fn factors_that_are_not_finite_are_not_merged() {
    let mut model = model(Arch::Gpt2);
    adapt(&mut model, &named(&["c_fc"]), Seed(0)).unwrap();
    stir(&mut model);
    let spoil = |model: &mut Model, name: &str, value: f64| {
        model.visit_mut(&Path::root(), &mut |path, parameter| {
            if path.to_string() == name {
                parameter.set(parameter.tensor().full_like(value).contiguous());
            }
        });
    };
    let (finite, before) = (model.clone(), contents(&model));
    for (value, what) in [(f64::NAN, "factor"), (f64::INFINITY, "factor"), (3e38, "sum of weight and adapter")] {
        model = finite.clone();
        spoil(&mut model, "h.1.mlp.c_fc.lora_A", value);
        let spoiled = contents(&model);
        let error = merge(&mut model, Keep::Weights, true).unwrap_err();
        assert!(matches!(error, Error::NotFinite(_)));
        assert_eq!(error.to_string(), format!("h.1.mlp.c_fc: non-finite {what}; the adapter was not merged"));
        assert_eq!(contents(&model), spoiled);
    }
    assert_eq!(contents(&finite), before);
}

#[test]
fn growing_changes_nothing_and_shrinking_little() {
    let mut net = layer([14, 10], false);
    adapt(&mut net, &AdapterConfig { rank: 3, alpha: 6.0, ..named(&["layer"]) }, Seed(3)).unwrap();
    stir(&mut net);
    let x = random([5, 14], 4, &Device::cpu());
    let (before, sum) = (net.apply(&x).detach(), product(lora(&net)));
    let map = |net: &mut Net, change: &dyn Fn(&mut Lora)| change(net.layer.get_mut().unwrap());
    map(&mut net, &|map| map.grow(7, Seed(8)).unwrap());
    assert_eq!((lora(&net).rank(), lora(&net).scale()), (7, 2.0));
    assert_near(&net.apply(&x), &before, 1e-14);
    let new = lora(&net).a().tensor().slice(1, 3, 4);
    assert!(deviation(&new) > 0.1 && deviation(&lora(&net).b().tensor().slice(0, 3, 4)) == 0.0);
    assert!(lora(&net).a().trains() && lora(&net).b().trains());
    // Back to what it was: the rest is of rank 3.
    map(&mut net, &|map| map.shrink(3).unwrap());
    assert_eq!(lora(&net).rank(), 3);
    assert_near(&net.apply(&x), &before, 1e-13);
    // Below, what is lost is the smallest singular value.
    map(&mut net, &|map| map.shrink(2).unwrap());
    let lost = &product(lora(&net)) - &sum;
    let smallest = numbers(&svd::svd(&sum).unwrap().s)[2];
    assert!(((&lost * &lost).sum_all().item().unwrap().sqrt() / smallest - 1.0).abs() < 1e-12);
    for rank in [1, 11] {
        let error = net.layer.get_mut::<Lora>().unwrap().grow(rank, Seed(0)).unwrap_err().to_string();
        assert!(error.contains(&format!("grown to {rank}: give one from 2 to 10")), "{error}");
    }
    for rank in [0, 3] {
        let error = net.layer.get_mut::<Lora>().unwrap().shrink(rank).unwrap_err().to_string();
        assert!(error.contains(&format!("shrunk to {rank}: give one from 1 to 2")), "{error}");
    }
    merge(&mut net, Keep::Weights, true).unwrap();
    let map = net.layer.get_mut::<Lora>().unwrap();
    let errors = [map.grow(5, Seed(0)), map.shrink(1)].map(|result| result.unwrap_err().to_string());
    assert!(errors.iter().all(|error| error.contains("unmerge it first")), "{errors:?}");
    assert_eq!(lora(&net).rank(), 2);
}

/// One step of Adam on ½‖y‖².
fn train(net: &mut Net, optimizer: &mut Optimizer, step: u64) {
    let y = net.apply(&random([5, 14], 4, &Device::cpu()));
    let mut gradients = Gradients::new();
    gradients.add((&y * &y).sum_all() * 0.5);
    optimizer.step(net, gradients, step, 1e-2, None);
}

/// An optimizer goes on with moments of what was there; what is new has a mean of zero, and of squares what is usual.
#[test]
fn optimizers_follow_another_rank() {
    let mut net = layer([14, 10], false);
    adapt(&mut net, &AdapterConfig { rank: 3, ..named(&["layer"]) }, Seed(3)).unwrap();
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0));
    (0..3).for_each(|step| train(&mut net, &mut optimizer, step));
    let state = |optimizer: &Optimizer| -> BTreeMap<String, Tensor> {
        optimizer.state().map(|(name, array)| (name, Tensor::from_array(array.to_owned()))).collect()
    };
    let old = state(&optimizer);
    net.layer.get_mut::<Lora>().unwrap().grow(5, Seed(1)).unwrap();
    optimizer.resize(&net);
    let new = state(&optimizer);
    assert_eq!(old.len(), 4);
    for (name, old) in &old {
        let axis = if name.contains("lora_A") { 1 } else { 0 };
        assert_eq!(numbers(&new[name].slice(axis, 0, 3)), numbers(old), "{name}");
        let begins = if name.ends_with(".v") { old.mean_all().item().unwrap() } else { 0.0 };
        let added = numbers(&new[name].slice(axis, 3, 2));
        assert!(added.iter().all(|x| (x - begins).abs() <= 1e-6 * begins), "{name}: {added:?}, not {begins}");
    }
    train(&mut net, &mut optimizer, 3);
    net.layer.get_mut::<Lora>().unwrap().shrink(2).unwrap();
    optimizer.resize(&net);
    assert!(state(&optimizer).values().all(|x| numbers(x).iter().all(|&x| x == 0.0)));
    train(&mut net, &mut optimizer, 4);
}

#[test]
fn groups_of_lora_plus() {
    let plus = LoraPlus { rate: 2e-4, ratio: 16.0, embedding_rate: 1e-6, decay: 0.1 };
    let groups = plus.groups().unwrap();
    let of = |path: &str, shape: &[usize]| {
        let group = groups.iter().find(|group| (group.takes)(path, &Shape::new(shape))).unwrap();
        (group.rate, group.decay)
    };
    assert_eq!(of("h.0.attn.c_attn.lora_A", &[12, 2]), (1.0, 0.1));
    assert_eq!(of("h.0.attn.c_attn.lora_B", &[2, 36]), (16.0, 0.1));
    assert_eq!(of("h.0.attn.c_attn.lora_magnitude_vector", &[36]), (16.0, 0.1));
    assert_eq!(of("wte.lora_embedding_A", &[11, 2]), (1e-6 / 2e-4, 0.1));
    assert_eq!(of("wte.lora_embedding_B", &[2, 12]), (1e-6 / 2e-4, 0.1));
    assert_eq!(of("h.0.attn.c_attn.bias", &[36]), (16.0, 0.0));
    assert_eq!(of("ln_f.weight", &[12]), (16.0, 0.0));
    assert_eq!(of("lm_head.weight", &[12, 11]), (1.0, 0.1));
    let bad = |plus: LoraPlus| plus.groups().err().unwrap().to_string();
    assert!(bad(LoraPlus { ratio: 0.0, ..plus }).contains("ratio 0"));
    assert!(bad(LoraPlus { ratio: f64::NAN, ..plus }).contains("ratio NaN"));
    assert!(bad(LoraPlus { rate: -1.0, ..plus }).contains("rate -1"));
    assert!(bad(LoraPlus { embedding_rate: f64::INFINITY, ..plus }).contains("embedding_rate inf"));
    assert!(bad(LoraPlus { decay: -0.1, ..plus }).contains("decay -0.1"));
}

/// Decay reaches every part, and rates are as many times as fast as they should be.
#[test]
fn lora_plus_steps_are_in_proportion() {
    let plus = LoraPlus { rate: 1e-3, ratio: 8.0, embedding_rate: 1e-4, decay: 0.5 };
    let mut gpt = model(Arch::Gpt2);
    adapt(&mut gpt, &AdapterConfig { dora: true, ..named(&["c_fc", "wte"]) }, Seed(0)).unwrap();
    stir(&mut gpt);
    let before: BTreeMap<String, Parameter> = gpt.parameters().into_iter().collect();
    // Without gradients, Adam moves nothing, and decay alone is left.
    let mut gradients = Gradients::new();
    for (_, p) in gpt.parameters().iter().filter(|(_, p)| p.trains()) {
        gradients.insert(p.id(), p.tensor().zeros_like().contiguous().into_array());
    }
    let mut optimizer = Optimizer::new(Adam::default(), plus.groups().unwrap());
    optimizer.step(&mut gpt, gradients, 0, plus.rate, None);
    for (path, p) in gpt.parameters() {
        let rate = match &*path {
            path if path.contains("lora_embedding") => 1e-4,
            path if path.ends_with("lora_B") || path.ends_with("vector") => 8e-3,
            path if path.ends_with("lora_A") => 1e-3,
            _ => 0.0,
        };
        assert_near(p.tensor(), &(before[&path].tensor() * (1.0 - 0.5 * rate)), 1e-7);
    }
}

/// A few steps make the loss fall, and leave every frozen weight as it was, to the bit.
#[test]
fn adapted_models_train_and_their_weights_stay() {
    let (device, count) = (Device::cpu(), 8);
    let ids = Tensor::new(&(0..16).map(|i| (i * 7 % 11) as u32).collect::<Vec<_>>(), [2, count], &device);
    let targets = Tensor::new(&(0..16).map(|i| (i * 5 % 11) as u32).collect::<Vec<_>>(), [2, count], &device);
    for arch in [Arch::Gpt2, Arch::Llama] {
        let table = if arch == Arch::Gpt2 { "wte" } else { "embed_tokens" };
        let config = named(&["all-linear", table]);
        let kinds = [
            config.clone(),
            AdapterConfig { dora: true, ..config.clone() },
            AdapterConfig { freeze_a: true, rank_stabilised: true, ..config.clone() },
            AdapterConfig { start: Start::Principal { iterations: None }, ..config.clone() },
        ];
        for (kind, config) in kinds.iter().enumerate() {
            for recompute in [false, true] {
                let mut model = model(arch);
                adapt(&mut model, config, Seed(0)).unwrap();
                let before: BTreeMap<_, _> = contents(&model).into_iter().collect();
                let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.01));
                let pass = Pass { dropout: None, recompute };
                let mut losses = Vec::new();
                for step in 0..12 {
                    let loss = model.loss(&ids, &targets, &pass);
                    losses.push(loss.item().unwrap());
                    let mut gradients = Gradients::new();
                    gradients.add(loss);
                    assert!(optimizer.step(&mut model, gradients, step, 2e-2, Some(1.0)).taken);
                }
                assert!(losses[11] < losses[0] - 0.05, "{arch:?}, kind {kind}: {losses:?}");
                for (path, bits) in contents(&model) {
                    let frozen = !path.contains("lora_") || (config.freeze_a && path.ends_with("_A"));
                    assert_eq!(bits == before[&path], frozen, "{arch:?}, kind {kind}: {path}");
                }
            }
        }
    }
}

/// What the adapter is given is dropped by the layer's own mask, in a pass with dropout alone; the base gets all of x.
#[test]
fn adapters_drop_what_they_are_given() {
    let device = Device::cpu();
    let (x, c) = (random([5, 14], 4, &device), random([5, 10], 5, &device));
    let mask = Mask::new(Seed(6), &device);
    for (transposed, dora, freeze_a) in
        [(false, false, false), (true, false, false), (false, false, true), (false, true, false), (true, true, true)]
    {
        let mut net = layer([14, 10], transposed);
        let config = AdapterConfig { rank: 3, alpha: 6.0, dropout: 0.4, dora, freeze_a, ..named(&["layer"]) };
        adapt(&mut net, &config, Seed(3)).unwrap();
        stir(&mut net);
        let x = x.leaf();
        let trains: Vec<Parameter> = net.parameters().into_iter().map(|(_, p)| p).filter(|p| p.trains()).collect();
        let wrt: Vec<&Tensor> = [&x].into_iter().chain(trains.iter().map(Parameter::tensor)).collect();
        let (y, back) = with_dropout(&mut net, &mask, |net| (net.apply(&x), net.layer.apply_transposed(&c)));
        let map = lora(&net);
        let [w, a, b] = [&crate::adapt::weight(&net), map.a().tensor(), map.b().tensor()];
        let own = mask.fold(Seed(0).named("layer").0);
        let factor = map.magnitude().map_or(Tensor::scalar(1.0, &device), |m| {
            let sum = w + a.matmul(b) * 2.0;
            m.tensor() / (&sum * &sum).sum(&[0]).sqrt().detach()
        });
        let bias = net.bias.tensor();
        let expected = (x.matmul(w) + x.dropout_by(0.4, &own).matmul(a).matmul(b) * 2.0) * &factor + bias;
        let c = &c * &factor;
        let expected_back = c.matmul(&w.t()) + c.dropout_by(0.4, &own).matmul(&b.t()).matmul(&a.t()) * 2.0;
        assert_near(&y, &expected, 1e-14);
        assert_near(&back, &expected_back, 1e-14);
        let loss = |y: &Tensor, back: &Tensor| y.sin().sum_all() + back.sin().sum_all();
        let found = grad(&loss(&y, &back), &wrt, false);
        let expected = grad(&loss(&expected, &expected_back), &wrt, false);
        found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected, 1e-13));
        // Outside of it, nothing is dropped.
        let whole = (x.matmul(w) + x.matmul(a).matmul(b) * 2.0) * &factor + bias;
        assert_near(&net.apply(&x), &whole, 1e-14);
    }
    let bad = |dropout| adapt(&mut layer([14, 10], false), &AdapterConfig { dropout, ..named(&["layer"]) }, Seed(0));
    for dropout in [1.0, -0.1, f64::NAN] {
        assert!(bad(dropout).unwrap_err().to_string().contains("is not in [0, 1)"));
    }
}

/// Blocks that are run again in backward drop the same elements again, after the pass is over too.
#[test]
fn recomputed_blocks_drop_the_same() {
    let ids = Tensor::new(&[3_u32, 1, 4, 1, 5, 9], [2, 3], &Device::cpu());
    let mask = Mask::new(Seed(6), &Device::cpu());
    let gradients = |dropout: f64, recompute| {
        let mut model = model(Arch::Llama);
        adapt(&mut model, &AdapterConfig { dropout, ..named(&["all-linear"]) }, Seed(0)).unwrap();
        stir(&mut model);
        let pass = Pass { dropout: None, recompute };
        let loss = with_dropout(&mut model, &mask, |model| model.loss(&ids, &ids, &pass));
        let mut gradients = Gradients::new();
        gradients.add(loss);
        let trains = model.parameters().into_iter().filter(|(_, p)| p.trains());
        trains
            .flat_map(|(_, p)| numbers(&Tensor::from_array(gradients.get(p.id()).unwrap().clone())))
            .collect::<Vec<_>>()
    };
    assert_eq!(gradients(0.3, true), gradients(0.3, false));
    assert_ne!(gradients(0.3, false), gradients(0.0, false));
}

/// With dropout, too, no layer keeps a second x.
#[test]
fn dropped_inputs_are_not_kept() {
    let device = Device::null();
    let held = |dropout: f64, dora| {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &device).contiguous();
        let mut net = Net { layer: LinearMap::dense(zeros(&[64, 80])), bias: Parameter::new(zeros(&[80])) };
        adapt(&mut net, &AdapterConfig { dropout, dora, ..named(&["layer"]) }, Seed(0)).unwrap();
        let (x, mask) = (zeros(&[300, 64]).leaf(), Mask::new(Seed(0), &device));
        let before = device.ledger().live().total();
        let y = with_dropout(&mut net, &mask, |net| net.apply(&x));
        device.ledger().live().total() - before - 4 * y.count() as u64
    };
    assert_eq!(held(0.5, false), held(0.0, false));
    // Norms and lengths over norms are there in both; with dropout h is not.
    assert_eq!(held(0.5, true) + 4 * 300 * 2, held(0.0, true));
}
