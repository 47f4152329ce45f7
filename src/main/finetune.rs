//! `finetune`: a run that begins with a model of files, and ends with an adapter or a model for other programs.

use crate::args;
use crate::progress::Progress;
use crate::train::{draw, figures, stop_on_signal};
use eckart::Result;
use eckart::train::{Control, run as run_training};
use std::process::ExitCode;

pub fn run(args: &args::Finetune) -> Result<ExitCode> {
    let config = args.settings()?;
    let stop = stop_on_signal();
    let mut progress = Progress::new(config.steps);
    let control = Control { resume: args.resume, stop: &stop, profile: false };
    let trained = run_training(&config, control, &mut |event| progress.see(event));
    progress.finish();
    let trained = trained?;
    draw(&trained)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&trained.report).expect("a report is plain data")),
        false => figures(&trained)?,
    }
    let folder = trained.export()?;
    eprintln!("what was best on validation is in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}
