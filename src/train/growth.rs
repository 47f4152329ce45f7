//! Adapters that grow while a run goes on: every so often, ranks are added where they are predicted to win most for what
//! they cost, until a budget is spent.

use super::trainer::Trainer;
use super::{Config, Sample};
use crate::error::{Error, Result};
use crate::lowrank::{Lora, each};
use crate::module::Map;
use crate::nn::Model;
use crate::rank::{Candidate, candidates};
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When adapters grow, and how far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Growth {
    /// Parameters that adapters may come to.
    pub budget: u64,
    /// Rank that all begin with, no higher than the configuration's, which says how large their factors on A B are.
    pub start: usize,
    /// Steps from one growth to the next; what makes ten of them if none.
    pub every: Option<u64>,
    /// Part of the run after which nothing grows.
    pub until: f64,
    /// Batches that propose directions, and as many others that judge them.
    pub batches: u64,
    /// What wins less for its cost than this part of the best is not bought.
    pub threshold: f64,
}

impl Default for Growth {
    fn default() -> Growth {
        Growth { budget: 0, start: 0, every: None, until: 0.5, batches: 4, threshold: 0.01 }
    }
}

impl Growth {
    /// What is wrong with it for adapters of such a rank in a run of so many steps.
    pub(super) fn problem(&self, rank: usize, steps: u64) -> Option<String> {
        let part = |x: f64| x > 0.0 && x <= 1.0;
        let problems = [
            (self.budget == 0, "budget: it is 0: give the parameters that adapters may come to".into()),
            (self.start > rank, format!("start: it is {}, above the rank {rank}", self.start)),
            (!part(self.until), format!("until is {}: it must be above 0 and at most 1", self.until)),
            (!(0.0..=1.0).contains(&self.threshold), format!("threshold is {}: it must be 0 to 1", self.threshold)),
            (part(self.until) && self.last(steps) == 0, format!("every: in {steps} steps nothing would ever grow")),
        ];
        problems.into_iter().find(|(found, _)| *found).map(|(_, problem)| format!("growth.{problem}"))
    }

    fn every(&self, steps: u64) -> u64 {
        self.every.unwrap_or((self.until * steps as f64 / 10.0) as u64).max(1)
    }

    /// Whether adapters grow after `step` steps of a run of so many.
    fn is_due(&self, step: u64, steps: u64) -> bool {
        step > 0 && step.is_multiple_of(self.every(steps)) && step <= self.last(steps)
    }

    /// The step after which they grow for the last time.
    fn last(&self, steps: u64) -> u64 {
        let every = self.every(steps);
        (self.until * steps as f64) as u64 / every * every
    }

    /// What may be spent after `step` steps of what is left: an even share of the times that remain.
    fn allowance(&self, left: u64, step: u64, steps: u64) -> u64 {
        left / (1 + (self.last(steps) - step) / self.every(steps))
    }

    /// The candidates to take, best first, with costs in parameters: one rank of a layer at most.
    fn chosen(&self, mut all: Vec<Candidate>, mut allowance: u64) -> Vec<Candidate> {
        let worth = |c: &Candidate| c.gain / cost(c.sizes) as f64;
        all.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        let least = self.threshold * all.first().map_or(0.0, worth);
        all.retain(|candidate| {
            let cost = cost(candidate.sizes);
            let taken = candidate.gain > 0.0 && worth(candidate) >= least && cost <= allowance;
            allowance -= if taken { cost } else { 0 };
            taken
        });
        all
    }
}

fn cost(sizes: [usize; 2]) -> u64 {
    (sizes[0] + sizes[1]) as u64
}

/// Parameters of a model's adapters.
fn parameters(model: &Model) -> u64 {
    let mut sum = 0;
    each::<Lora>(&mut model.clone(), |_, map| sum += map.rank() as u64 * cost(map.sizes()));
    sum
}

/// Rank of each layer that has an adapter.
pub(super) fn ranks(model: &Model) -> BTreeMap<String, usize> {
    let mut ranks = BTreeMap::new();
    each::<Lora>(&mut model.clone(), |path, map| {
        ranks.insert(path.to_string(), map.rank());
    });
    ranks
}

/// Gives adapters the ranks that a checkpoint has, with factors to be filled.
pub(super) fn fit(model: &mut Model, ranks: &BTreeMap<String, usize>) {
    each::<Lora>(model, |path, map| {
        if let Some(&rank) = ranks.get(path).filter(|&&rank| rank != map.rank()) {
            map.emptied(rank);
        }
    });
}

impl Config {
    /// Cuts adapters down to the rank that they are to grow from; an error if that takes more than there is.
    pub(super) fn cut_down(&self, model: &mut Model) -> Result<()> {
        let Some(Growth { budget, start, .. }) = self.growth else { return Ok(()) };
        each::<Lora>(model, |_, map| map.cut(start.min(map.rank())));
        let taken = parameters(model);
        let mut cheapest = u64::MAX;
        each::<Lora>(model, |_, map| cheapest = cheapest.min(cost(map.sizes())));
        match taken <= budget {
            true if taken == 0 && cheapest > budget => {
                Err(Error::Config(format!("growth.budget: no rank fits into {budget}; one takes {cheapest}")))
            }
            true => Ok(()),
            false => Err(Error::Config(format!(
                "growth.budget: rank {start} everywhere takes {taken}, and there are {budget}: let adapters begin with less"
            ))),
        }
    }

    /// Gives adapters ranks that come to the budget, evenly: what a plan counts, since nobody knows yet where they grow.
    pub(super) fn grown(&self, model: &mut Model) {
        let Some(growth) = &self.growth else { return };
        let mut spent = parameters(model);
        let mut grows = true;
        while grows {
            grows = false;
            each::<Lora>(model, |_, map| {
                let cost = cost(map.sizes());
                let room = map.rank() < map.sizes()[0].min(map.sizes()[1]);
                if room && spent + cost <= growth.budget {
                    map.emptied(map.rank() + 1);
                    spent += cost;
                    grows = true;
                }
            });
        }
    }
}

impl Trainer<'_> {
    /// What each layer would win by one rank more.
    pub(super) fn candidates(&self, growth: &Growth) -> Result<Vec<Candidate>> {
        let sample = |part: u64| {
            let first = 2 * self.progress.step * growth.batches + part * growth.batches;
            let batch = |number| self.source.beside(self.config, first + number);
            Sample::new((0..growth.batches).map(batch).collect())
        };
        let seed = Seed(self.config.seed).named("growth").fold(self.progress.step);
        candidates(&self.model, &sample(0), &sample(1), seed)
    }

    /// Grows adapters, if they are to grow after the step that was made last; gives the layers that did.
    pub(super) fn grow(&mut self) -> Result<Vec<String>> {
        let (config, step) = (self.config, self.progress.step);
        let Some(growth) = config.growth.as_ref().filter(|growth| growth.is_due(step, config.steps)) else {
            return Ok(Vec::new());
        };
        let left = growth.budget.saturating_sub(parameters(&self.model));
        let ranks = ranks(&self.model);
        let open = |c: &Candidate| ranks[&c.path] < c.sizes[0].min(c.sizes[1]);
        let all = match self.candidates(growth) {
            // What is not finite is the next step's to report; nothing grows by it.
            Err(Error::NotFinite(_)) => return Ok(Vec::new()),
            found => found?.into_iter().filter(open).collect::<Vec<Candidate>>(),
        };
        let chosen = growth.chosen(all, growth.allowance(left, step, config.steps));
        let columns: BTreeMap<&str, &crate::Tensor> = chosen.iter().map(|c| (&*c.path, &c.column)).collect();
        let mut done = Ok(());
        each::<Lora>(&mut self.model, |path, map| {
            if let Some(column) = columns.get(path)
                && done.is_ok()
            {
                done = map.grow_along(column);
            }
        });
        done?;
        self.optimizer.resize(&self.model);
        // What was recorded is about other shapes.
        self.replay = None;
        self.held = self.optimizer.gradients(&self.model, self.progress.taken);
        Ok(chosen.into_iter().map(|candidate| candidate.path).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, Tensor};

    #[test]
    fn growth_is_spread_over_the_run() {
        let growth = Growth { every: Some(20), until: 0.5, ..Growth::default() };
        let due: Vec<u64> = (0..=100).filter(|&step| growth.is_due(step, 100)).collect();
        assert_eq!(due, [20, 40]);
        assert_eq!([20, 40].map(|step| growth.allowance(600, step, 100)), [300, 600]);
        let usual = Growth::default();
        assert_eq!((0..=300).filter(|&step| usual.is_due(step, 300)).count(), 10);
        assert!(usual.is_due(1, 4) && !usual.is_due(3, 4));
    }

    #[test]
    fn what_wins_most_for_its_cost_is_bought() {
        let column = Tensor::zeros([1, 1], DType::F32, &Device::cpu());
        let candidate = |path: &str, size: usize, gain: f64| Candidate {
            path: path.into(),
            sizes: [size, size],
            column: column.clone(),
            row: column.clone(),
            slope: 1.0,
            curvature: 1.0,
            gain,
        };
        let all = vec![
            candidate("large", 50, 3.0),
            candidate("small", 10, 1.0),
            candidate("useless", 10, 0.0),
            candidate("poor", 10, 1e-4),
            candidate("good", 10, 0.9),
        ];
        let growth = Growth::default();
        let paths = |allowance| -> Vec<String> {
            growth.chosen(all.clone(), allowance).into_iter().map(|candidate| candidate.path).collect()
        };
        assert_eq!(paths(1000), ["small", "good", "large"]);
        assert_eq!(paths(40), ["small", "good"]);
        assert_eq!(paths(19), [""; 0]);
    }
}
