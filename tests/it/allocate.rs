//! Budgets shared out: kept always, and spent as well as can be where that can be known.

use eckart::Seed;
use eckart::rank::{Allocation, Bounds, Curve, Rule, Tail, allocate};
use rand::RngExt;

const RULES: [Rule; 6] = [
    Rule::Greedy,
    Rule::ClosedForm(Tail::Slow),
    Rule::ClosedForm(Tail::Power),
    Rule::ClosedForm(Tail::Exponential),
    Rule::Uniform,
    Rule::Published,
];

/// Layers with spectra that fall as powers or exponentially, of unlike height and sizes.
fn instance(layers: usize, ranks: usize, equal: bool, seed: Seed) -> Vec<Curve> {
    let mut stream = seed.stream();
    let mut layer = |i: usize| {
        let mut draw = |low: f64, high: f64| low + (high - low) * stream.random::<f64>();
        let sizes = if equal { [64, 64] } else { [1, 2].map(|_| 16 * (draw(1.0, 13.0) as usize)) };
        let (height, power, base) = (draw(-3.0, 3.0).exp(), draw(0.4, 2.0), draw(0.5, 0.97));
        let falls = draw(0.0, 1.0) < 0.5;
        let value = |r: usize| height * if falls { ((r + 1) as f64).powf(-2.0 * power) } else { base.powi(r as i32) };
        let gains: Vec<f64> = (0..ranks.min(sizes[0]).min(sizes[1])).map(value).collect();
        let score = gains.iter().sum::<f64>() / (sizes[0] * sizes[1]) as f64;
        Curve { path: format!("layers.{i}"), sizes, score, gains, rest: 0.0 }
    };
    (0..layers).map(&mut layer).collect()
}

fn costs(curves: &[Curve]) -> Vec<u64> {
    curves.iter().map(Curve::cost).collect()
}

/// The least that can be left to win, by trying everything.
fn best(curves: &[Curve], costs: &[u64], budget: u64, bounds: Bounds) -> f64 {
    let Some((first, rest)) = curves.split_first() else { return 0.0 };
    let most = bounds.most.min(first.gains.len());
    let affordable = (bounds.least..=most).take_while(|&r| r as u64 * costs[0] <= budget);
    let after = |r: usize| first.left(r) + best(rest, &costs[1..], budget - r as u64 * costs[0], bounds);
    affordable.map(after).fold(f64::INFINITY, f64::min)
}

/// Whether a rank that wins something could still be paid.
fn could_buy_more(found: &Allocation, curves: &[Curve], costs: &[u64], bounds: Bounds) -> bool {
    let left = found.budget - found.spent;
    (0..curves.len()).any(|i| {
        let rank = found.ranks[i];
        let most = bounds.most.min(curves[i].gains.len());
        rank < most && costs[i] <= left && curves[i].gains[rank] > 0.0
    })
}

#[test]
fn budgets_are_kept_and_spent() {
    let mut published_spends = Vec::new();
    for trial in 0..200 {
        let seed = Seed(1).fold(trial);
        let curves = instance(1 + trial as usize % 24, 16, false, seed);
        let costs = costs(&curves);
        let bounds = Bounds { least: (trial % 2) as usize, most: if trial % 3 == 0 { 5 } else { usize::MAX } };
        let least: u64 = costs.iter().sum::<u64>() * bounds.least as u64;
        let budget = least + (seed.stream().random::<f64>() * 6.0 * costs.iter().sum::<u64>() as f64) as u64;
        for rule in RULES {
            let found = allocate(&curves, &costs, budget, bounds, rule).unwrap();
            let spent: u64 = found.ranks.iter().zip(&costs).map(|(&r, c)| r as u64 * c).sum();
            assert_eq!(spent, found.spent);
            let within = |(curve, &r): (&Curve, &usize)| r >= bounds.least && r <= bounds.most.min(curve.gains.len());
            assert!(curves.iter().zip(&found.ranks).all(within), "{rule:?}: {:?}", found.ranks);
            match rule {
                Rule::Published => published_spends.push(spent as f64 / budget as f64),
                Rule::Uniform => assert!(spent <= budget),
                _ => {
                    assert!(spent <= budget, "{rule:?} spends {spent} of {budget}");
                    assert!(!could_buy_more(&found, &curves, &costs, bounds), "{rule:?} keeps what it could spend");
                }
            }
        }
    }
    assert!(published_spends.iter().any(|spend| *spend > 1.5), "the published rule overspends: {published_spends:?}");
}

/// Equal costs: no allocation wins more than greedy. Unequal: none wins more by as much as one rank does.
#[test]
fn greedy_is_as_good_as_trying_everything() {
    for trial in 0..120 {
        let (equal, seed) = (trial % 2 == 0, Seed(2).fold(trial));
        let curves = instance(4, 5, equal, seed);
        let costs = costs(&curves);
        let bounds = Bounds { least: (trial / 2 % 2) as usize, most: 5 };
        let budget = (costs.iter().sum::<u64>() as f64 * (1.0 + 3.0 * seed.stream().random::<f64>())) as u64;
        let found = allocate(&curves, &costs, budget, bounds, Rule::Greedy).unwrap();
        let least = best(&curves, &costs, budget, bounds);
        let one = curves.iter().zip(&found.ranks).filter_map(|(c, &r)| c.gains.get(r)).fold(0.0_f64, |a, &b| a.max(b));
        let slack = if equal { 1e-12 * least } else { one };
        assert!(found.left <= least + slack + 1e-12, "{} where {least} can be had", found.left);
        for rule in RULES.into_iter().filter(|rule| *rule != Rule::Published) {
            let other = allocate(&curves, &costs, budget, bounds, rule).unwrap();
            assert!(other.left >= least - 1e-12, "{rule:?} leaves less than can be left");
        }
    }
}

/// Where curves are of a form, its closed form is the optimum: the price of a rank is the same everywhere.
#[test]
fn closed_forms_are_optima_of_their_forms() {
    let power = |a: f64, sizes: [usize; 2]| {
        let left = |r: usize| if r == 0 { 2.0 * a } else { a / r as f64 };
        let gains: Vec<f64> = (0..sizes[0].min(sizes[1])).map(|r| left(r) - left(r + 1)).collect();
        Curve { path: "a".into(), sizes, score: a, gains, rest: left(sizes[0].min(sizes[1])) }
    };
    let curves = [power(1.0, [512, 512]), power(4.0, [512, 512]), power(9.0, [512, 1024])];
    let costs = costs(&curves);
    let budget: u64 = 200 * costs.iter().sum::<u64>();
    let found = allocate(&curves, &costs, budget, Bounds::default(), Rule::ClosedForm(Tail::Slow)).unwrap();
    let roots: Vec<f64> = curves.iter().zip(&costs).map(|(c, &cost)| (c.score / cost as f64).sqrt()).collect();
    let all: f64 = roots.iter().zip(&costs).map(|(root, &cost)| root * cost as f64).sum();
    for (i, root) in roots.iter().enumerate() {
        let expected = budget as f64 * root / all;
        assert!((found.ranks[i] as f64 - expected).abs() <= 2.0, "{} where {expected} is best", found.ranks[i]);
    }
}

/// Error over optimum by rule; medians of 200 instances of 24 layers, printed with --nocapture.
#[test]
fn rules_in_comparison() {
    let mut ratios = vec![Vec::new(); RULES.len()];
    let mut spends = Vec::new();
    for trial in 0..200 {
        let curves = instance(24, 16, trial % 2 == 0, Seed(3).fold(trial));
        let costs = costs(&curves);
        let budget = 3 * costs.iter().sum::<u64>();
        let found = RULES.map(|rule| allocate(&curves, &costs, budget, Bounds::default(), rule).unwrap());
        (0..RULES.len()).for_each(|i| ratios[i].push(found[i].left / found[0].left));
        spends.push(found[5].spent as f64 / budget as f64);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let medians: Vec<f64> = ratios.iter_mut().map(median).collect();
    for (rule, median) in RULES.iter().zip(&medians) {
        println!("{rule:?}: {median:.3} times what greedy leaves");
    }
    println!("the published rule spends {:.1} times the budget", median(&mut spends));
    let [greedy, slow, power, exponential, uniform, _] = medians[..] else { unreachable!() };
    assert!(greedy == 1.0 && [slow, power, exponential].iter().all(|m| (0.999..uniform).contains(m)), "{medians:?}");
}

#[test]
fn what_cannot_be_shared_out_is_said() {
    let curves = instance(3, 4, true, Seed(4));
    let costs = costs(&curves);
    let problem = |curves: &[Curve], budget, bounds| {
        allocate(curves, &costs, budget, bounds, Rule::Greedy).unwrap_err().to_string()
    };
    let bounds = Bounds::default();
    assert!(problem(&curves, 100, bounds).contains("rank 1 everywhere takes 384, and there are 100"));
    assert!(problem(&curves, 1000, Bounds { least: 3, most: 2 }).contains("ranks from 3 to 2"));
    let mut wrong = curves.clone();
    wrong[1].gains[2] = f64::NAN;
    assert!(problem(&wrong, 1000, bounds).contains("layers.1: a gain or sensitivity of NaN"));
    wrong[1].gains[2] = 1e9;
    assert!(problem(&wrong, 1000, bounds).contains("must not grow"));
    // Layers that win nothing get no more than they must.
    let mut nothing = curves.clone();
    nothing[2].gains = vec![0.0; 4];
    let found = allocate(&nothing, &costs, 10_000, Bounds { least: 0, most: 4 }, Rule::Greedy).unwrap();
    assert_eq!(found.ranks, [4, 4, 0]);
    assert_eq!(found.without(&nothing), ["layers.2"]);
}
