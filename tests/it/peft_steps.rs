//! Ten steps of fine-tuning as transformers, PEFT and torch's AdamW take them: plain, and with the groups of LoRA+.

use crate::peft::{adapter, base};
use eckart::lowrank::LoraPlus;
use eckart::nn::Pass;
use eckart::optim::{Adam, Gradients, Group, Optimizer};
use eckart::{DType, Device, Tensor};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct File {
    settings: Settings,
    /// [step, row, place].
    ids: Vec<Vec<Vec<u32>>>,
    /// Losses by step; of LoRA+ where the name ends in `+`.
    losses: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct Settings {
    rate: f64,
    decay: f64,
    ratio: f64,
    embedding_rate: f64,
}

impl Settings {
    fn groups(&self, plus: bool) -> Vec<Group> {
        let Settings { rate, decay, ratio, embedding_rate } = *self;
        match plus {
            true => LoraPlus { rate, ratio, embedding_rate, decay }.groups().unwrap(),
            false => Group::decay_matrices(decay),
        }
    }
}

/// Ids and the next of each, both [rows, time − 1].
fn batch(rows: &[Vec<u32>]) -> [Tensor; 2] {
    let shape = [rows.len(), rows[0].len() - 1];
    let part = |from: usize| rows.iter().flat_map(|row| row[from..][..shape[1]].to_vec()).collect::<Vec<u32>>();
    [0, 1].map(|from| Tensor::new(&part(from), shape, &Device::cpu()))
}

#[test]
fn fine_tuning_takes_the_steps_that_it_takes_there() {
    let file: File = serde_json::from_str(include_str!("../fixtures/peft_steps.json")).unwrap();
    assert_eq!(file.losses.len(), 10);
    for (name, expected) in &file.losses {
        let (folder, plus) = (name.trim_end_matches('+'), name.ends_with('+'));
        let mut model = base(folder, DType::F64);
        adapter(folder).put_on(&mut model).unwrap();
        let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let mut optimizer = Optimizer::new(adam, file.settings.groups(plus));
        for (step, (rows, expected)) in file.ids.iter().zip(expected).enumerate() {
            let [ids, targets] = batch(rows);
            let loss = model.loss(&ids, &targets, &Pass::default());
            let found = loss.item().unwrap();
            assert!((found - expected).abs() < 1e-9, "{name}, step {step}: {found}, not {expected}");
            let mut gradients = Gradients::new();
            gradients.add(loss);
            optimizer.step(&mut model, gradients, step as u64, file.settings.rate, None);
        }
    }
}
