//! Search for what no formula says: proposals by a tree of Parzen estimators (Bergstra, Bardenet, Bengio & Kégl 2011) and
//! successive halving of trials (Jamieson & Talwalkar 2016). Both are functions of the seed and of what was tried, so that
//! a search goes on where its table ends.

use crate::rng::Seed;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

/// Points between −1 and 1 in every dimension, and how to look for the best of them.
#[derive(Clone, Copy, Debug)]
pub struct Proposals {
    /// Numbers of a point.
    pub dimensions: usize,
    /// Points drawn evenly before the estimators have their say; the first of all is 0.
    pub random: usize,
    /// What draws are functions of.
    pub seed: Seed,
}

/// Part of the trials that count as good.
const GOOD: f64 = 0.25;
/// Draws from the good ones' density, of which the one is proposed that is likeliest good.
const DRAWS: usize = 24;

impl Proposals {
    /// The next point, after points with these losses, lower being better.
    pub fn next(&self, tried: &[(Vec<f64>, f64)]) -> Vec<f64> {
        let seed = self.seed.fold(tried.len() as u64);
        let mut stream = seed.stream();
        if tried.is_empty() {
            return vec![0.0; self.dimensions];
        }
        if tried.len() < self.random.max(2) {
            return (0..self.dimensions).map(|_| 2.0 * stream.random::<f64>() - 1.0).collect();
        }
        let mut order: Vec<&(Vec<f64>, f64)> = tried.iter().collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        let good = ((GOOD * tried.len() as f64).ceil() as usize).clamp(1, tried.len() - 1);
        let (good, bad) = order.split_at(good);
        let one = |dimension: usize| {
            let along = |points: &[&(Vec<f64>, f64)]| points.iter().map(|(point, _)| point[dimension]).collect();
            let (good, bad) = (Parzen::new(along(good)), Parzen::new(along(bad)));
            let draws = (0..DRAWS).map(|_| good.draw(&mut stream)).collect::<Vec<f64>>();
            let worth = |x: &f64| (good.density(*x) / bad.density(*x)).ln();
            draws.into_iter().max_by(|a, b| worth(a).total_cmp(&worth(b))).expect("there are draws")
        };
        (0..self.dimensions).map(one).collect()
    }
}

/// A density on [−1, 1]: normal distributions about points, and one over all of it.
struct Parzen {
    /// Mean and deviation.
    parts: Vec<[f64; 2]>,
}

impl Parzen {
    /// Each point is as wide as the larger gap to its neighbours, within bounds.
    fn new(mut points: Vec<f64>) -> Parzen {
        points.sort_by(f64::total_cmp);
        let least = 2.0 / (points.len() as f64 + 1.0).min(20.0);
        let width = |i: usize| {
            let left = points[i] - if i == 0 { -1.0 } else { points[i - 1] };
            let right = if i + 1 == points.len() { 1.0 } else { points[i + 1] } - points[i];
            left.max(right).clamp(least, 2.0)
        };
        let mut parts: Vec<[f64; 2]> = (0..points.len()).map(|i| [points[i], width(i)]).collect();
        parts.push([0.0, 1.0]);
        Parzen { parts }
    }

    fn density(&self, x: f64) -> f64 {
        let one = |[mean, deviation]: &[f64; 2]| (-0.5 * ((x - mean) / deviation).powi(2)).exp() / deviation;
        self.parts.iter().map(one).sum::<f64>() / self.parts.len() as f64
    }

    fn draw(&self, stream: &mut crate::rng::Stream) -> f64 {
        let [mean, deviation] = self.parts[(stream.random::<f64>() * self.parts.len() as f64) as usize];
        let normal: f64 = StandardNormal.sample(stream);
        (mean + deviation * normal).clamp(-1.0, 1.0)
    }
}

/// How many trials there are at each rung and what part of the steps they take: all `trials` at the lowest, a third of them
/// with three times the steps at each that follows, up to whole runs.
pub fn rungs(trials: usize) -> Vec<(usize, f64)> {
    let mut rungs = vec![(trials, 1.0)];
    while rungs[rungs.len() - 1].0 >= 3 {
        let (fewer, _) = rungs[rungs.len() - 1];
        rungs.iter_mut().for_each(|(_, part)| *part /= 3.0);
        rungs.push((fewer / 3, 1.0));
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_end_with_whole_runs() {
        let found = rungs(20);
        let counts: Vec<usize> = found.iter().map(|(count, _)| *count).collect();
        assert_eq!(counts, [20, 6, 2]);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(found[0].1, 1.0 / 9.0) && near(found[1].1, 1.0 / 3.0) && found[2].1 == 1.0);
        assert_eq!(rungs(2), [(2, 1.0)]);
    }

    /// A bowl in five dimensions: in forty trials closer to its bottom than forty even draws, in most of 20 searches.
    #[test]
    fn estimators_find_better_points_than_chance() {
        let bowl = |x: &[f64]| x.iter().enumerate().map(|(i, x)| (x - 0.6 + 0.2 * i as f64).powi(2)).sum::<f64>();
        let search = |random: usize, seed: u64| {
            let proposals = Proposals { dimensions: 5, random, seed: Seed(seed) };
            let mut tried: Vec<(Vec<f64>, f64)> = Vec::new();
            for _ in 0..40 {
                let point = proposals.next(&tried);
                assert!(point.iter().all(|x| (-1.0..=1.0).contains(x)));
                let loss = bowl(&point);
                tried.push((point, loss));
            }
            tried.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min)
        };
        let wins = (0..20).filter(|&seed| search(8, seed) < search(40, seed)).count();
        assert!(wins >= 15, "{wins} of 20");
        assert_eq!(search(8, 3), search(8, 3));
    }
}
