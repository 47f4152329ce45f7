//! `plan`: a run's memory before the run.

use crate::{args, table};
use eckart::train::{Config, Plan, Size, corpus, what_fits};
use eckart::{Result, data::Corpus};
use serde_json::json;
use std::process::ExitCode;

pub fn run(args: &args::Plan) -> Result<ExitCode> {
    let config = args.settings.config(false)?.resolved()?;
    let (corpus, _) = corpus(&config)?;
    let plan = Plan::new(&config, &corpus)?;
    let verdict = config.memory.map(|limit| verdict(&config, &corpus, &plan, limit)).transpose()?;
    match args.json {
        true => println!("{}", as_json(&config, &plan, &verdict)),
        false => print(&plan, &config, &verdict),
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing if it fits, else what would.
fn verdict(config: &Config, corpus: &Corpus, plan: &Plan, Size(limit): Size) -> Result<Option<String>> {
    (plan.reserved_bytes > limit).then(|| what_fits(config, corpus, limit)).transpose()
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
