//! The command line: `train`, `finetune`, `allocate`, `curvature`, `eval`, `generate`, `merge`, `factorise`, `adapter`,
//! `plan`, `memory`, `check`, `devices`.
//!
//! What goes wrong is one line on stderr. Exit codes: 0 done, 1 run failed, 2 bad usage or input, 3 memory or device
//! lost, 130 interrupted with a checkpoint written.

mod adapter;
mod aliases;
mod allocate;
mod args;
mod base;
mod check;
mod curvature;
mod devices;
mod eval;
mod factorise;
mod finetune;
mod generate;
mod memory;
mod merge;
mod plan;
mod plot;
mod progress;
mod ranks;
mod table;
mod train;

use args::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    quieten_drivers();
    end_with_the_reader();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(error),
    };
    let done = match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Finetune(args) => finetune::run(&args),
        Command::Allocate(args) => allocate::run(&args),
        Command::Curvature(args) => curvature::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Factorise(args) => factorise::run(&args),
        Command::Adapter(args) => adapter::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Devices(args) => devices::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("eckart: {error}");
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

/// Without a desktop session, a layer of Mesa that looks for one complains on stderr, where our one line belongs.
fn quieten_drivers() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// A reader that has seen enough, as `head` has, ends the program without a word; another fault of stdout is one line.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload().downcast_ref::<String>().filter(|words| words.starts_with("failed printing to"));
        match words {
            Some(words) if words.contains("Broken pipe") => std::process::exit(0),
            Some(words) => {
                let _ = writeln!(std::io::stderr(), "eckart: {words}");
                std::process::exit(2);
            }
            None => usual(panic),
        }
    }));
}

/// Help as clap prints it; errors in one line.
fn usage(error: clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if asked { 0 } else { 2 });
    }
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let tip =
        text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).map_or(String::new(), |tip| format!("; {tip}"));
    // Usage names the command before its arguments.
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("eckart");
    let command: Vec<&str> = usage.split(' ').take_while(|word| !word.starts_with(['[', '<', '-'])).collect();
    eprintln!("eckart: {}{tip}; see {} --help", first.join(" ").trim_start_matches("error: "), command.join(" "));
    ExitCode::from(2)
}
