//! How much of a matrix its leading singular values have.

/// The part of the square of a matrix that its leading `rank` singular values have, from 0 to 1; all of it of a matrix of
/// zeros. `values` are largest first.
pub fn energy(values: &[f64], rank: usize) -> f64 {
    let square = |values: &[f64]| values.iter().map(|s| s * s).sum::<f64>();
    let all = square(values);
    if all == 0.0 { 1.0 } else { square(&values[..rank.min(values.len())]) / all }
}

/// The smallest rank, at least 1, that keeps this part of the square.
pub fn rank_for(values: &[f64], part: f64) -> usize {
    let most = values.len().max(1);
    // Rounding in a sum of all of them must not ask for more than there are.
    (1..most).find(|rank| energy(values, *rank) >= part).unwrap_or(most)
}

/// Whether factors of this rank have fewer elements than a matrix [in, out].
pub fn saves(rank: usize, [inputs, outputs]: [usize; 2]) -> bool {
    rank * (inputs + outputs) < inputs * outputs
}

/// Singular values of a layer.
#[derive(Clone, Debug)]
pub struct Spectrum {
    /// Its path.
    pub path: String,
    /// `in` and `out`.
    pub sizes: [usize; 2],
    /// In the norm of the method, largest first: min(in, out) of them.
    pub values: Vec<f64>,
}

impl Spectrum {
    /// Divides the values by the root of the sum of their squares, so that every layer counts the same.
    pub fn normalise(&mut self) {
        let root = self.values.iter().map(|s| s * s).sum::<f64>().sqrt();
        if root > 0.0 {
            self.values.iter_mut().for_each(|s| *s /= root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_keep_what_is_asked_for() {
        let values = [3.0, 2.0, 1.0, 0.0];
        assert_eq!([0, 1, 2, 3, 9].map(|rank| energy(&values, rank)), [0.0, 9.0 / 14.0, 13.0 / 14.0, 1.0, 1.0]);
        assert_eq!([0.5, 9.0 / 14.0, 0.9, 0.95, 1.0].map(|part| rank_for(&values, part)), [1, 1, 2, 3, 3]);
        assert_eq!((energy(&[0.0], 0), rank_for(&[0.0, 0.0], 1.0), rank_for(&[], 0.5)), (1.0, 1, 1));
        assert!(saves(3, [6, 9]) && !saves(4, [6, 12]));
        let normal = |values: &[f64]| {
            let mut spectrum = Spectrum { path: "a".into(), sizes: [2, 2], values: values.into() };
            spectrum.normalise();
            spectrum.values
        };
        assert_eq!((normal(&[4.0, 3.0]), normal(&[0.0, 0.0])), (vec![0.8, 0.6], vec![0.0, 0.0]));
    }
}
