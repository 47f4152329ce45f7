//! Rank patterns judged by what short runs make of them on what is held back: proposals by Parzen estimators, halved again
//! and again. Every pattern keeps the budget.

use super::{Config, Control, Event, Ranks, Sharing, Subject, run, share_out};
use crate::error::{Error, Result};
use crate::io::{JsonLines, checksum};
use crate::rank::{Curve, Proposals, rungs};
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Patterns to try, most of them in short runs: all with a part of the steps, the better third of them with three times
    /// as many, and so on up to whole runs.
    pub trials: usize,
    /// Judge by so many folds of what is learnt, each held back in turn, rather than by what is held back anyway; 0 for that.
    pub folds: usize,
}

/// A line of the table of trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which proposal, from 0: the first is the allocation by the curves as they are.
    pub number: usize,
    /// Steps of its runs.
    pub steps: u64,
    /// Logarithms, in units of 3, of factors on the gains of each kind of layer; the last grows with depth.
    pub point: Vec<f64>,
    /// Rank of each layer.
    pub ranks: BTreeMap<String, usize>,
    /// Loss on what was held back, in nats per token; the mean over folds if there are any.
    pub val_loss: f64,
}

/// Factors are between e^−3 and e^3.
const REACH: f64 = 3.0;

/// What diverges is no better than anything.
const DIVERGED: f64 = f64::MAX;

/// Proposals drawn evenly before the estimators have their say.
const RANDOM: usize = 8;

/// A search under way.
pub struct Searching<'a> {
    /// The run that ranks are for, resolved, with its folder: trials go below it.
    pub config: &'a Config,
    /// What it is about.
    pub subject: &'a Subject,
    /// What layers win by rank: where proposals start from.
    pub curves: &'a [Curve],
    /// What there is to share out.
    pub sharing: Sharing,
    /// How to search.
    pub search: Search,
    /// Once true, the search ends after the step it is at.
    pub stop: &'a AtomicBool,
}

impl Searching<'_> {
    /// The best ranks found. What was tried stands in `trials.jsonl` below the run's folder, and is not tried again: a
    /// search that was stopped goes on by the same call.
    pub fn run(&self, see: &mut dyn FnMut(&Trial)) -> Result<Ranks> {
        let kinds = kinds(self.curves);
        let seed = Seed(self.config.seed).named("search");
        let proposals = Proposals { dimensions: kinds.len() + 1, random: RANDOM, seed };
        if self.search.trials == 0 || self.search.folds == 1 {
            return Err(Error::Config("search: it takes at least one trial, and two folds or none".into()));
        }
        let mut table = Table::open(self.folder()?.join("trials.jsonl"), self.fingerprint())?;
        let mut alive: Vec<Trial> = Vec::new();
        for (rung, (count, part)) in rungs(self.search.trials).into_iter().enumerate() {
            let steps = ((part * self.config.steps as f64) as u64).max(1);
            if rung > 0 {
                alive.sort_by(|a, b| a.val_loss.total_cmp(&b.val_loss));
                alive.truncate(count);
            }
            let mut done: Vec<Trial> = Vec::new();
            for place in 0..count {
                let (number, point) = match alive.get(place) {
                    Some(earlier) => (earlier.number, earlier.point.clone()),
                    None => (place, proposals.next(&tried(&done))),
                };
                let trial = self.trial(&mut table, &kinds, number, steps, point)?;
                see(&trial);
                done.push(trial);
            }
            alive = done;
        }
        let best = alive.into_iter().min_by(|a, b| a.val_loss.total_cmp(&b.val_loss)).expect("there is a trial");
        self.ranks(&kinds, &best.point)
    }

    /// A trial as the table has it, or made and put there.
    fn trial(&self, table: &mut Table, kinds: &[&str], number: usize, steps: u64, point: Vec<f64>) -> Result<Trial> {
        if let Some(known) = table.find(number, steps) {
            return Ok(known.clone());
        }
        let ranks = self.ranks(kinds, &point)?;
        let known = table.same(&ranks.ranks, steps);
        let val_loss = known.map_or_else(|| self.judge(&ranks, number, steps), Ok)?;
        table.add(Trial { number, steps, point, ranks: ranks.ranks, val_loss })
    }

    /// Changes with all that a trial's loss is a function of, in hexadecimal.
    fn fingerprint(&self) -> String {
        let config = Config { out: None, ..self.config.clone() };
        let config = serde_json::to_string(&config).expect("plain data");
        let about = format!("{config} {} {:?} {:?}", self.subject.fingerprint, self.sharing, self.curves);
        format!("{:016x}", checksum(about.as_bytes()))
    }

    fn folder(&self) -> Result<PathBuf> {
        let out =
            self.config.out.as_ref().ok_or_else(|| Error::Config("out: a search needs the run's folder".into()))?;
        let folder = out.join("search");
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        Ok(folder)
    }

    /// Ranks for a point: the budget shared out by gains times the point's factors.
    fn ranks(&self, kinds: &[&str], point: &[f64]) -> Result<Ranks> {
        let last = (self.curves.len().max(2) - 1) as f64;
        let weighted = |(i, curve): (usize, &Curve)| {
            let of_kind = point[kinds.iter().position(|known| *known == kind(&curve.path)).expect("it is one")];
            let depth = 2.0 * i as f64 / last - 1.0;
            let factor = (REACH * (of_kind + depth * point[kinds.len()])).exp();
            Curve {
                gains: curve.gains.iter().map(|gain| gain * factor).collect(),
                rest: curve.rest * factor,
                ..curve.clone()
            }
        };
        let curves: Vec<Curve> = self.curves.iter().enumerate().map(weighted).collect();
        share_out(self.config, self.subject, &curves, self.sharing)
    }

    /// Loss on what is held back, after a run of so many steps with these ranks.
    fn judge(&self, ranks: &Ranks, number: usize, steps: u64) -> Result<f64> {
        let folds = self.search.folds.max(1);
        let mut sum = 0.0;
        for fold in 0..folds {
            let folder = self.folder()?.join(format!("trial-{number}-{steps}-{fold}"));
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(Error::file(&folder))?;
            }
            let scaled = |count: u64| count * steps / self.config.steps;
            let config = Config {
                steps,
                warmup: self.config.warmup.map(scaled),
                eval_every: steps,
                save_every: steps,
                out: Some(folder.clone()),
                fold: (self.search.folds > 1).then_some([fold, folds]),
                ..ranks.apply(self.config)
            };
            let control = Control { resume: false, stop: self.stop, profile: false };
            let trained = match run(&config, control, &mut |_: Event<'_>| {}) {
                Err(Error::NotFinite(_)) => None,
                other => other?.report.val_loss.filter(|loss| loss.is_finite()),
            };
            std::fs::remove_dir_all(&folder).map_err(Error::file(&folder))?;
            let Some(loss) = trained else { return Ok(DIVERGED) };
            sum += loss;
        }
        Ok(sum / folds as f64)
    }
}

/// Points and their losses.
fn tried(trials: &[Trial]) -> Vec<(Vec<f64>, f64)> {
    trials.iter().map(|trial| (trial.point.clone(), trial.val_loss)).collect()
}

/// The kinds of layers, by what stands behind the block's number in their paths, in the order of the model.
fn kinds(curves: &[Curve]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for curve in curves {
        if !kinds.contains(&kind(&curve.path)) {
            kinds.push(kind(&curve.path));
        }
    }
    kinds
}

fn kind(path: &str) -> &str {
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let block = path.split('.').find(|part| number(part));
    block.and_then(|block| path.split_once(&format!(".{block}."))).map_or(path, |(_, kind)| kind)
}

/// What was tried, a line each, behind one that says for which search.
struct Table {
    file: JsonLines,
    trials: Vec<Trial>,
}

/// A line of it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    About { search: String },
    Trial(Trial),
}

impl Table {
    /// A last line that was cut off is not there; a table of another search is an error.
    fn open(path: PathBuf, search: String) -> Result<Table> {
        let (mut other, mut trials) = (None, Vec::new());
        let (mut file, lines) = JsonLines::open(&path, |_: &Line| true)?;
        let begun = !lines.is_empty();
        for line in lines {
            match line {
                Line::About { search: found } => other = Some(found).filter(|found| *found != search),
                Line::Trial(trial) => trials.push(trial),
            }
        }
        if other.is_some() {
            let problem = "is the table of a search with other settings or data: give another --out, or remove it";
            return Err(Error::Data { path, problem: problem.into() });
        }
        if !begun {
            file.add(&Line::About { search })?;
        }
        Ok(Table { file, trials })
    }

    fn find(&self, number: usize, steps: u64) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.number == number && trial.steps == steps)
    }

    /// The loss of the same ranks in as many steps.
    fn same(&self, ranks: &BTreeMap<String, usize>, steps: u64) -> Option<f64> {
        self.trials.iter().find(|trial| trial.ranks == *ranks && trial.steps == steps).map(|trial| trial.val_loss)
    }

    fn add(&mut self, trial: Trial) -> Result<Trial> {
        self.file.add(&trial)?;
        self.file.sync()?;
        self.trials.push(trial.clone());
        Ok(trial)
    }
}
