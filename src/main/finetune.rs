//! `finetune`: a run that begins with a model of files, and ends with an adapter or a model for other programs.

use crate::args;
use crate::progress::Progress;
use crate::ranks::{Chosen, choose, for_adapters};
use crate::train::{draw, figures, stop_on_signal};
use eckart::train::{Budget, Config, Control, Growth, Search, Searching, Sharing};
use eckart::train::{next_free, run as run_training, subject};
use eckart::{Error, Result};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// The configuration with ranks as its budget says, unless the run has begun already.
fn with_ranks(args: &args::Finetune, config: Config, stop: &AtomicBool) -> Result<Config> {
    let Some(budget) = args.ranks.budget.filter(|_| !args.resume) else { return Ok(config) };
    for_adapters(&config)?;
    if !args.online {
        let chosen = choose(&config, &args.ranks)?;
        eprintln!("{}", chosen.table());
        let Some(trials) = args.search else { return Ok(chosen.ranks.apply(&config)) };
        return searched(args, &config, &chosen, Search { trials, folds: args.folds.unwrap_or(0) }, stop);
    }
    let Budget::Parameters(budget) = budget else {
        return Err(Error::Config("budget: what grows is counted in parameters, such as 200k".into()));
    };
    let growth = Growth { budget, start: args.ranks.min, ..config.growth.clone().unwrap_or_default() };
    Ok(Config { growth: Some(growth), rank_stabilised: true, ..config })
}

/// The configuration with the best ranks of a search, for the same folder.
fn searched(
    args: &args::Finetune,
    config: &Config,
    chosen: &Chosen,
    search: Search,
    stop: &AtomicBool,
) -> Result<Config> {
    let config = Config { out: Some(config.out.clone().unwrap_or_else(next_free)), ..config.clone() };
    let resolved = config.resolved()?;
    let subject = subject(&resolved)?;
    let sharing = Sharing { budget: chosen.ranks.budget, rule: args.ranks.rule, bounds: args.ranks.bounds() };
    let (curves, subject) = (&chosen.curves, &subject);
    let searching = Searching { config: &resolved, subject, curves, sharing, search, stop };
    let best = searching.run(&mut |trial| {
        eprintln!("trial {}: validation {:.4} after {} steps", trial.number, trial.val_loss, trial.steps);
    })?;
    Ok(best.apply(&config))
}

pub fn run(args: &args::Finetune) -> Result<ExitCode> {
    let stop = stop_on_signal();
    let config = with_ranks(args, args.settings()?, &stop)?;
    let mut progress = Progress::new(config.steps);
    let control = Control { resume: args.resume, stop: &stop, profile: false };
    let trained = run_training(&config, control, &mut |event| progress.see(event));
    progress.finish();
    let trained = trained?;
    draw(&trained)?;
    let shown = match args.json {
        true => {
            println!("{}", serde_json::to_string_pretty(&trained.report).expect("a report is plain data"));
            Ok(())
        }
        false => figures(&trained),
    };
    // Whatever became of the figures.
    let folder = trained.export()?;
    eprintln!("what was best on validation is in {}", folder.display());
    shown.map(|()| ExitCode::SUCCESS)
}
