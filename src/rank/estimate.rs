//! Means of independent samples, and how far they may be off.

use serde::Serialize;

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean of the samples.
    pub mean: f64,
    /// Standard error of it, from the samples' own spread; infinite for one sample.
    pub error: f64,
    /// How many there were.
    pub samples: u64,
}

impl Estimate {
    /// Half the width of the 95 % interval about the mean, by Student's distribution.
    pub fn interval(&self) -> f64 {
        if self.samples < 2 { f64::INFINITY } else { self.error * student(self.samples - 1) }
    }
}

/// Samples as they come (Welford 1962).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    samples: u64,
    mean: f64,
    /// Sum of squares about the mean.
    squares: f64,
}

impl Running {
    pub fn push(&mut self, x: f64) {
        self.samples += 1;
        let before = x - self.mean;
        self.mean += before / self.samples as f64;
        self.squares += before * (x - self.mean);
    }

    pub fn estimate(&self) -> Estimate {
        let n = self.samples as f64;
        let error = if self.samples < 2 { f64::INFINITY } else { (self.squares / (n - 1.0) / n).sqrt() };
        Estimate { mean: self.mean, error, samples: self.samples }
    }
}

/// What tells the square of a mean over batches from what their noise adds to it: products of different batches have none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pairs {
    /// Σ a² ‖g‖², with a the share of a batch in all and g its part.
    own: f64,
    /// Σ a².
    shares: f64,
}

impl Pairs {
    pub fn add(&mut self, square: f64, share: f64) {
        self.own += share * share * square;
        self.shares += share * share;
    }

    /// ‖E g‖² from ‖Σ a g‖²: Σ a b ⟨g_a, g_b⟩ over pairs of different batches, whose shares make up 1 − Σ a²; not below zero.
    /// The square itself where there is one batch.
    pub fn without_noise(self, square: f64) -> f64 {
        match 1.0 - self.shares > 1e-9 {
            true => ((square - self.own) / (1.0 - self.shares)).max(0.0),
            false => square,
        }
    }
}

/// The 97.5 % point of Student's distribution (Hill, "Algorithm 396", 1970).
fn student(freedom: u64) -> f64 {
    const TAILS: f64 = 0.05;
    /// The normal distribution's 2.5 % point.
    const NORMAL: f64 = -1.959_963_984_540_054;
    let n = freedom as f64;
    match freedom {
        1 => return 1.0 / (TAILS * std::f64::consts::FRAC_PI_2).tan(),
        2 => return (2.0 / (TAILS * (2.0 - TAILS)) - 2.0).sqrt(),
        _ => {}
    }
    let a = 1.0 / (n - 0.5);
    let b = 48.0 / (a * a);
    let mut c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * n;
    let mut y = (d * TAILS).powf(2.0 / n);
    if y > 0.05 + a {
        let x = NORMAL;
        y = x * x;
        if freedom < 5 {
            c += 0.3 * (n - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = (a * y * y).exp_m1();
    } else {
        y = ((1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0) + 0.5 / (n + 4.0)) * y - 1.0)
            * (n + 1.0)
            / (n + 2.0)
            + 1.0 / y;
    }
    (n * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (19, 2.0930)];
        for (freedom, expected) in table.into_iter().chain([(30, 2.0423), (100, 1.9840), (1_000_000, 1.95997)]) {
            assert!((student(freedom) - expected).abs() < 2e-3, "{freedom}: {} is {expected}", student(freedom));
        }
    }

    /// Two batches of unlike shares: the product of both remains.
    #[test]
    fn pairs_of_different_batches_have_no_noise() {
        let mut pairs = Pairs::default();
        pairs.add(9.0, 0.25);
        pairs.add(25.0, 0.75);
        let mean: f64 = 0.25 * 3.0 + 0.75 * 5.0;
        assert!((pairs.without_noise(mean * mean) - 15.0).abs() < 1e-12);
        let mut one = Pairs::default();
        one.add(4.0, 1.0);
        assert_eq!(one.without_noise(4.0), 4.0);
        let mut opposite = Pairs::default();
        [-1.0, 1.0].into_iter().for_each(|_| opposite.add(1.0, 0.5));
        assert_eq!(opposite.without_noise(0.0), 0.0);
    }

    #[test]
    fn means_and_errors_are_those_of_the_samples() {
        let mut running = Running::default();
        assert_eq!(running.estimate().interval(), f64::INFINITY);
        [2.0, 4.0, 4.0, 6.0].into_iter().for_each(|x| running.push(x));
        let found = running.estimate();
        assert_eq!((found.mean, found.samples), (4.0, 4));
        assert!((found.error - (8.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
    }
}
