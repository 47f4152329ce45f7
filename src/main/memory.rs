//! `memory`: the curve of memory over rank.

use crate::{args, plan, plot, table};
use eckart::train::{MemoryUse, Planned};
use eckart::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the curves go unless told otherwise.
const FOLDER: &str = "memory";

pub fn run(args: &args::Memory) -> Result<ExitCode> {
    let all = plan::every(&args.settings, &args.every)?;
    let out = args.settings.config(false)?.out.unwrap_or_else(|| PathBuf::from(FOLDER));
    std::fs::create_dir_all(&out).map_err(Error::file(&out))?;
    write(&out.join("memory.csv"), &csv(&all))?;
    plot::memory_by_rank(&out.join("memory.svg"), &all)?;
    println!("{}", table::methods(&all, None));
    println!("memory.csv and memory.svg are in {}", out.display());
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::file(path))
}

/// One line for each plan, bytes by tag; an empty rank where there is none.
fn csv(all: &[Planned]) -> String {
    let names = MemoryUse::default().rows().map(|(name, _)| name);
    let mut lines = vec![format!("method,rank,parameters,{},reserved", names.join(","))];
    for planned in all {
        if let Ok(plan) = &planned.plan {
            let rank = planned.rank.map_or_else(String::new, |rank| rank.to_string());
            let bytes = plan.peak_bytes.rows().map(|(_, bytes)| bytes.to_string()).join(",");
            let Planned { method, .. } = planned;
            lines.push(format!("\"{method}\",{rank},{},{bytes},{}", plan.parameters, plan.reserved_bytes));
        }
    }
    lines.join("\n") + "\n"
}
