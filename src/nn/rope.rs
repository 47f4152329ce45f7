//! Rotary frequencies, and how they are changed for contexts longer than those first trained on.

use crate::error::{Error, Result};
use crate::ops::rotary::rotary_frequencies;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// What becomes of the frequencies θ^(−2i/dim).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// Nothing.
    #[default]
    None,
    /// All are divided by `factor`: positions are interpolated (Chen et al. 2023).
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Slow ones are divided by `factor`, fast ones kept, and those between are blended (Llama 3.1, Grattafiori et al.
    /// 2024).
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Frequencies with fewer turns than this in `context` are slow.
        low: f64,
        /// Frequencies with more turns than this in `context` are fast.
        high: f64,
        /// Positions first trained on.
        context: f64,
    },
}

impl RopeScaling {
    /// For the dim/2 pairs of a head, in radians per position.
    pub fn frequencies(&self, dim: usize, theta: f64) -> Vec<f64> {
        let mut frequencies = rotary_frequencies(dim, theta);
        frequencies.iter_mut().for_each(|f| *f = self.scaled(*f));
        frequencies
    }

    fn scaled(&self, f: f64) -> f64 {
        match *self {
            RopeScaling::None => f,
            RopeScaling::Linear { factor } => f / factor,
            RopeScaling::Llama3 { factor, low, high, context } => {
                let turns = context * f / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * f / factor + kept * f
            }
        }
    }

    /// Whether every frequency is a number.
    pub(super) fn validate(&self) -> Result<()> {
        let numbers: &[(&str, f64)] = match *self {
            RopeScaling::None => &[],
            RopeScaling::Linear { factor } => &[("factor", factor)],
            RopeScaling::Llama3 { factor, low, high, context } => {
                &[("factor", factor), ("low", low), ("high − low", high - low), ("context", context)]
            }
        };
        match numbers.iter().find(|(_, x)| !(*x > 0.0 && *x < f64::INFINITY)) {
            Some((name, x)) => Err(Error::Config(format!("rope_scaling: {name} is {x}, it must be a positive number"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_frequencies_are_divided_and_fast_ones_kept() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, context: 100.0 };
        let of = |turns: f64| scaling.scaled(turns * TAU / 100.0) * 100.0 / TAU;
        for (turns, expected) in [(0.5, 0.0625), (1.0, 0.125), (4.0, 4.0), (9.0, 9.0), (2.5, 0.5 * 2.5 * 1.125)] {
            assert!((of(turns) - expected).abs() < 1e-12, "{turns} turns become {}", of(turns));
        }
    }

    #[test]
    fn what_gives_no_numbers_is_refused() {
        let good = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, context: 64.0 };
        good.validate().unwrap();
        let none = RopeScaling::Llama3 { factor: 8.0, low: 4.0, high: 4.0, context: 64.0 };
        assert!(none.validate().unwrap_err().to_string().contains("high − low is 0"));
        assert!(RopeScaling::Linear { factor: 0.0 }.validate().is_err());
    }
}
