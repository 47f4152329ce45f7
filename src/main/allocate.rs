//! `allocate`: which rank each layer should have under a budget, and why.

use crate::ranks::choose;
use crate::{args, plot};
use eckart::train::Config;
use eckart::{Error, Result};
use std::process::ExitCode;

pub fn run(args: &args::Allocate) -> Result<ExitCode> {
    let run = &args.run;
    if run.online || run.search.is_some() || run.resume {
        return Err(Error::Config("online, search, resume: they are for finetune, which makes runs".into()));
    }
    let settings = run.settings()?;
    // The folder of a run is here the file of its ranks.
    let (out, config) = (settings.out.clone(), Config { out: None, ..settings });
    let chosen = choose(&config, &args.run.ranks)?;
    let json = chosen.json(&config, &args.run.ranks);
    let text = serde_json::to_string_pretty(&json).expect("plain data");
    if let Some(out) = &out {
        std::fs::write(out, format!("{text}\n")).map_err(Error::file(out))?;
    }
    if let Some(svg) = &args.svg {
        plot::ranks(svg, &chosen.curves, &chosen.ranks.ranks)?;
    }
    match args.run.json {
        true => println!("{text}"),
        false => println!("{}", chosen.table()),
    }
    Ok(ExitCode::SUCCESS)
}
