//! Ranks of a run's adapters, chosen under a budget before the run begins.

use super::{Adapter, Budget, Config, Plan, Sample, Subject};
use crate::device::{Device, Tag};
use crate::error::{Error, Result};
use crate::lowrank::{Lora, each};
use crate::module::{Module, Path};
use crate::nn::Model;
use crate::rank::{Allocation, Bounds, Curve, Rule, Sensitivity, Survey, Surveyed, allocate};
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ranks by layer, and how they came about: the file that `allocate` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranks {
    /// Rank of each layer by its path; 0 for layers that get no adapter.
    pub ranks: BTreeMap<String, usize>,
    /// What the ranks cost, in what the budget is in.
    pub spent: u64,
    /// What there was.
    pub budget: Budget,
}

/// How a budget is shared out.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// What there is.
    pub budget: Budget,
    /// How ranks are chosen.
    pub rule: Rule,
    /// Least and highest rank.
    pub bounds: Bounds,
}

/// Gain curves of the layers that a resolved configuration's adapters are for, on its model as the run begins with it and on
/// `batches` micro-batches of what it learns from.
pub fn look(
    config: &Config,
    subject: &Subject,
    device: &Device,
    sensitivity: Sensitivity,
    most: usize,
    batches: u64,
) -> Result<Surveyed> {
    let (model, survey) = survey(config, subject, device, most)?;
    survey.look(&model, &Sample::of(&*subject.source, config, batches), sensitivity)
}

/// The bare model of a run, and how its layers are looked at.
pub fn survey(config: &Config, subject: &Subject, device: &Device, most: usize) -> Result<(Model, Survey)> {
    let (mut model, fresh) = config.bare(&subject.names, device)?;
    let names = config.adapted_layers(&mut model, &fresh)?;
    let rank = if most == usize::MAX { MOST } else { most };
    Ok((model, Survey { names, rank, seed: Seed(config.seed).named("survey"), ..Survey::default() }))
}

/// Ranks that curves are known to, unless others are asked for.
const MOST: usize = 64;

/// Attempts to meet a budget in bytes, whose cost is not quite that of the ranks one by one.
const ATTEMPTS: usize = 6;

/// Shares a budget out among the layers of a resolved configuration's model, by what curves say of them. A budget in bytes
/// or memory is kept to the byte of the plan, and no layer that would win something could have one rank more (uniform
/// ranks apart; [`Rule::Published`] keeps nothing).
///
/// A budget below the least ranks is an error that says what they take.
pub fn share_out(config: &Config, subject: &Subject, curves: &[Curve], sharing: Sharing) -> Result<Ranks> {
    let Sharing { budget, rule, bounds } = sharing;
    let parameters: Vec<u64> = curves.iter().map(Curve::cost).collect();
    let named = |found: Allocation| Ranks {
        ranks: curves.iter().map(|curve| curve.path.clone()).zip(found.ranks).collect(),
        spent: found.spent,
        budget,
    };
    let measure = Measure { config, subject, curves, budget };
    let limit = match budget {
        Budget::Parameters(_) if config.adapter == Adapter::Dora => {
            let problem = "lengths of outputs (dora) are not counted in parameters of ranks: give bytes, such as 8MiB";
            return Err(Error::Config(format!("budget: {problem}")));
        }
        Budget::Parameters(count) => {
            let found = allocate(curves, &parameters, count, bounds, rule)?;
            let least = parameters.iter().min().copied().unwrap_or_default();
            return match found.ranks.iter().all(|&rank| rank == 0) {
                true => Err(Error::Config(format!(
                    "budget: no rank that wins anything fits into {count}; one takes {least}"
                ))),
                false => Ok(named(found)),
            };
        }
        Budget::Bytes(bytes) | Budget::Memory(bytes) => bytes,
    };
    // From at least one rank everywhere, so that a layer's first rank brings nothing else with it.
    let some: Vec<usize> = curves.iter().map(|curve| bounds.least.clamp(1, curve.full_rank())).collect();
    let (taken, costs) = (measure.of(&some)?, measure.costs(&some)?);
    let of_some: u64 = some.iter().zip(&costs).map(|(&rank, cost)| rank as u64 * cost).sum();
    let mut room = limit.saturating_add(of_some).saturating_sub(taken);
    if room < of_some * bounds.least.min(1) as u64 {
        let advice = format!("rank {} everywhere takes so much: {}", bounds.least, way_out(budget));
        return Err(Error::Memory { needed: taken, limit, advice });
    }
    // By the costs of single ranks; then by what is really taken.
    let mut found = allocate(curves, &costs, room, bounds, rule)?;
    for _ in 0..ATTEMPTS {
        let taken = measure.of(&found.ranks)?;
        if taken <= limit || rule == Rule::Published {
            break;
        }
        room = room.saturating_sub(taken - limit);
        found = allocate(curves, &costs, room, bounds, rule)?;
    }
    if !matches!(rule, Rule::Published | Rule::Uniform) {
        measure.fill(&mut found, &costs, bounds, limit)?;
    }
    found.spent = measure.of(&found.ranks)?;
    let nothing = found.ranks.iter().all(|&rank| rank == 0);
    match !nothing && (found.spent <= limit || rule == Rule::Published) {
        true => Ok(named(found)),
        false => {
            let advice = format!("no ranks were found that fit: {}", way_out(budget));
            Err(Error::Memory { needed: found.spent.max(taken), limit, advice })
        }
    }
}

fn way_out(budget: Budget) -> &'static str {
    match budget {
        Budget::Memory(_) => "take a larger budget, a smaller batch or recompute",
        _ => "take a larger budget, or name fewer layers",
    }
}

/// What ranks take, by plans.
struct Measure<'a> {
    config: &'a Config,
    subject: &'a Subject,
    curves: &'a [Curve],
    budget: Budget,
}

impl Measure<'_> {
    fn with(&self, ranks: &[usize]) -> Config {
        only(self.config, self.curves.iter().zip(ranks).map(|(curve, &rank)| (curve.path.clone(), rank)).collect())
    }

    /// Bytes of a run with these ranks.
    fn of(&self, ranks: &[usize]) -> Result<u64> {
        let config = self.with(ranks);
        match self.budget {
            _ if ranks.iter().all(|&rank| rank == 0) => Ok(0),
            Budget::Memory(_) => Ok(Plan::new(&config, self.subject)?.reserved_bytes),
            _ => trained_bytes(&config, self.subject),
        }
    }

    /// Bytes of one rank more of each layer than these; layers of the same sizes cost the same.
    fn costs(&self, from: &[usize]) -> Result<Vec<u64>> {
        let mut known: BTreeMap<[usize; 2], u64> = BTreeMap::new();
        let before = self.of(from)?;
        let mut costs = Vec::new();
        for (i, curve) in self.curves.iter().enumerate() {
            let cost = match known.get(&curve.sizes) {
                Some(&cost) => cost,
                None => {
                    let mut more = from.to_vec();
                    more[i] = (more[i] + 1).min(curve.full_rank());
                    self.of(&more)?.saturating_sub(before).max(1)
                }
            };
            known.insert(curve.sizes, cost);
            costs.push(cost);
        }
        Ok(costs)
    }

    /// Buys ranks as long as one that wins something fits.
    fn fill(&self, found: &mut Allocation, costs: &[u64], bounds: Bounds, limit: u64) -> Result<()> {
        loop {
            let worth = |i: usize| {
                let curve = &self.curves[i];
                let gain = (found.ranks[i] < bounds.of(curve).1).then(|| curve.gains[found.ranks[i]])?;
                (gain > 0.0).then_some(gain / costs[i] as f64)
            };
            let mut order: Vec<(usize, f64)> = (0..costs.len()).filter_map(|i| Some((i, worth(i)?))).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1));
            let mut bought = false;
            for (i, _) in order {
                found.ranks[i] += 1;
                if self.of(&found.ranks)? <= limit {
                    bought = true;
                    break;
                }
                found.ranks[i] -= 1;
            }
            if !bought {
                return Ok(());
            }
        }
    }
}

/// Bytes of adapters, their gradients and the optimizer's state of them; a head that trains beside them is not counted.
fn trained_bytes(config: &Config, subject: &Subject) -> Result<u64> {
    let device = Device::null_for(&config.device);
    let mut model: Model = config.fresh(&*subject.source, &subject.names, &device)?;
    let mut adapted = Vec::new();
    each::<Lora>(&mut model, |path, _| adapted.push(format!("{path}.")));
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        let path = path.to_string();
        if !adapted.iter().any(|layer| path.starts_with(layer)) {
            parameter.freeze();
        }
    });
    let mut optimizer = config.optimizer(&mut model)?;
    optimizer.prepare(&model);
    let state = device.ledger().live()[Tag::Optimizer];
    let trained = model.trainable_parameters() as u64 * 4;
    Ok(2 * trained + state)
}

impl Ranks {
    /// The configuration of a run with these ranks: layers without are left out. Alphas are divided by √r, so that layers
    /// of unlike ranks learn at about the same pace.
    pub fn apply(&self, config: &Config) -> Config {
        let adapter = if config.adapter == Adapter::None { Adapter::Lora } else { config.adapter };
        Config { adapter, rank_stabilised: true, ..only(config, self.ranks.clone()) }
    }
}

/// Adapters of these ranks, and of no other layers.
fn only(config: &Config, ranks: BTreeMap<String, usize>) -> Config {
    let targets = ranks.iter().filter(|(_, rank)| **rank > 0).map(|(path, _)| path.clone()).collect();
    Config { adapter_targets: targets, last_layers: None, rank_pattern: ranks, ..config.clone() }
}
