//! Rank patterns judged by what short runs make of them on what is held back: proposals by Parzen estimators, halved again
//! and again. Every pattern keeps the budget.

use super::{Config, Control, Event, Ranks, Sharing, Subject, run, share_out};
use crate::error::{Error, Result};
use crate::rank::{Curve, Proposals, rungs};
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
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
        let mut table = Table::open(self.folder()?.join("trials.jsonl"))?;
        let mut alive: Vec<Trial> = Vec::new();
        for (rung, (count, part)) in rungs(self.search.trials).into_iter().enumerate() {
            let steps = ((part * self.config.steps as f64) as u64).max(1);
            if rung > 0 {
                alive.sort_by(|a, b| a.val_loss.total_cmp(&b.val_loss));
                alive.truncate(count);
            }
            let mut done: Vec<Trial> = Vec::new();
            for place in 0..count {
                let (number, point) = match rung {
                    0 => {
                        (place, proposals.next(&done.iter().map(|t| (t.point.clone(), t.val_loss)).collect::<Vec<_>>()))
                    }
                    _ => (alive[place].number, alive[place].point.clone()),
                };
                let trial = match table.find(number, steps) {
                    Some(known) => known,
                    None => {
                        let ranks = self.ranks(&kinds, &point)?;
                        let val_loss = match table.same(&ranks.ranks, steps) {
                            Some(known) => known,
                            None => self.judge(&ranks, number, steps)?,
                        };
                        table.add(Trial { number, steps, point, ranks: ranks.ranks, val_loss })?
                    }
                };
                see(&trial);
                done.push(trial);
            }
            alive = done;
        }
        let best = alive.into_iter().min_by(|a, b| a.val_loss.total_cmp(&b.val_loss)).expect("there is a trial");
        self.ranks(&kinds, &best.point)
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
            let trained = run(&config, control, &mut |_: Event<'_>| {})?;
            std::fs::remove_dir_all(&folder).map_err(Error::file(&folder))?;
            // What diverges is no better than anything.
            sum += trained.report.val_loss.filter(|loss| loss.is_finite()).unwrap_or(f64::MAX / folds as f64);
        }
        Ok(sum / folds as f64)
    }
}

/// The kinds of layers, by the last part of their paths, in the order of the model.
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
    path.rsplit('.').next().unwrap_or_default()
}

/// What was tried, a line each.
struct Table {
    path: PathBuf,
    trials: Vec<Trial>,
}

impl Table {
    /// A last line that was cut off is not there.
    fn open(path: PathBuf) -> Result<Table> {
        let text =
            if path.exists() { std::fs::read_to_string(&path).map_err(Error::file(&path))? } else { String::new() };
        let trials: Vec<Trial> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let table = Table { path, trials };
        table.write(&table.path, false, &table.trials)?;
        Ok(table)
    }

    fn find(&self, number: usize, steps: u64) -> Option<Trial> {
        self.trials.iter().find(|trial| trial.number == number && trial.steps == steps).cloned()
    }

    /// The loss of the same ranks in as many steps.
    fn same(&self, ranks: &BTreeMap<String, usize>, steps: u64) -> Option<f64> {
        self.trials.iter().find(|trial| trial.ranks == *ranks && trial.steps == steps).map(|trial| trial.val_loss)
    }

    fn add(&mut self, trial: Trial) -> Result<Trial> {
        self.write(&self.path, true, std::slice::from_ref(&trial))?;
        self.trials.push(trial.clone());
        Ok(trial)
    }

    fn write(&self, path: &Path, append: bool, trials: &[Trial]) -> Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.create(true).write(true).append(append).truncate(!append);
        let mut file = options.open(path).map_err(Error::file(path))?;
        let lines: String =
            trials.iter().map(|trial| serde_json::to_string(trial).expect("plain data") + "\n").collect();
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::file(path))
    }
}
