//! What a layer gains by rank.

use crate::error::{Error, Result};

/// What updates of a layer win, by their rank: r ranks win the sum of the first r gains.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Path of the layer.
    pub path: String,
    /// `in` and `out`.
    pub sizes: [usize; 2],
    /// Sensitivity of the whole layer, per parameter: s of the published formula. Not negative.
    pub score: f64,
    /// What each further rank wins, largest first: squares of singular values, say, times a factor of the layer's own.
    pub gains: Vec<f64>,
    /// What all ranks beyond those win together, if that is known; 0 otherwise.
    pub rest: f64,
}

impl Curve {
    /// Of a matrix that is known: by Eckart & Young what rank r cannot follow of it has the square of the rest of its singular
    /// values, largest first.
    pub fn of_singular_values(path: &str, sizes: [usize; 2], values: &[f64]) -> Curve {
        let gains: Vec<f64> = values.iter().map(|s| s * s).collect();
        let score = gains.iter().sum::<f64>() / (sizes[0] * sizes[1]) as f64;
        Curve { path: path.into(), sizes, score, gains, rest: 0.0 }
    }

    /// Parameters of an adapter or a factorisation, for each rank: in + out.
    pub fn cost(&self) -> u64 {
        (self.sizes[0] + self.sizes[1]) as u64
    }

    /// The highest rank that a matrix of these sizes can have.
    pub fn full_rank(&self) -> usize {
        self.sizes[0].min(self.sizes[1])
    }

    /// What ranks beyond `rank` would win.
    pub fn left(&self, rank: usize) -> f64 {
        self.gains[rank.min(self.gains.len())..].iter().sum::<f64>() + self.rest
    }

    /// Fails on a number that is not finite or is negative, and on gains that grow; names the layer.
    pub fn check(&self) -> Result<()> {
        let Curve { path, score, gains, rest, .. } = self;
        if let Some(wrong) = gains.iter().chain([score, rest]).find(|x| !x.is_finite() || **x < 0.0) {
            return Err(Error::NotFinite(format!(
                "layer {path}: a gain or sensitivity of {wrong}: take other batches"
            )));
        }
        match gains.is_sorted_by(|a, b| a >= b) {
            true => Ok(()),
            false => Err(Error::Config(format!("layer {path}: its gains by rank must not grow"))),
        }
    }
}
