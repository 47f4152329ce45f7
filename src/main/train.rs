//! `train`: a run, shown while it goes and summed up at its end.

use crate::progress::Progress;
use crate::{args, generate, plot, table};
use eckart::nn::Sampling;
use eckart::train::{Control, Trained, beside_adamw, run as run_training};
use eckart::{Result, Seed};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length of the sample that ends a run, in tokens.
const SAMPLE: usize = 300;

pub fn run(args: &args::Train) -> Result<ExitCode> {
    let config = args.settings.config(args.resume)?;
    let stop = stop_on_signal();
    let mut progress = Progress::new(config.steps);
    let control = Control { resume: args.resume, stop: &stop, profile: args.profile };
    let trained = run_training(&config, control, &mut |event| progress.see(event));
    progress.finish();
    let trained = trained?;
    draw(&trained)?;
    if args.profile {
        eprintln!("{}", table::profile(&trained.profile, trained.report.wall_seconds));
        if let Some(gpu) = trained.device.gpu() {
            eprintln!("{}", table::counters(&gpu.counters()));
        }
    }
    let folder = tell(args.json, trained, sum_up)?;
    eprintln!("the best model on validation is in {}, for other programs too", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes what was learnt, then prints the report or the words for it: files are there whatever becomes of those.
pub fn tell(json: bool, trained: Trained, words: fn(&Trained) -> Result<String>) -> Result<PathBuf> {
    let text = match json {
        true => Ok(serde_json::to_string_pretty(&trained.report).expect("a report is plain data")),
        false => words(&trained),
    };
    let folder = trained.export()?;
    println!("{}", text?);
    Ok(folder)
}

/// The first interrupt asks for a checkpoint and an end, the second ends at once.
pub fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    // Without a handler an interrupt still ends the process, only without a last checkpoint.
    let _ = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    stop
}

pub fn draw(trained: &Trained) -> Result<()> {
    if let Some(out) = &trained.report.config.out {
        plot::loss(&out.join("loss.svg"), &trained.history)?;
        plot::memory(&out.join("memory.svg"), &trained.history, trained.report.planned_peak_bytes)?;
    }
    Ok(())
}

fn sum_up(trained: &Trained) -> Result<String> {
    let report = &trained.report;
    let seed = Seed(report.seed);
    let sampling = Sampling { temperature: 0.8, top_k: None, seed };
    let writes = trained.model.config().check_writes().is_ok();
    let figures = figures(trained)?;
    let Some(vocabulary) = trained.vocabulary.as_ref().filter(|_| writes) else { return Ok(figures) };
    let sample = rayon::scope(|_| generate::write(&trained.model, vocabulary, None, SAMPLE, sampling))?;
    Ok(format!("sample:\n{sample}\n\n{figures}"))
}

/// Memory, losses and speed.
pub fn figures(trained: &Trained) -> Result<String> {
    let report = &trained.report;
    let mut columns = vec![("planned peak", report.planned_peak_bytes), ("measured peak", report.peak_bytes)];
    columns.extend(beside_adamw(&report.config, trained.model.config())?.map(|bytes| ("with AdamW", bytes)));
    let mut lines = vec![format!("{}\n", table::memory(&columns))];
    lines.extend(match (report.val_loss, report.val_perplexity, report.val_accuracy) {
        (Some(loss), Some(perplexity), _) => Some(format!("validation loss {loss:.3}, perplexity {perplexity:.2}")),
        (Some(loss), None, Some(accuracy)) => Some(format!("validation loss {loss:.3}, accuracy {accuracy:.4}")),
        _ => None,
    });
    lines.push(format!("{:.0} tokens/s, {:.1} s", report.tokens_per_second, report.wall_seconds));
    if let Some(out) = &report.config.out {
        lines.push(format!("metrics.jsonl, report.json, loss.svg, memory.svg and checkpoint are in {}", out.display()));
    }
    Ok(lines.join("\n"))
}
