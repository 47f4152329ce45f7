//! Adapters per example: a batch with a bank is a loop over adapters, in values, gradients and training.

use eckart::autograd::{grad, hvp};
use eckart::lowrank::{self, Bank};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::Input;
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, LinearMap, Module, Parameter, Seed, Spec, Tag, Tensor, module::Path};

fn random(shape: &[usize], seed: u64) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, &Device::cpu())
}

fn ids(values: &[u32]) -> Tensor {
    Tensor::new(values, [values.len()], &Device::cpu())
}

/// Largest difference of two tensors' elements.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let [a, b] = [a, b].map(|x| x.to_vec::<f64>().unwrap());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// x [5, 3, 6], W [6, 7], A [4, 6, 2], B [4, 2, 7] and a cotangent of y.
fn operands() -> [Tensor; 5] {
    [&[5, 3, 6][..], &[6, 7], &[4, 6, 2], &[4, 2, 7], &[5, 3, 7]].map(|shape| random(shape, shape.len() as u64))
}

const CHOSEN: [u32; 5] = [2, 0, 0, 3, 2];

fn by_bank([x, w, a, b]: [&Tensor; 4]) -> Tensor {
    x.linear(w, None).add_adapters(x, a, b, &ids(&CHOSEN), 0.5)
}

/// One example after the other, with products that everybody knows.
fn by_loop([x, w, a, b]: [&Tensor; 4]) -> Tensor {
    let one = |(e, &id): (usize, &u32)| {
        let (x, a, b) = (x.index(0, e), a.index(0, id as usize), b.index(0, id as usize));
        (x.matmul(w) + x.matmul(&a).matmul(&b) * 0.5).unsqueeze(0)
    };
    let examples: Vec<Tensor> = CHOSEN.iter().enumerate().map(one).collect();
    Tensor::concat(&examples.iter().collect::<Vec<_>>(), 0)
}

#[test]
fn a_batch_is_a_loop_over_adapters() {
    let [x, w, a, b, c] = operands();
    let run = |f: fn([&Tensor; 4]) -> Tensor| {
        let leaves = [&x, &w, &a, &b].map(Tensor::leaf);
        let y = f(leaves.each_ref());
        let pulled = grad(&(&y * &c).sum_all(), &leaves.each_ref(), false);
        [vec![y.detach()], pulled].concat()
    };
    for (found, expected) in run(by_bank).iter().zip(run(by_loop)) {
        assert!(apart(found, &expected) < 1e-13);
    }
    // Nobody uses adapter 1.
    let [da, db] = [3, 4].map(|i| run(by_bank)[i].index(0, 1).to_vec::<f64>().unwrap());
    assert!(da.iter().chain(&db).all(|&x| x == 0.0));
}

/// Every subset of what may want a gradient: what is kept differs, the gradients do not.
#[test]
fn gradients_do_not_depend_on_what_else_trains() {
    let [x, w, a, b, c] = operands();
    let all = [&x, &w, &a, &b];
    let pulled = |which: &[usize]| {
        let leaves: Vec<Tensor> =
            all.iter().enumerate().map(|(i, t)| if which.contains(&i) { t.leaf() } else { (*t).clone() }).collect();
        let y = by_bank([&leaves[0], &leaves[1], &leaves[2], &leaves[3]]);
        let wanted: Vec<&Tensor> = which.iter().map(|&i| &leaves[i]).collect();
        grad(&(&y * &c).sum_all(), &wanted, false)
    };
    let together = pulled(&[0, 1, 2, 3]);
    for which in [&[0][..], &[2], &[3], &[0, 2], &[1, 3], &[2, 3]] {
        for (found, &i) in pulled(which).iter().zip(which) {
            assert!(apart(found, &together[i]) < 1e-13, "{i} of {which:?}");
        }
    }
}

/// Added in place or not, derivatives of derivatives are those of the loop.
#[test]
fn second_derivatives_are_those_of_the_loop() {
    let [x, w, a, b, _] = operands();
    let parameters = [x, w, a, b];
    let direction = parameters.iter().enumerate().map(|(i, p)| Some(random(p.shape(), 10 + i as u64))).collect();
    let along = [direction];
    let bent = |f: fn([&Tensor; 4]) -> Tensor| {
        let loss = |p: &[Tensor]| f([&p[0], &p[1], &p[2], &p[3]]).tanh().sum_all();
        hvp(loss, &parameters, &along).products.remove(0)
    };
    let twice = |f: fn([&Tensor; 4]) -> Tensor| {
        let leaves = parameters.each_ref().map(|p| p.leaf());
        let loss = f(leaves.each_ref()).tanh().sum_all();
        let first = grad(&loss, &leaves.each_ref(), true);
        let square = first.iter().map(|g| (g * g).sum_all()).reduce(|a, b| a + b).unwrap();
        grad(&square, &leaves.each_ref(), false)
    };
    for (found, expected) in bent(by_bank).iter().zip(bent(by_loop)) {
        assert!(apart(found, &expected) < 1e-12);
    }
    for (found, expected) in twice(by_bank).iter().zip(twice(by_loop)) {
        assert!(apart(found, &expected) < 1e-11);
    }
}

/// The sum is made where the base's product lies, unless somebody still looks at that.
#[test]
fn sums_take_no_storage_of_their_own() {
    let device = Device::cpu();
    let fill = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &device).contiguous();
    let [x, w, a, b] = [fill(&[4, 64, 128]), fill(&[128, 128]), fill(&[3, 128, 2]), fill(&[3, 2, 128])];
    let ids = Tensor::new(&[0_u32, 1, 2, 0], [4], &device);
    let result = 4 * (4 * 64 * 128) as u64;
    let h = 4 * (4 * 64 * 2) as u64;
    let peak = |x: &Tensor, looking: bool| {
        let before = device.ledger().live().total();
        device.ledger().reset_peak();
        let base = x.linear(&w, None);
        let seen = looking.then(|| base.clone());
        let y = base.add_adapters(x, &a.leaf(), &b.leaf(), &ids, 1.0);
        assert_eq!(y.shape(), x.shape());
        drop(seen);
        device.ledger().peak().total() - before
    };
    for x in [x.clone(), x.leaf()] {
        // What is kept of x A, and scratch of its size.
        assert_eq!(peak(&x, false), result + 2 * h);
        assert_eq!(peak(&x, true), 2 * (result + h));
    }
    // What somebody still looks at stays as it was.
    let base = random(&[2, 3, 4], 1);
    let before = base.to_vec::<f64>().unwrap();
    let (x, a, b) = (random(&[2, 3, 5], 2), random(&[2, 5, 1], 3), random(&[2, 1, 4], 4));
    let y = base.clone().add_adapters(&x, &a, &b, &self::ids(&[1, 0]), 1.0);
    assert_eq!(base.to_vec::<f64>().unwrap(), before);
    assert!(apart(&y, &base) > 0.1);
}

/// A layer of a model that is trained: x traced, the base frozen or not.
struct Layer(LinearMap);
impl Module for Layer {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.0.visit(&path.join("layer"), see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.0.visit_mut(&path.join("layer"), see);
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        self.0.visit_maps(&path.join("layer"), see);
    }
}

/// Peak bytes of a step of one layer [width, width] on [8, time, width], and of its weights and gradients.
fn peak(width: usize, time: usize, bank: Option<[usize; 2]>) -> u64 {
    let device = Device::null();
    let fill = |shape: &[usize]| Tensor::from_array(device.alloc(Spec::new(DType::F32, shape)));
    let mut layer = Layer(LinearMap::dense(fill(&[width, width])));
    match bank {
        Some([n, rank]) => {
            lowrank::bank(&mut layer, &["layer"], n, rank, 1.0, Seed(0)).unwrap();
            lowrank::select(&mut layer, &[0; 8]).unwrap();
        }
        None => layer.visit_mut(&Path::root(), &mut |_, parameter| parameter.freeze()),
    }
    let x = fill(&[8, time, width]).leaf();
    device.ledger().reset_peak();
    let y = layer.0.apply(&x, None);
    let mut gradients = Gradients::new();
    gradients.add((&y * &y).sum_all());
    device.ledger().peak().total()
}

/// Beside a frozen layer whose input is kept: the adapters and their gradients, and what is `rank` wide for each token.
/// Nothing of the size of the weight, and no copy of the factors for each example.
#[test]
fn memory_grows_with_the_adapters_and_the_rank() {
    for (n, rank, time) in [(4, 8, 64), (64, 4, 64), (2, 1, 256)] {
        let extra = [512, 1024, 2048].map(|width| {
            let extra = peak(width, time, Some([n, rank])) - peak(width, time, None);
            let factors = 4 * (n * rank * 2 * width) as u64;
            let tokens = 4 * (8 * time * rank) as u64;
            // x A kept, the ids, and scratch that is alive with both gradients.
            assert!(extra <= 2 * factors + 2 * tokens + 1024, "{extra} bytes at {width}: {factors} and {tokens}");
            extra
        });
        assert_eq!(extra[2] - extra[1], 2 * (extra[1] - extra[0]), "{extra:?}: a line in the width");
        println!("{n} adapters of rank {rank}, {time} tokens: {extra:?} bytes");
    }
}

fn model(arch: Arch, seed: u64) -> Model {
    Model::new(&ModelConfig::new(arch, 11, 8, 2, 2, 8), Seed(seed), &Device::cpu()).unwrap().cast(DType::F64)
}

/// Random numbers in place of the zeros that B starts with.
fn stir(model: &mut Model) {
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string().ends_with("lora_B") {
            let value = random(parameter.tensor().shape(), 5) * 0.3;
            parameter.set(value);
        }
    });
}

fn tokens(batch: usize, seed: u64) -> Tensor {
    Input::index([batch, 6], 11).tensor(Seed(seed), DType::U32, &Device::cpu())
}

/// A whole model, both families, and blocks run again in backward.
#[test]
fn a_models_batch_is_its_examples_one_by_one() {
    for arch in [Arch::Gpt2, Arch::Llama] {
        let mut model = model(arch, 1);
        let layers = lowrank::bank(&mut model, &[lowrank::ALL_LINEAR], 3, 2, 4.0, Seed(2)).unwrap();
        assert!(layers.len() == if arch == Arch::Gpt2 { 8 } else { 14 }, "{layers:?}");
        stir(&mut model);
        let (x, chosen) = (tokens(4, 3), [1, 2, 1, 0]);
        lowrank::select(&mut model, &chosen).unwrap();
        let together = model.logits(&x, &Pass::default());
        for (e, id) in chosen.into_iter().enumerate() {
            lowrank::select(&mut model, &[id]).unwrap();
            let alone = model.logits(&x.slice(0, e, 1), &Pass::default());
            assert!(apart(&together.slice(0, e, 1), &alone) < 1e-13);
        }
        lowrank::select(&mut model, &chosen).unwrap();
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
    }
}

/// Ten steps of Adam on the sum of the examples' losses.
fn train(mut model: Model, x: &Tensor, chosen: &[u32]) -> Model {
    lowrank::select(&mut model, chosen).unwrap();
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0));
    for step in 0..10 {
        let mut gradients = Gradients::new();
        gradients.add(model.logits(x, &Pass::default()).cross_entropy_sum(x));
        optimizer.step(&mut model, gradients, step, 1e-2, None);
    }
    model
}

#[test]
fn adapters_trained_in_one_batch_are_those_trained_apart() {
    let fresh = || {
        let mut model = model(Arch::Llama, 4);
        lowrank::bank(&mut model, &["q_proj", "mlp.down_proj"], 2, 2, 4.0, Seed(5)).unwrap();
        model
    };
    let [x0, x1] = [tokens(2, 6), tokens(2, 7)];
    // Examples of the two tasks take turns.
    let rows = [x0.slice(0, 0, 1), x1.slice(0, 0, 1), x0.slice(0, 1, 1), x1.slice(0, 1, 1)];
    let mixed = Tensor::concat(&rows.each_ref(), 0);
    let together = train(fresh(), &mixed, &[0, 1, 0, 1]);
    let apart_ = [train(fresh(), &x0, &[0, 0]), train(fresh(), &x1, &[1, 1])];
    let untrained = fresh();
    let mut compared = 0;
    for (i, (path, parameter)) in together.parameters().into_iter().enumerate() {
        let of = |model: &Model| model.parameters()[i].1.tensor().detach();
        if !parameter.trains() {
            assert_eq!(apart(parameter.tensor(), &of(&untrained)), 0.0, "{path} is frozen");
            continue;
        }
        for (id, alone) in apart_.iter().enumerate() {
            let adapter = |t: &Tensor| t.detach().index(0, id);
            let found = adapter(parameter.tensor());
            assert!(apart(&found, &adapter(&of(alone))) < 1e-9, "{path}, adapter {id}");
            assert!(apart(&found, &adapter(&of(&untrained))) > 1e-3, "{path}, adapter {id} did not move");
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * 2 * 4);
}

/// Bits, for any number of threads, where runs of examples and columns are many.
#[test]
fn threads_do_not_matter() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let fill = |shape: &[usize], seed| Input::normal(shape).tensor(Seed(seed), DType::F32, &Device::cpu());
            let x = fill(&[9, 40, 300], 1).leaf();
            let (a, b) = (fill(&[3, 300, 20], 2).leaf(), fill(&[3, 20, 500], 3).leaf());
            let chosen = ids(&[0, 0, 2, 1, 1, 1, 2, 0, 0]);
            let y = fill(&[9, 40, 500], 4).add_adapters(&x, &a, &b, &chosen, 0.1);
            let pulled = grad(&(&y * &y).sum_all(), &[&x, &a, &b], false);
            [vec![y.detach()], pulled].concat().iter().flat_map(|t| t.to_vec::<f32>().unwrap()).collect::<Vec<f32>>()
        })
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_nothing_changes() {
    let mut model = model(Arch::Gpt2, 1);
    let before: Vec<String> = model.parameters().into_iter().map(|(path, _)| path).collect();
    let mut refused = |names: &[&str], n, rank, part: &str| {
        let error = lowrank::bank(&mut model, names, n, rank, 1.0, Seed(0)).unwrap_err();
        assert!(error.to_string().contains(part) && error.exit_code() == 2, "{error}");
    };
    refused(&["c_attn", "q_proj"], 1, 1, "no layer \"q_proj\"; there are wte, wpe, h.0.attn.c_attn");
    refused(&["c_attn"], 1, 9, "rank 9 for layer h.0.attn.c_attn [8, 24]: at most 8");
    refused(&["c_attn"], 1, 0, "1 adapters of rank 0");
    refused(&["c_attn"], 0, 1, "0 adapters");
    assert!(model.parameters().into_iter().zip(before).all(|((path, p), before)| path == before && p.trains()));
    let error = lowrank::select(&mut model, &[0]).unwrap_err().to_string();
    assert!(error.contains("no adapters to select"), "{error}");
    lowrank::bank(&mut model, &["c_attn"], 5, 1, 1.0, Seed(0)).unwrap();
    lowrank::bank(&mut model, &["h.1.mlp.c_fc"], 3, 1, 1.0, Seed(0)).unwrap();
    assert_eq!(model.parameters().iter().filter(|(_, p)| p.trains()).count(), 6);
    let error = lowrank::bank(&mut model, &["c_attn"], 5, 1, 1.0, Seed(0)).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn has adapters to select from already"), "{error}");
    lowrank::select(&mut model, &[2, 1]).unwrap();
    let x = tokens(2, 1);
    let kept = model.logits(&x, &Pass::default());
    let error = lowrank::select(&mut model, &[4, 3]).unwrap_err().to_string();
    assert!(error.contains("adapter 4 of example 0: layer h.1.mlp.c_fc has 3"), "{error}");
    assert_eq!(apart(&model.logits(&x, &Pass::default()), &kept), 0.0);
}

#[test]
fn one_adapter_can_be_taken_out() {
    let device = Device::cpu();
    let bank = Bank::new(LinearMap::dense(random(&[3, 4], 1)), random(&[5, 3, 2], 2), random(&[5, 2, 4], 3), 1.0);
    let [a, b] = bank.adapter(4);
    assert_eq!(a.to_vec::<f64>().unwrap(), random(&[5, 3, 2], 2).to_vec::<f64>().unwrap()[24..]);
    assert_eq!(b.shape()[..], [2, 4]);
    assert_eq!((a.array().tag(), bank.adapters()), (Tag::Weights, 5));
    assert!(device.ledger().live().total() == 0);
}

#[test]
#[should_panic(expected = "2 adapters are selected for a batch of 3")]
fn batches_of_another_size_are_refused() {
    let mut layer = Layer(LinearMap::dense(random(&[3, 4], 1)));
    lowrank::bank(&mut layer, &["layer"], 2, 1, 1.0, Seed(0)).unwrap();
    lowrank::select(&mut layer, &[0, 1]).unwrap();
    layer.0.apply(&random(&[3, 2, 3], 1), None);
}

#[test]
#[should_panic(expected = "no adapters are selected")]
fn choosing_comes_first() {
    let mut layer = Layer(LinearMap::dense(random(&[3, 4], 1)));
    lowrank::bank(&mut layer, &["layer"], 2, 1, 1.0, Seed(0)).unwrap();
    layer.0.apply(&random(&[3, 2, 3], 1), None);
}
