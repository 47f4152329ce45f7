//! Several texts at once, each by an adapter of its own: what each would be by itself.

use eckart::lowrank::{bank, select};
use eckart::module::{Path, normal};
use eckart::nn::{Arch, Model, ModelConfig, Prompt, Sampling, generate, generate_together};
use eckart::{DType, Device, Module, Seed};

/// A model with a bank of three adapters that do something.
fn model(arch: Arch, device: &Device) -> Model {
    let config = ModelConfig::new(arch, 23, 16, 2, 2, 16);
    let mut model = Model::new(&config, Seed(4), device).unwrap();
    bank(&mut model, &["all-linear"], 3, 4, 16.0, Seed(5)).unwrap();
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if path.to_string().ends_with("lora_B") {
            parameter.set(normal(parameter.tensor().shape(), 0.5, Seed(path.to_string().len() as u64), device));
        }
    });
    model
}

fn prompts(adapters: bool) -> Vec<Prompt> {
    // The last is longer than the context.
    let lengths = [3, 1, 16, 7, 21];
    let prompt = |(i, length): (usize, usize)| Prompt {
        tokens: (0..length as u32).map(|j| (j * j + 5 * j + i as u32) % 23).collect(),
        adapter: adapters.then_some([2, 0, 1, 2, 0][i]),
    };
    lengths.into_iter().enumerate().map(prompt).collect()
}

/// Each ends when it wants to.
fn written(model: &Model, prompts: &[Prompt], sampling: Sampling, counts: &[usize]) -> Vec<Vec<u32>> {
    let mut texts = vec![Vec::new(); prompts.len()];
    generate_together(model, prompts, sampling, |i, token| {
        texts[i].push(token);
        texts[i].len() < counts[i]
    })
    .unwrap();
    texts
}

#[test]
fn each_is_written_as_it_would_be_alone() {
    let counts = [30, 5, 1, 24, 12];
    for arch in [Arch::Gpt2, Arch::Llama] {
        for temperature in [0.0, 0.9] {
            let sampling = Sampling { temperature, top_k: Some(9), seed: Seed(3) };
            let mut model = model(arch, &Device::cpu()).cast(DType::F64);
            let prompts = prompts(true);
            let together = written(&model, &prompts, sampling, &counts);
            for (i, (prompt, found)) in prompts.iter().zip(&together).enumerate() {
                select(&mut model, &[prompt.adapter.unwrap()]).unwrap();
                let alone = generate(&model, &prompt.tokens, counts[i], sampling).unwrap();
                assert_eq!(*found, alone, "{arch:?} at {temperature}, text {i}");
            }
            let other = Prompt { adapter: Some(1), ..prompts[0].clone() };
            assert_ne!(written(&model, &[other], sampling, &counts[..1])[0], together[0]);
        }
    }
}

#[test]
fn without_adapters_too() {
    let model = Model::new(&ModelConfig::new(Arch::Llama, 23, 16, 2, 2, 16), Seed(4), &Device::cpu()).unwrap();
    let model = model.cast(DType::F64);
    let sampling = Sampling { temperature: 0.7, top_k: None, seed: Seed(8) };
    let prompts = prompts(false);
    let together = written(&model, &prompts, sampling, &[9; 5]);
    for (prompt, found) in prompts.iter().zip(&together) {
        assert_eq!(*found, generate(&model, &prompt.tokens, 9, sampling).unwrap());
    }
    let refused =
        |prompts: &[Prompt]| generate_together(&model, prompts, sampling, |_, _| false).unwrap_err().to_string();
    let with = |tokens: &[u32], adapter| [prompts[0].clone(), Prompt { tokens: tokens.into(), adapter }];
    assert!(refused(&with(&[], None)).contains("an empty prompt"));
    assert!(refused(&with(&[23], None)).contains("token 23 of the prompt"));
    assert!(refused(&[Prompt { adapter: Some(0), ..prompts[0].clone() }]).contains("no adapters to select"));
    written(&model, &[], sampling, &[]);
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_writes_what_the_host_writes() {
    let Some(gpu) = crate::gpu::device() else { return };
    let on = |device: &Device| {
        let sampling = Sampling { temperature: 0.0, top_k: None, seed: Seed(3) };
        written(&model(Arch::Llama, device), &prompts(true), sampling, &[20, 5, 1, 9, 12])
    };
    assert_eq!(on(&gpu), on(&Device::cpu()));
}
