//! `check`: every op on a device against double precision on the host.

use crate::args;
use eckart::check::{Row, device};
use eckart::{Device, Result};
use std::process::ExitCode;

pub fn run(args: &args::Check) -> Result<ExitCode> {
    let on = Device::by_name(&args.device)?;
    let rows = rayon::scope(|_| device(&on))?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&rows).expect("rows are plain data")),
        false => print(&rows, &on),
    }
    Ok(if rows.iter().all(|row| row.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(rows: &[Row], on: &Device) {
    println!("{:18}{:>12}{:>10}{:>10}  {:6}  worst case", "op", "comparisons", "error", "bound", "");
    for row in rows {
        let verdict = if row.passed { "ok" } else { "FAILED" };
        let Row { op, comparisons, error, bound, case, .. } = row;
        println!("{op:18}{comparisons:>12}{error:>10.1e}{bound:>10.1e}  {verdict:6}  {case}");
    }
    let passed = rows.iter().filter(|row| row.passed).count();
    println!("{passed} of {} ops on {} agree with double precision", rows.len(), on.name());
}
