//! `adapter show|check|shrink|convert`: what is in an adapter's folder.

use crate::args::{Adapter, Look};
use eckart::io::{hub, peft};
use eckart::nn::ModelConfig;
use eckart::{Device, Error, Result, Seed};
use std::process::ExitCode;

pub fn run(args: &Adapter) -> Result<ExitCode> {
    match &args.look {
        Look::Show { adapter } => show(&peft::open(adapter)?),
        Look::Check { adapter, model } => {
            let opened = peft::open(adapter)?;
            let model = model.as_ref().map(|folder| {
                let sizes = hub::read_config(folder, 1)?;
                // A classifier may be the adapter's alone.
                let sizes = ModelConfig { labels: opened.classes(sizes.labels.as_deref()), ..sizes };
                hub::load_with_head(folder, &sizes, Seed(0), &Device::null()).map(|(model, _)| model)
            });
            let faults = opened.check(model.transpose()?.as_ref());
            match faults.is_empty() {
                true => println!("nothing is wrong with {}", adapter.display()),
                false => {
                    return Err(Error::Data { path: adapter.clone(), problem: faults.join("; ") });
                }
            }
            Ok(())
        }
        Look::Shrink { adapter, rank, energy, budget, rule, out } => {
            let opened = peft::open(adapter)?;
            let budget = match (rank, energy, budget) {
                (Some(rank), None, None) => peft::Budget::Rank(*rank),
                (None, Some(energy), None) => peft::Budget::Energy(*energy),
                (None, None, Some(parameters)) => peft::Budget::Parameters(parameters.of(opened.parameters()?), *rule),
                _ => return Err(Error::Config("shrink: give one of a rank, an energy and a budget".into())),
            };
            opened.shrink(budget)?.write(out)?;
            show(&peft::open(out)?)
        }
        Look::Convert { file, alpha, out } => {
            peft::from_loralib(file, *alpha)?.write(out)?;
            show(&peft::open(out)?)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// One line for each layer: sizes, rank, alpha, norm of s A B, and how much of its square the leading half has.
fn show(adapter: &peft::Adapter) -> Result<()> {
    let layers = adapter.show()?;
    let width = layers.iter().map(|layer| layer.module.len()).max().unwrap_or(0).max(5);
    println!(
        "{:width$} {:>14} {:>5} {:>9} {:>10}  energy at half the rank",
        "layer", "in x out", "rank", "alpha", "norm"
    );
    for layer in &layers {
        let [input, output] = layer.sizes;
        let (sizes, half) = (format!("{input} x {output}"), layer.rank.div_ceil(2));
        let (norm, energy) = (layer.norm(), 100.0 * layer.energy(half));
        println!(
            "{:width$} {sizes:>14} {:>5} {:>9.3} {norm:>10.4}  {energy:.1} %",
            layer.module, layer.rank, layer.alpha
        );
    }
    Ok(())
}
