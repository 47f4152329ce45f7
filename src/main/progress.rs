//! What a run shows while it goes, on stderr.

use eckart::train::{Event, Metrics, Size};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar with loss, speed and memory, and a line for each validation.
pub struct Progress {
    bar: ProgressBar,
    loss: f64,
}

impl Progress {
    /// A bar of so many steps.
    pub fn new(steps: u64) -> Progress {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} · {msg} · {eta} left");
        let bar = ProgressBar::new(steps).with_style(style.expect("a template that is constant"));
        Progress { bar, loss: f64::NAN }
    }

    /// Shows what happened.
    pub fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Started { out, plan, tokens: [train, validation], notes } => {
                notes.iter().for_each(|note| self.say(note.clone()));
                let size = Size(plan.peak_bytes.total);
                self.say(format!(
                    "{} parameters, {train} tokens to learn from and {validation} held back",
                    plan.parameters
                ));
                self.say(format!("planned peak {size}; writing to {}", out.display()));
            }
            Event::Resumed { path, skipped } => {
                skipped.iter().for_each(|damaged| self.say(format!("left out: {damaged}")));
                self.say(format!("going on from {}", path.display()));
            }
            Event::Advanced { step, loss, tokens_per_second, peak } => {
                self.loss = loss.unwrap_or(self.loss);
                let (loss, peak) = (self.loss, Size(peak));
                self.bar.set_message(format!("loss {loss:.3} · {tokens_per_second:.0} tokens/s · {peak}"));
                self.bar.set_position(step);
            }
            Event::Skipped(reason) => self.say(format!("left out {reason}")),
            Event::Reported(metrics) => self.validation(metrics),
            Event::Grown(layers) => self.say(format!("one rank more: {}", layers.join(", "))),
            Event::Saved(_) => {}
        }
    }

    fn validation(&self, metrics: &Metrics) {
        if let Some(validation) = metrics.val_loss {
            let loss = metrics.loss.map_or("none".into(), |loss| format!("{loss:.3}"));
            let accuracy = metrics.val_accuracy.map_or(String::new(), |part| format!(", accuracy {part:.4}"));
            self.say(format!("step {}: loss {loss}, validation {validation:.3}{accuracy}", metrics.step));
        }
    }

    fn say(&self, line: String) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
