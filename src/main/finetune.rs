//! `finetune`: a run that begins with a model of files, and ends with an adapter or a model for other programs.

use crate::args;
use crate::progress::Progress;
use crate::ranks::{Chosen, choose, for_adapters};
use crate::train::{draw, figures, stop_on_signal, tell};
use eckart::train::{Budget, Config, Control, Growth, Search, Searching, Sharing};
use eckart::train::{next_free, run as run_training, subject};
use eckart::{Error, Result};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// The configuration with ranks as its budget says, unless the run has begun already.
fn with_ranks(args: &args::Finetune, config: Config, stop: &AtomicBool) -> Result<Config> {
    let Some(budget) = args.ranks.budget else { return Ok(config) };
    if args.resume {
        return goes_on(args, config, budget);
    }
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

/// The configuration of a run that has begun: its ranks are chosen, and what its adapters may grow to is said.
fn goes_on(args: &args::Finetune, config: Config, budget: Budget) -> Result<Config> {
    match config.growth.as_ref().map(|growth| Budget::Parameters(growth.budget)) {
        Some(before) if before != budget => {
            Err(Error::Config(format!("budget was {before} and is now {budget}: a run goes on as it began")))
        }
        None if args.online => Err(Error::Config("online: this run began without, and goes on as it began".into())),
        _ => Ok(config),
    }
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
    let out = config.out.as_ref().expect("named above").display();
    eprintln!("trials are kept in {out}/search: if this stops, the same flags with --out {out} go on with them");
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
    let folder = tell(args.json, trained, figures)?;
    eprintln!("what was best on validation is in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}
