//! Curves of three forms through what is left to win: E(r) for r ranks. Their optima under a budget have closed forms.

use super::Curve;

/// How what is left to win falls with rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// E(r) = a / r. Optimum: r ∝ √(a / c) for cost c, the published formula with a normaliser that keeps the budget.
    Slow,
    /// E(r) = a r^(−p). Optimum: r = (a p / (λ c))^(1 / (1 + p)).
    Power,
    /// E(r) = a qʳ. Optimum: r = ln(a ln(1/q) / (λ c)) / ln(1/q), if that is positive.
    Exponential,
}

/// One layer's curve of such a form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fitted {
    /// a and p.
    Power(f64, f64),
    /// a and ln(1/q).
    Exponential(f64, f64),
    /// Nothing to win.
    Nothing,
}

/// Slopes below this stand for a curve that does not fall at all.
const FLATTEST: f64 = 1e-3;

impl Tail {
    /// The curve of this form through the logarithms of what is left, by least squares.
    pub(super) fn fit(self, curve: &Curve) -> Fitted {
        let left = |rank: usize| curve.left(rank);
        let whole = left(0);
        // Rounding leaves a hair of what is nothing.
        let known = (1..=curve.gains.len()).map(|rank| (rank as f64, left(rank))).filter(|(_, e)| *e > 1e-12 * whole);
        let known: Vec<(f64, f64)> = known.collect();
        if whole <= 0.0 {
            return Fitted::Nothing;
        }
        if known.is_empty() {
            // All is won by the first rank: as steep as can be told.
            return Fitted::Exponential(whole, 30.0);
        }
        match self {
            Tail::Slow => Fitted::Power(mean(known.iter().map(|(r, e)| (r * e).ln())).exp(), 1.0),
            Tail::Power => {
                let (intercept, slope) = line(known.iter().map(|(r, e)| (r.ln(), e.ln())), whole.ln());
                Fitted::Power(intercept.exp(), (-slope).max(FLATTEST))
            }
            Tail::Exponential => {
                let all = std::iter::once((0.0, whole)).chain(known.iter().copied());
                let (intercept, slope) = line(all.map(|(r, e)| (r, e.ln())), whole.ln());
                Fitted::Exponential(intercept.exp(), (-slope).max(FLATTEST))
            }
        }
    }
}

impl Fitted {
    /// The rank, not whole, at which one rank more wins `price`.
    pub(super) fn rank_at(self, price: f64) -> f64 {
        match self {
            Fitted::Power(a, p) => (a * p / price).powf(1.0 / (1.0 + p)),
            Fitted::Exponential(a, slope) => ((a * slope / price).ln() / slope).max(0.0),
            Fitted::Nothing => 0.0,
        }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Intercept and slope of the line through these points, by least squares; level through one point, or through `alone`
/// where there is none.
fn line(points: impl Iterator<Item = (f64, f64)>, alone: f64) -> (f64, f64) {
    let points: Vec<(f64, f64)> = points.collect();
    if points.is_empty() {
        return (alone, 0.0);
    }
    let (x, y) = (mean(points.iter().map(|p| p.0)), mean(points.iter().map(|p| p.1)));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let slope = if spread > 0.0 { points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread } else { 0.0 };
    (y - slope * x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(left: impl Fn(usize) -> f64, ranks: usize) -> Curve {
        let gains = (0..ranks).map(|r| left(r) - left(r + 1)).collect();
        Curve { path: "a".into(), sizes: [64, 64], score: 1.0, gains, rest: left(ranks) }
    }

    #[test]
    fn curves_of_each_form_are_found_again() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
        let at = |r: usize, f: fn(f64) -> f64| if r == 0 { 9.0 } else { f(r as f64) };
        match Tail::Power.fit(&curve(|r| at(r, |r| 5.0 * r.powf(-0.7)), 20)) {
            Fitted::Power(a, p) => assert!(near(a, 5.0) && near(p, 0.7), "{a} {p}"),
            other => panic!("{other:?}"),
        }
        match Tail::Slow.fit(&curve(|r| at(r, |r| 3.0 / r), 20)) {
            Fitted::Power(a, p) => assert!(near(a, 3.0) && p == 1.0, "{a}"),
            other => panic!("{other:?}"),
        }
        match Tail::Exponential.fit(&curve(|r| 4.0 * 0.8_f64.powi(r as i32), 20)) {
            Fitted::Exponential(a, slope) => assert!(near(a, 4.0) && near(slope, -(0.8_f64.ln())), "{a} {slope}"),
            other => panic!("{other:?}"),
        }
    }

    /// One rank more at the rank found wins the price: E(r) − E(r + dr) = price · dr.
    #[test]
    fn the_price_is_the_slope() {
        for fitted in [Fitted::Power(3.0, 0.6), Fitted::Power(2.0, 1.0), Fitted::Exponential(5.0, 0.3)] {
            let left = |r: f64| match fitted {
                Fitted::Power(a, p) => a * r.powf(-p),
                Fitted::Exponential(a, slope) => a * (-slope * r).exp(),
                Fitted::Nothing => 0.0,
            };
            let rank = fitted.rank_at(0.05);
            let slope = (left(rank - 1e-5) - left(rank + 1e-5)) / 2e-5;
            assert!((slope - 0.05).abs() < 1e-8, "{fitted:?}: {slope}");
        }
        assert_eq!(Fitted::Exponential(1.0, 0.5).rank_at(2.0), 0.0);
    }

    #[test]
    fn spectra_without_a_tail_fit_something_finite() {
        let one = |gains: &[f64]| Curve { path: "a".into(), sizes: [4, 4], score: 1.0, gains: gains.into(), rest: 0.0 };
        for tail in [Tail::Slow, Tail::Power, Tail::Exponential] {
            assert_eq!(tail.fit(&one(&[0.0, 0.0])), Fitted::Nothing);
            for gains in [&[2.0][..], &[2.0, 0.0], &[2.0, 1.0], &[1.0, 1.0, 1.0, 1.0]] {
                let rank = tail.fit(&one(gains)).rank_at(0.1);
                assert!(rank.is_finite() && rank > 0.0, "{tail:?} {gains:?}: {rank}");
            }
        }
    }
}
