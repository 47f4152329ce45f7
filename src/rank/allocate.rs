//! A budget shared out among layers: whole ranks, within bounds, never more than there is.

use super::tails::Fitted;
use super::{Curve, Tail};
use crate::error::{Error, Result};

/// How ranks are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Rank by rank, what wins most for its cost (Eckart & Young: the best update of rank r has the leading r singular
    /// values). At equal costs no allocation wins more; otherwise the best wins less than one rank's gain more.
    Greedy,
    /// The optimum, by Lagrange's multiplier, for curves of one form fitted to the gains; rounded down, and what is left
    /// spent rank by rank.
    ClosedForm(Tail),
    /// The highest rank that all layers can have, or their full rank where that is lower. What is left stays.
    Uniform,
    /// r = ⌈(P/L) √(s/c) / Σ √(s/c)⌉ of P parameters for L layers, as LoRAMBo has it (Cawley, theorem 1). Its ranks, not
    /// its parameters, add up to P/L: it spends about c/L times the budget. For comparison.
    Published,
}

/// Least and highest rank of every layer; no layer has more than its full rank, or than the gains known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Least, 0 to let layers go without.
    pub least: usize,
    /// Highest.
    pub most: usize,
}

impl Default for Bounds {
    /// At least one rank, and no limit.
    fn default() -> Bounds {
        Bounds { least: 1, most: usize::MAX }
    }
}

impl Bounds {
    /// Of one layer: the least is kept to whatever is known of gains, beyond which nothing is bought.
    pub(crate) fn of(&self, curve: &Curve) -> (usize, usize) {
        let most = self.most.min(curve.full_rank());
        let least = self.least.min(most);
        (least, most.min(curve.gains.len()).max(least))
    }
}

/// Ranks, in the order of the layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// Rank of each layer.
    pub ranks: Vec<usize>,
    /// What they cost.
    pub spent: u64,
    /// What there was; [`Rule::Published`] may have spent more.
    pub budget: u64,
    /// What ranks that are not had would win.
    pub left: f64,
}

impl Allocation {
    fn of(ranks: Vec<usize>, curves: &[Curve], costs: &[u64], budget: u64) -> Allocation {
        let spent = spent(&ranks, costs);
        let left = curves.iter().zip(&ranks).map(|(curve, &rank)| curve.left(rank)).sum();
        Allocation { ranks, spent, budget, left }
    }

    /// Path and rank of each layer.
    pub fn of_layers<'a>(&'a self, curves: &'a [Curve]) -> impl Iterator<Item = (&'a str, usize)> {
        curves.iter().map(|curve| &*curve.path).zip(self.ranks.iter().copied())
    }

    /// Paths of the layers that get nothing.
    pub fn without<'a>(&self, curves: &'a [Curve]) -> Vec<&'a str> {
        curves.iter().zip(&self.ranks).filter(|(_, rank)| **rank == 0).map(|(curve, _)| &*curve.path).collect()
    }
}

fn spent(ranks: &[usize], costs: &[u64]) -> u64 {
    ranks.iter().zip(costs).map(|(&rank, cost)| rank as u64 * cost).sum()
}

/// Shares `budget` out among layers of which a rank costs `costs`, in parameters, bytes or whatever the budget is in; a
/// rank that wins nothing is not bought. With every rule but the published one the budget is kept and, uniform ranks
/// apart, what is left is less than the cheapest rank that is still allowed and wins something.
///
/// Errors: a budget below the least ranks (says what they take), no layers, a cost of 0, [`Curve::check`]'s.
pub fn allocate(curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds, rule: Rule) -> Result<Allocation> {
    curves.iter().try_for_each(Curve::check)?;
    check(curves, costs, budget, bounds)?;
    let mut ranks: Vec<usize> = curves.iter().map(|curve| bounds.of(curve).0).collect();
    match rule {
        Rule::Greedy => fill(&mut ranks, curves, costs, budget, bounds),
        Rule::ClosedForm(tail) => {
            let fitted: Vec<Fitted> = curves.iter().map(|curve| tail.fit(curve)).collect();
            ranks = continuous(&fitted, curves, costs, budget, bounds).into_iter().map(|r| r as usize).collect();
            fill(&mut ranks, curves, costs, budget, bounds);
        }
        Rule::Uniform => ranks = uniform(curves, costs, budget, bounds),
        Rule::Published => ranks = published(curves, costs, budget, bounds),
    }
    Ok(Allocation::of(ranks, curves, costs, budget))
}

fn check(curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds) -> Result<()> {
    assert_eq!(curves.len(), costs.len(), "a cost for each layer");
    let problem = |problem: String| Err(Error::Config(format!("budget: {problem}")));
    if curves.is_empty() {
        return problem("there are no layers to share it".into());
    }
    if let Some(free) = costs.iter().position(|&cost| cost == 0) {
        return problem(format!("a rank of {} costs nothing", curves[free].path));
    }
    if bounds.most == 0 || bounds.least > bounds.most {
        return problem(format!("ranks from {} to {}", bounds.least, bounds.most));
    }
    let least: Vec<usize> = curves.iter().map(|curve| bounds.of(curve).0).collect();
    let needed = spent(&least, costs);
    if needed > budget {
        let rank = bounds.least;
        return problem(format!(
            "rank {rank} everywhere takes {needed}, and there are {budget}: give that, or a least rank of 0, with which layers may \
             go without"
        ));
    }
    Ok(())
}

/// Buys rank after rank what wins most for its cost, as long as something can be paid that wins anything.
fn fill(ranks: &mut [usize], curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds) {
    let mut left = budget - spent(ranks, costs);
    let worth = |ranks: &[usize], left: u64, i: usize| {
        let gain = (ranks[i] < bounds.of(&curves[i]).1 && costs[i] <= left).then(|| curves[i].gains[ranks[i]])?;
        (gain > 0.0).then(|| gain / costs[i] as f64)
    };
    loop {
        let mut best: Option<(usize, f64)> = None;
        for i in 0..ranks.len() {
            if let Some(worth) = worth(ranks, left, i)
                && best.is_none_or(|(_, most)| worth > most)
            {
                best = Some((i, worth));
            }
        }
        let Some((i, _)) = best else { return };
        ranks[i] += 1;
        left -= costs[i];
    }
}

/// Ranks that are not whole, with Σ c r = budget where bounds allow: all layers win the same by the last bit of cost.
fn continuous(fitted: &[Fitted], curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds) -> Vec<f64> {
    let at = |price: f64| -> Vec<f64> {
        let rank = |i: usize| {
            let (least, most) = bounds.of(&curves[i]);
            fitted[i].rank_at(price * costs[i] as f64).clamp(least as f64, most as f64)
        };
        (0..fitted.len()).map(rank).collect()
    };
    let takes = |price: f64| at(price).iter().zip(costs).map(|(r, &c)| r * c as f64).sum::<f64>();
    // Prices over all of double precision's range, halved in the exponent: 200 halvings leave no difference.
    let (mut low, mut high) = (-700.0_f64, 700.0_f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        match takes(middle.exp()) > budget as f64 {
            true => low = middle,
            false => high = middle,
        }
    }
    at(high.exp())
}

fn uniform(curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds) -> Vec<usize> {
    let at = |rank: usize| -> Vec<usize> {
        // Whatever is known of gains.
        let most = |curve: &Curve| bounds.most.min(curve.full_rank());
        curves.iter().map(|curve| rank.clamp(bounds.of(curve).0, most(curve))).collect()
    };
    let highest = curves.iter().map(Curve::full_rank).max().unwrap_or(0).min(bounds.most);
    (0..=highest).map(at).take_while(|ranks| spent(ranks, costs) <= budget).last().expect("the least ranks fit")
}

fn published(curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds) -> Vec<usize> {
    let weight = |i: usize| (curves[i].score / costs[i] as f64).sqrt();
    let all: f64 = (0..curves.len()).map(weight).sum();
    let rank = |i: usize| {
        let (least, most) = bounds.of(&curves[i]);
        let rank = (budget as f64 / curves.len() as f64 * weight(i) / all).ceil();
        if rank.is_finite() { (rank as usize).clamp(least, most) } else { least }
    };
    (0..curves.len()).map(rank).collect()
}
