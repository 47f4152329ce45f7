//! Models whose weights are in fewer bits: what they compute, what they take, and adapters beside them.

use crate::adapt::{contents, model, named};
use crate::lora::{Net, assert_near, numbers, random};
use eckart::autograd::{backward, grad};
use eckart::lowrank::{
    ALL, ALL_LINEAR, AdapterConfig, Keep, Lora, Quantised, Start, adapt, bake, dequantise, merge, quantise,
};
use eckart::module::{Dense, Path};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::quantised::Format;
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, LinearMap, Module, Parameter, Seed, Tag, Tensor};

fn ids(device: &Device) -> Tensor {
    Tensor::new(&[3_u32, 1, 4, 1, 5, 9], [2, 3], device)
}

/// Embeddings and heads as well, in double precision: as the dense model of the same numbers, with gradients of all else.
#[test]
fn models_compute_with_the_numbers_that_are_stored() {
    for (arch, format) in
        [Arch::Gpt2, Arch::Llama].into_iter().flat_map(|arch| Format::ALL.map(|format| (arch, format)))
    {
        let mut quantised = model(arch);
        let layers = quantise(&mut quantised, format, &[ALL]).unwrap();
        assert_eq!(layers.len(), if arch == Arch::Gpt2 { 10 } else { 15 });
        let quantised = quantised.cast(DType::F64);
        let mut dense = quantised.clone();
        assert_eq!(dequantise(&mut dense, &[ALL]).unwrap(), layers);
        let run = |model: &Model, recompute: bool| {
            let logits = model.logits(&ids(&Device::cpu()), &Pass { dropout: None, recompute });
            let trains: Vec<Parameter> =
                model.parameters().into_iter().map(|(_, p)| p).filter(|p| p.trains()).collect();
            let wrt: Vec<&Tensor> = trains.iter().map(Parameter::tensor).collect();
            [vec![logits.detach()], grad(&logits.sin().sum_all(), &wrt, false)].concat()
        };
        let expected = run(&dense, false);
        assert!(expected.len() > 5);
        for recompute in [false, true] {
            let found = run(&quantised, recompute);
            assert_eq!(found.len(), expected.len());
            found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected, 1e-12));
        }
    }
}

#[test]
fn layers_are_named_and_what_cannot_be_is_refused() {
    let mut gpt = model(Arch::Gpt2);
    let before = contents(&gpt);
    let error = |gpt: &mut Model, format, names: &[&str]| quantise(gpt, format, names).unwrap_err().to_string();
    assert!(error(&mut gpt, Format::Nf4, &["c_atn"]).contains("there is no layer \"c_atn\""));
    let spoil = |gpt: &mut Model, value: f32| {
        gpt.visit_mut(&Path::root(), &mut |path, parameter| {
            if path.to_string() == "h.1.mlp.c_fc.weight" {
                parameter.set(parameter.tensor().full_like(value.into()).contiguous());
            }
        });
    };
    for (value, format, message) in [
        (f32::NAN, Format::Nf4, "h.1.mlp.c_fc: the weight is not finite; nothing was quantised"),
        (f32::NEG_INFINITY, Format::BF16, "h.1.mlp.c_fc: the weight is not finite; nothing was quantised"),
        (-70_000.0, Format::F16, "h.1.mlp.c_fc: 7e4 is too large for f16: take bf16 or nf4"),
    ] {
        let mut spoiled = gpt.clone();
        spoil(&mut spoiled, value);
        let there = contents(&spoiled);
        assert_eq!(error(&mut spoiled, format, &[ALL_LINEAR]), message);
        assert_eq!(format!("{:?}", contents(&spoiled)), format!("{there:?}"));
    }
    assert_eq!(contents(&gpt), before);
    assert_eq!(quantise(&mut gpt, Format::Int8, &["attn.c_proj"]).unwrap(), ["h.0.attn.c_proj", "h.1.attn.c_proj"]);
    let paths: Vec<String> = gpt.parameters().into_iter().filter(|(_, p)| !p.trains()).map(|(path, _)| path).collect();
    let expected =
        ["h.0.attn.c_proj", "h.1.attn.c_proj"].map(|path| [format!("{path}.codes"), format!("{path}.scales")]);
    assert_eq!(paths, expected.concat());
    assert!(error(&mut gpt, Format::Int8, &["c_proj"]).starts_with("h.0.attn.c_proj: it is not a dense matrix"));
    assert!(dequantise(&mut gpt, &["c_fc"]).unwrap_err().to_string().contains("none of c_fc is in fewer bits"));
    assert_eq!(dequantise(&mut gpt, &[ALL]).unwrap(), ["h.0.attn.c_proj", "h.1.attn.c_proj"]);
}

fn layer(sides: [usize; 2], transposed: bool, device: &Device) -> Net {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).contiguous().tagged(Tag::Weights);
    let [input, output] = sides;
    let weight =
        if transposed { LinearMap::transposed(zeros(&[output, input])) } else { LinearMap::dense(zeros(&sides)) };
    let mut net = Net { layer: weight, bias: Parameter::new(zeros(&[output])) };
    net.bias.freeze();
    net
}

/// As stored, in whole words; and while layers are replaced, one of them more.
#[test]
fn weights_take_what_their_bits_take() {
    for [input, output] in [[512_usize, 640], [37, 51], [1, 1]] {
        let n = input * output;
        for (format, bytes) in [
            (Format::F16, 2 * n),
            (Format::BF16, 2 * n),
            (Format::Int8, n.next_multiple_of(4) + 4 * output),
            (Format::Nf4, n.div_ceil(8) * 4 + n.div_ceil(64) * 4),
        ] {
            for (device, transposed) in [(Device::cpu(), false), (Device::null(), true), (Device::null_gpu(), false)] {
                let mut net = layer([input, output], transposed, &device);
                let before = device.ledger().live().total();
                device.ledger().reset_peak();
                quantise(&mut net, format, &["layer"]).unwrap();
                let bytes = bytes.next_multiple_of(4) as u64;
                assert_eq!(
                    device.ledger().live()[Tag::Weights],
                    bytes + 4 * output as u64,
                    "{format} {input} {output}"
                );
                assert_eq!(device.ledger().live().total(), bytes + 4 * output as u64);
                assert_eq!(device.ledger().peak().total(), before + bytes, "{format} {input} {output}");
            }
        }
    }
}

/// Most bytes of a forward and backward pass beyond the weights, x being kept and its gradient wanted.
pub fn peak(device: &Device, rows: usize, sides: [usize; 2], format: Option<Format>, rank: Option<usize>) -> u64 {
    let mut net = layer(sides, true, device);
    if let Some(format) = format {
        quantise(&mut net, format, &["layer"]).unwrap();
    }
    if let Some(rank) = rank {
        adapt(&mut net, &AdapterConfig { rank, ..AdapterConfig::default() }, Seed(0)).unwrap();
    }
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).contiguous();
    let (x, c) = (zeros(&[rows, sides[0]]).leaf(), zeros(&[rows, sides[1]]));
    let before = device.ledger().live().total();
    device.ledger().reset_peak();
    let loss = (net.apply(&x) * &c).sum_all();
    let mut held = Vec::new();
    backward(loss, &mut |_, gradient| held.push(gradient.densify()));
    device.ledger().peak().total() - before
}

/// No matrix of the size of the weight in either direction: on the host a panel, on a GPU what parts of sums take.
#[test]
fn passes_hold_no_unpacked_matrix() {
    let rows = 24;
    for side in [512, 1024, 2048] {
        for format in Format::ALL {
            let ends = 4 * (rows * (2 * side + 64)) as u64;
            for device in [Device::cpu as fn() -> Device, Device::null] {
                let found = peak(&device(), rows, [side, side + 64], Some(format), None);
                assert!(found <= ends + (4 << 16) + 64, "{format} {side}: {found} bytes, ends are {ends}");
                assert_eq!(found, peak(&Device::null(), rows, [side, side + 64], Some(format), None));
            }
            // Beside an adapter: gradients of its factors, and little else.
            let found = peak(&Device::cpu(), rows, [side, side + 64], Some(format), Some(4));
            assert!(found < ends + (4 << 16) + (8 * 4 * (2 * side + 64)) as u64, "{format} {side}: {found} bytes");
            let found = peak(&Device::null_gpu(), rows, [side, side + 64], Some(format), None);
            assert!(found < (4 * side * side) as u64 / 2, "{format} {side} on a GPU: {found} bytes");
        }
    }
}

/// Beside a base in fewer bits an adapter keeps x, which is there anyway, and the narrow product.
#[test]
fn adapters_keep_the_narrow_product_alone() {
    let (rows, rank) = (1000, 8);
    let kept = |device: &Device, rank: Option<usize>| {
        let mut net = layer([256, 256], true, device);
        quantise(&mut net, Format::Nf4, &["layer"]).unwrap();
        if let Some(rank) = rank {
            adapt(&mut net, &AdapterConfig { rank, ..AdapterConfig::default() }, Seed(0)).unwrap();
        }
        let x = Tensor::zeros([rows, 256], DType::F32, device).contiguous().leaf();
        let before = device.ledger().live().total();
        let y = net.apply(&x);
        let after = device.ledger().live().total();
        drop(y);
        after - before
    };
    for device in [Device::cpu(), Device::null(), Device::null_gpu()] {
        assert_eq!(kept(&device, None), 4 * 256 * rows as u64);
        // And the factor s, one number.
        assert_eq!(kept(&device, Some(rank)), 4 * ((256 + rank) * rows + 1) as u64);
    }
}

/// Losses of some steps of a small model in fewer bits with adapters.
pub fn losses(device: &Device, arch: Arch, format: Format, dora: bool, steps: u64) -> Vec<f64> {
    let sizes = ModelConfig::new(arch, 29, 16, 2, 2, 20);
    let mut model = Model::new(&sizes, Seed(1), device).unwrap();
    // Embeddings too: a head that stays could tell little apart.
    let layers = quantise(&mut model, format, &[ALL]).unwrap();
    let config = AdapterConfig { rank: 4, dora, targets: vec![ALL.into()], ..AdapterConfig::default() };
    assert_eq!(adapt(&mut model, &config, Seed(2)).unwrap(), layers);
    let mut optimizer = Optimizer::new(Adam::default(), Group::decay_matrices(0.0));
    let text: Vec<u32> = (0..49_u32).map(|i| (i * i + 3 * i) % 29).collect();
    let ids = Tensor::new(&text[..48], [3, 16], device);
    let targets = Tensor::new(&text[1..], [3, 16], device);
    let step = |step: u64| {
        let loss = model.loss(&ids, &targets, &Pass { dropout: None, recompute: step % 2 == 1 });
        let value = loss.detach();
        let mut gradients = Gradients::new();
        gradients.add(loss);
        optimizer.step(&mut model, gradients, step, 1e-2, None);
        value.item().unwrap()
    };
    (0..steps).map(step).collect()
}

#[test]
fn adapters_learn_beside_a_base_in_fewer_bits() {
    for (arch, format, dora) in [
        (Arch::Gpt2, Format::Nf4, false),
        (Arch::Gpt2, Format::Int8, true),
        (Arch::Llama, Format::Nf4, true),
        (Arch::Llama, Format::F16, false),
        (Arch::Gpt2, Format::BF16, false),
    ] {
        let losses = losses(&Device::cpu(), arch, format, dora, 12);
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{arch:?} {format}: {losses:?}");
        assert!(losses[11] < losses[0] - 0.3, "{arch:?} {format}: {losses:?}");
    }
}

fn double(mut net: Net) -> Net {
    net.visit_mut(&Path::root(), &mut |_, parameter| {
        if parameter.tensor().dtype() != DType::U32 {
            let value = parameter.tensor().detach().cast(DType::F64);
            parameter.set(value);
        }
    });
    net
}

/// With lengths of outputs' own too, and the gradients of A, B and the lengths.
#[test]
fn adapters_are_those_of_the_dense_base() {
    let device = Device::cpu();
    for (format, dora) in Format::ALL.into_iter().flat_map(|format| [(format, false), (format, true)]) {
        // More rows than are squared at a time.
        let weight = random([70, 300], 1, &device).cast(DType::F32);
        let mut net = Net { layer: LinearMap::dense(weight), bias: Parameter::new(random([300], 2, &device)) };
        quantise(&mut net, format, &["layer"]).unwrap();
        adapt(&mut net, &AdapterConfig { rank: 3, dora, ..AdapterConfig::default() }, Seed(1)).unwrap();
        let mut net = double(net);
        net.visit_mut(&Path::root(), &mut |path, parameter| {
            if path.to_string().contains("lora_") {
                let noise = random(*parameter.tensor().shape(), 5, &device);
                let sum = parameter.tensor().detach() + noise * 0.3;
                parameter.set(sum);
            }
        });
        let mut dense = net.clone();
        assert_eq!(dequantise(&mut dense, &["layer"]).unwrap(), ["layer"]);
        assert!(dense.layer.get::<Lora>().unwrap().base().get::<Dense>().is_some_and(|base| base.transposed));
        let (x, c) = (random([2, 5, 70], 3, &device), random([2, 5, 300], 4, &device));
        let run = |net: &Net| {
            let (x, c) = (x.leaf(), c.leaf());
            let loss = net.apply(&x).sin().sum_all() + net.layer.apply_transposed(&c).sin().sum_all();
            let trains: Vec<Parameter> = net.parameters().into_iter().map(|(_, p)| p).filter(|p| p.trains()).collect();
            assert_eq!(trains.len(), if dora { 3 } else { 2 });
            let wrt: Vec<&Tensor> = trains.iter().map(Parameter::tensor).chain([&x, &c]).collect();
            [vec![loss.detach()], grad(&loss, &wrt, false)].concat()
        };
        run(&net).iter().zip(&run(&dense)).for_each(|(found, expected)| assert_near(found, expected, 1e-11));
    }
}

/// Merging is into dense matrices: after they were asked for.
#[test]
fn adapters_are_merged_once_the_base_is_dense() {
    let mut gpt = model(Arch::Gpt2);
    quantise(&mut gpt, Format::Nf4, &[ALL_LINEAR]).unwrap();
    adapt(&mut gpt, &AdapterConfig { start: Start::ZeroA, ..named(&["c_fc"]) }, Seed(0)).unwrap();
    let before = contents(&gpt);
    let error = merge(&mut gpt, Keep::Nothing, true).unwrap_err().to_string();
    assert_eq!(error, "h.0.mlp.c_fc: its base is not a dense matrix, so nothing can be added to it");
    assert_eq!(contents(&gpt), before);
    let logits = |gpt: &Model| gpt.logits(&ids(&Device::cpu()), &Pass::default()).detach();
    let expected = logits(&gpt);
    assert_eq!(dequantise(&mut gpt, &["c_fc"]).unwrap(), ["h.0.mlp.c_fc", "h.1.mlp.c_fc"]);
    merge(&mut gpt, Keep::Nothing, true).unwrap();
    assert_eq!(bake(&mut gpt), ["h.0.mlp.c_fc", "h.1.mlp.c_fc"]);
    assert_near(&logits(&gpt), &expected, 1e-5);
    // What needs the matrix itself says which layer it is.
    let error = |config| adapt(&mut gpt.clone(), &config, Seed(0)).unwrap_err().to_string();
    let principal = Start::Principal { iterations: None };
    let found = error(AdapterConfig { start: principal.clone(), ..named(&["attn.c_proj"]) });
    assert_eq!(found, "h.0.attn.c_proj: its base is not a dense matrix, which this start needs");
    // The other way round it can be had: the residual is stored in fewer bits.
    let mut gpt = model(Arch::Gpt2);
    adapt(&mut gpt, &AdapterConfig { start: principal, ..named(&["c_fc"]) }, Seed(0)).unwrap();
    assert_eq!(quantise(&mut gpt, Format::Nf4, &["c_fc"]).unwrap().len(), 2);
    let mut bases = 0;
    eckart::lowrank::each::<Lora>(&mut gpt, |_, map| bases += usize::from(map.base().get::<Quantised>().is_some()));
    assert_eq!(bases, 2);
    assert!(numbers(&logits(&gpt)).iter().all(|x| x.is_finite()));
}

#[test]
fn files_hold_them_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for format in Format::ALL {
        let mut saved = model(Arch::Llama);
        quantise(&mut saved, format, &[ALL_LINEAR]).unwrap();
        eckart::io::save(&saved, &path).unwrap();
        let mut loaded = Model::new(saved.config(), Seed(77), &Device::cpu()).unwrap();
        quantise(&mut loaded, format, &[ALL_LINEAR]).unwrap();
        assert_ne!(contents(&loaded), contents(&saved));
        eckart::io::load(&mut loaded, &path).unwrap();
        assert_eq!(contents(&loaded), contents(&saved));
        assert!(loaded.parameters().iter().all(|(name, p)| p.trains() != name.ends_with("s")), "codes stay frozen");
    }
}
