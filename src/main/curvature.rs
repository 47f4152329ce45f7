//! `curvature`: how curved a model's loss is, layer by layer and as a whole.

use crate::{args, plot};
use eckart::io::hub;
use eckart::rank::{Density, Eigenvalue, Estimate, Hessian, density, eigenvalues};
use eckart::train::{Adapter, Config, Sample, Task, subject, survey};
use eckart::{Device, Result, Seed};
use serde::Serialize;
use std::process::ExitCode;

/// What there is to know.
#[derive(Serialize)]
struct Found {
    layers: Vec<Layer>,
    /// Largest in magnitude first, of the Hessian in all parameters.
    eigenvalues: Vec<Eigenvalue>,
    /// Of the Hessian in all parameters, from the density's probes.
    trace: f64,
    density: Density,
}

/// Traces in a layer's weight.
#[derive(Serialize)]
struct Layer {
    path: String,
    hessian: Estimate,
    gauss_newton: Estimate,
}

pub fn run(args: &args::Curvature) -> Result<ExitCode> {
    // Of a classifier its own loss.
    let classifies = hub::read_config(&args.model, 1)?.labels.is_some();
    let config = Config {
        task: if classifies { Task::Classify } else { Task::Lm },
        model: Some(args.model.clone()),
        data: Some(args.data.clone()),
        context: args.max_length,
        batch: args.batch,
        adapter: Adapter::None,
        device: args.device.clone(),
        seed: args.seed,
        ..Config::fine_tuning()
    };
    let config = config.resolved()?;
    let subject = subject(&config)?;
    let device = Device::by_name(&config.device)?;
    let sample = Sample::of(&*subject.source, &config, args.sample);
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let found = rayon::scope(|_| {
        let (model, mut survey) = survey(&config, &subject, &device, 1)?;
        survey.samples = args.samples;
        let (paths, traces) = survey.traces(&model, &sample, false)?;
        let (_, positive) = survey.traces(&model, &sample, true)?;
        let pairs = traces.layers.into_iter().zip(positive.layers);
        let layer = |(path, (hessian, gauss_newton))| Layer { path, hessian, gauss_newton };
        let layers = paths.into_iter().zip(pairs).map(layer).collect();
        let hessian = Hessian::new(&model, &sample);
        let seed = Seed(args.seed).named("curvature");
        let eigenvalues = eigenvalues(&hessian, args.eigenvalues, args.steps, seed)?;
        let density = density(&hessian, args.probes, args.steps, seed)?;
        Result::Ok(Found { layers, eigenvalues, trace: density.trace(), density })
    })?;
    if let Some(svg) = &args.svg {
        plot::density(svg, &found.density)?;
    }
    subject.notes.iter().for_each(|note| eprintln!("{note}"));
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&found).expect("plain data")),
        false => print(&found),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(found: &Found) {
    let width = found.layers.iter().map(|layer| layer.path.len()).max().unwrap_or(0).max(5);
    println!("{:width$} {:>26} {:>26}", "layer", "trace of the Hessian", "of Gauss-Newton");
    for Layer { path, hessian, gauss_newton } in &found.layers {
        let text = |estimate: &Estimate| format!("{:.4} ± {:.4}", estimate.mean, estimate.error);
        println!("{path:width$} {:>26} {:>26}", text(hessian), text(gauss_newton));
    }
    println!("trace of the whole Hessian {:.4}", found.trace);
    for Eigenvalue { value, residual } in &found.eigenvalues {
        println!("eigenvalue {value:.5}, off by at most {residual:.1e}");
    }
}
