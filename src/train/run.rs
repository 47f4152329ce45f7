//! A run from start to end: steps, validations, lines, checkpoints.

use super::begin::{fresh, resume};
use super::growth::ranks;
use super::metrics::Log;
use super::pace::Pace;
use super::state::{Best, FORMAT, State};
use super::trainer::{Outcome, Trainer};
use super::{Config, Evaluation, Metrics, Plan, Report, Size, Store, Subject, place, subject};
use crate::data::Vocabulary;
use crate::device::Device;
use crate::device::observe::{Profile, Stage, observed};
use crate::error::{Error, Result};
use crate::nn::Model;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Steps in a row with numbers that are not finite, after which a run gives up.
const PATIENCE: u64 = 5;

/// How to run.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Go on from the newest checkpoint in the run's folder.
    pub resume: bool,
    /// Once true, the run writes a checkpoint after the micro-batch it is at and ends.
    pub stop: &'a AtomicBool,
    /// Measure every kernel.
    pub profile: bool,
}

/// What happens while a run goes on.
pub enum Event<'a> {
    /// The run's folder can be written to, and this much memory will be needed.
    Started {
        /// Folder.
        out: &'a Path,
        /// Memory.
        plan: &'a Plan,
        /// Tokens to learn from, and held back.
        tokens: [usize; 2],
        /// What there is to say of the data.
        notes: &'a [String],
    },
    /// It goes on from a checkpoint; newer ones were damaged.
    Resumed {
        /// The checkpoint.
        path: &'a Path,
        /// What was wrong with newer ones.
        skipped: &'a [String],
    },
    /// A micro-batch is done.
    Advanced {
        /// Steps done.
        step: u64,
        /// Loss, if this ended a step.
        loss: Option<f64>,
        /// Speed since the last line.
        tokens_per_second: f64,
        /// Highest total of bytes since the last line.
        peak: u64,
    },
    /// A step was left out, and why.
    Skipped(&'a str),
    /// Adapters of these layers have one rank more.
    Grown(&'a [String]),
    /// A line was written.
    Reported(&'a Metrics),
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// Op, stage, calls and time: a row of the profile.
pub type Row = (&'static str, Stage, u64, Duration);

/// A finished run.
pub struct Trained {
    /// The model after the last step.
    pub model: Model,
    /// What its tokens stand for, unless the folder that the model came from says it.
    pub vocabulary: Option<Vocabulary>,
    /// As in `report.json`.
    pub report: Report,
    /// As in `metrics.jsonl`.
    pub history: Vec<Metrics>,
    /// What it was computed on.
    pub device: Device,
    /// Where the time went, longest first; empty unless asked for.
    pub profile: Vec<Row>,
}

/// Trains, and leaves in the run's folder `metrics.jsonl`, `report.json` and `checkpoint`.
pub fn run(config: &Config, control: Control<'_>, see: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<Trained> {
    run_on(None, config, control, see)
}

/// The same on a device that is open already, whatever the configuration names; without one, it is opened when it is
/// known that the run will fit.
pub fn run_on(
    device: Option<&Device>,
    config: &Config,
    control: Control<'_>,
    see: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Trained> {
    let start = Instant::now();
    let config = config.resolved()?;
    let subject = subject(&config)?;
    let plan = match device {
        Some(device) => Plan::on(device.like_null(), &config, &subject)?,
        None => Plan::new(&config, &subject)?,
    };
    plan.check(&config, &subject)?;
    let base = config.base_fingerprint()?;
    let open = || Device::by_name_within(&config.device, config.memory.map(|Size(limit)| limit));
    let device = device.cloned().map_or_else(open, Ok)?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    rayon::scope(|_| {
        let mut run = Run::start(&config, &subject, base, &device, &plan, control, see)?;
        let profile = run.profiled(control.profile)?;
        run.finish(&plan, start, profile)
    })
}

struct Run<'a> {
    config: &'a Config,
    device: &'a Device,
    subject: &'a Subject,
    /// Fingerprint of the files of the model that it began with.
    base: Option<String>,
    trainer: Trainer<'a>,
    out: PathBuf,
    store: Store,
    log: Log,
    history: Vec<Metrics>,
    pace: Pace,
    stop: &'a AtomicBool,
    see: &'a mut (dyn FnMut(Event<'_>) + Send),
}

impl<'a> Run<'a> {
    fn start(
        config: &'a Config,
        subject: &'a Subject,
        base: Option<String>,
        device: &'a Device,
        plan: &Plan,
        control: Control<'a>,
        see: &'a mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<Run<'a>> {
        let out = match (&config.out, control.resume) {
            (Some(out), _) => out.clone(),
            (None, true) => place::latest()?,
            (None, false) => place::next_free(),
        };
        let store = Store::new(out.join("checkpoint"), config.keep);
        device.ledger().reset_peak();
        let trainer = match control.resume {
            true => resume(config, subject, base.as_deref(), device, &store, see)?,
            false => fresh(config, subject, device, &store)?,
        };
        let (log, history) = Log::open(&out.join("metrics.jsonl"), trainer.progress.step)?;
        let (pace, stop) = (Pace::default(), control.stop);
        let mut run = Run { config, device, subject, base, trainer, out, store, log, history, pace, stop, see };
        if control.resume {
            // What reading a checkpoint takes is not in the lines of a run that never stopped.
            run.device.ledger().reset_peak();
        }
        run.save()?;
        let tokens = subject.source.tokens();
        (run.see)(Event::Started { out: &run.out, plan, tokens, notes: &subject.notes });
        Ok(run)
    }

    /// The steps, watched if wanted.
    fn profiled(&mut self, wanted: bool) -> Result<Vec<Row>> {
        if !wanted {
            return self.steps().map(|()| Vec::new());
        }
        let profile = Rc::new(Profile::default());
        observed(profile.clone(), || self.steps())?;
        Ok(profile.rows())
    }

    fn steps(&mut self) -> Result<()> {
        while self.trainer.progress.step < self.config.steps && !self.out_of_patience() {
            let start = Instant::now();
            let outcome = self.trainer.advance()?;
            self.pace.add(self.trainer.tokens, start.elapsed());
            match outcome {
                Outcome::Held => self.advanced(None),
                Outcome::Stepped(loss) => self.end_step(loss)?,
                Outcome::Skipped(reason) => {
                    self.skipped(&reason)?;
                    self.end_step(None)?;
                }
            }
            if !self.trainer.grown.is_empty() {
                (self.see)(Event::Grown(&self.trainer.grown));
            }
            if self.stop.load(Ordering::Relaxed) && self.trainer.progress.step < self.config.steps {
                self.save()?;
                return Err(Error::Interrupted { step: self.trainer.progress.step });
            }
        }
        Ok(())
    }

    fn out_of_patience(&self) -> bool {
        self.config.patience.is_some_and(|patience| self.trainer.progress.since_best >= patience)
    }

    fn advanced(&mut self, loss: Option<f64>) {
        let (step, tokens_per_second) = (self.trainer.progress.step, self.pace.tokens_per_second());
        let peak = self.device.ledger().peak().total();
        (self.see)(Event::Advanced { step, loss, tokens_per_second, peak });
    }

    fn skipped(&mut self, reason: &str) -> Result<()> {
        (self.see)(Event::Skipped(reason));
        let progress = &self.trainer.progress;
        if progress.skipped_in_row < PATIENCE {
            return Ok(());
        }
        // Weights are proven good by the step after them, so those that the bad steps began with are not.
        let good = match self.store.newest((progress.step - PATIENCE).saturating_sub(1)) {
            Ok(newest) => format!("the last good checkpoint is {}", newest.checkpoint.path.display()),
            Err(_) => "no good checkpoint is left".into(),
        };
        Err(Error::NotFinite(format!("{reason}; {PATIENCE} steps in a row were left out, {good}")))
    }

    /// Validation, line and checkpoint, where they are due.
    fn end_step(&mut self, loss: Option<f64>) -> Result<()> {
        self.advanced(loss);
        let step = self.trainer.progress.step;
        let due = |every: u64| step.is_multiple_of(every) || step == self.config.steps;
        let (evaluate, report, save) =
            (due(self.config.eval_every), due(self.config.report_every), due(self.config.save_every));
        let validation = if evaluate { self.trainer.evaluate()? } else { None };
        if report || evaluate {
            self.report(validation.as_ref())?;
        }
        if let Some(Evaluation { loss, .. }) = validation {
            self.note_best(Best { step, loss })?;
        }
        // Steps left out add nothing to save, and would push the last good checkpoint out.
        let last = step == self.config.steps || self.out_of_patience();
        let wanted = last || (save && self.trainer.progress.skipped_in_row == 0);
        if wanted { self.save() } else { Ok(()) }
    }

    fn report(&mut self, validation: Option<&Evaluation>) -> Result<()> {
        self.note_peak();
        let interval = self.trainer.take_interval();
        let step = self.trainer.progress.step;
        let metrics = Metrics {
            step,
            loss: (interval.taken > 0).then(|| interval.loss / interval.taken as f64),
            val_loss: validation.map(|found| found.loss),
            val_accuracy: validation.and_then(Evaluation::accuracy),
            lr: self.config.schedule().rate(step - 1),
            grad_norm: interval.norm,
            skipped_steps: interval.skipped,
            tokens_per_second: self.pace.tokens_per_second(),
            live_bytes: self.device.ledger().live().into(),
            peak_bytes: interval.peak,
        };
        self.device.ledger().reset_peak();
        self.pace.end_interval();
        self.log.write(&metrics)?;
        (self.see)(Event::Reported(&metrics));
        self.history.push(metrics);
        Ok(())
    }

    fn note_best(&mut self, now: Best) -> Result<()> {
        let progress = &mut self.trainer.progress;
        if now.loss.is_nan() || progress.best.is_some_and(|best| best.loss <= now.loss) {
            progress.since_best += 1;
            return Ok(());
        }
        (progress.best, progress.since_best) = (Some(now), 0);
        self.store.save_best(&self.state(), &self.trainer.model)
    }

    fn save(&mut self) -> Result<()> {
        self.note_peak();
        self.log.sync()?;
        let trainer = &self.trainer;
        let path = self.store.save(&self.state(), &trainer.model, &trainer.optimizer, &trainer.held)?;
        (self.see)(Event::Saved(&path));
        Ok(())
    }

    /// Takes the ledger's peak into the interval, which goes into checkpoints and so outlives this process.
    fn note_peak(&mut self) {
        let interval = &mut self.trainer.progress.interval;
        interval.peak = interval.peak.larger(self.device.ledger().peak().into());
    }

    fn state(&self) -> State {
        State {
            format: FORMAT,
            progress: self.trainer.progress.clone(),
            ranks: if self.config.growth.is_some() { ranks(&self.trainer.model) } else { BTreeMap::new() },
            // Where the run lies is no part of what it is.
            config: Config { out: None, ..self.config.clone() },
            vocabulary: self.subject.names.vocabulary.clone(),
            labels: self.subject.names.labels.clone(),
            data: self.subject.fingerprint.clone(),
            base: self.base.clone(),
            device: self.device.name().into(),
        }
    }

    fn finish(self, plan: &Plan, start: Instant, profile: Vec<Row>) -> Result<Trained> {
        let mut report = Report::new(self.config, &self.trainer.model, self.device, plan, &self.history);
        report.config.out = Some(self.out.clone());
        report.tokens_per_second = self.pace.overall();
        report.wall_seconds = start.elapsed().as_secs_f64();
        report.write(&self.out.join("report.json"))?;
        let Run { trainer, subject, history, device, .. } = self;
        let vocabulary = subject.names.vocabulary.clone();
        Ok(Trained { model: trainer.model, vocabulary, report, history, device: device.clone(), profile })
    }
}
