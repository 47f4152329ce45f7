//! `plan`: a run's memory before the run.

use crate::{args, table};
use eckart::nn::ModelConfig;
use eckart::train::{Config, Plan, Planned, Size, Subject, plan_all, subject, what_fits};
use eckart::{Error, Result};
use serde_json::json;
use std::process::ExitCode;

pub fn run(args: &args::Plan) -> Result<ExitCode> {
    if args.all_methods {
        let all = every(&args.settings, &args.every)?;
        let limit = args.settings.config(false)?.memory;
        match args.json {
            true => println!("{}", serde_json::to_string_pretty(&all).expect("plans are plain data")),
            false => println!("{}", table::methods(&all, limit)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let config = args.settings.config(false)?.resolved()?;
    if let Some(model) = model(&args.every)? {
        let config = config.cut_for(&model);
        return show(args, &config, &Plan::of_model(&config, &model)?, None);
    }
    let subject = subject(&config)?;
    let plan = Plan::new(&config, &subject)?;
    let verdict = config.memory.map(|limit| verdict(&config, &subject, &plan, limit)).transpose()?;
    show(args, &config, &plan, verdict)
}

fn show(args: &args::Plan, config: &Config, plan: &Plan, verdict: Option<Option<String>>) -> Result<ExitCode> {
    match args.json {
        true => println!("{}", as_json(config, plan, &verdict)),
        false => print(plan, config, &verdict),
    }
    Ok(ExitCode::SUCCESS)
}

/// Plans of every method.
pub fn every(settings: &args::Settings, every: &args::Every) -> Result<Vec<Planned>> {
    let config = settings.config(false)?;
    let sizes = match model(every)? {
        Some(sizes) => sizes,
        None => config.sizes(&subject(&config)?.names)?,
    };
    plan_all(&config, &sizes, &every.ranks)
}

fn model(every: &args::Every) -> Result<Option<ModelConfig>> {
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        ModelConfig::from_hugging_face(&text)
            .map_err(|error| Error::Data { path: path.clone(), problem: error.to_string() })
    };
    every.model.as_ref().map(read).transpose()
}

/// Nothing if it fits, else what would.
fn verdict(config: &Config, subject: &Subject, plan: &Plan, Size(limit): Size) -> Result<Option<String>> {
    (plan.reserved_bytes > limit).then(|| what_fits(config, subject, limit)).transpose()
}

fn print(plan: &Plan, config: &Config, verdict: &Option<Option<String>>) {
    println!("{} parameters", plan.parameters);
    println!("{}", table::memory(&[("planned peak", plan.peak_bytes)]));
    println!("with the pool's reserve, at most {}", Size(plan.reserved_bytes));
    match (config.memory, verdict) {
        (Some(limit), Some(None)) => println!("fits into {limit}"),
        (Some(limit), Some(Some(ways))) => println!("does not fit into {limit}: {ways}"),
        _ => {}
    }
}

fn as_json(config: &Config, plan: &Plan, verdict: &Option<Option<String>>) -> serde_json::Value {
    let mut object = json!({
        "parameters": plan.parameters,
        "planned_peak_bytes": plan.peak_bytes,
        "reserved_bytes": plan.reserved_bytes,
        "config": config,
    });
    if let (Some(Size(limit)), Some(verdict)) = (config.memory, verdict) {
        object["limit_bytes"] = limit.into();
        object["fits"] = verdict.is_none().into();
        object["what_fits"] = verdict.clone().into();
    }
    object
}
