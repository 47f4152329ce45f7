//! Ranks of factors that take the place of whole matrices, under a budget of parameters.

use super::{Bounds, Curve, Rule, allocate};
use crate::error::{Error, Result};
use crate::lowrank::{Spectrum, saves};

/// The rank of each layer when factors take their place and all together have at most `budget` parameters: rank by rank
/// what keeps most of the squares for its cost of in + out, at least one. None for a layer that stays the matrix that it
/// is, since factors of the rank that it could have would be no smaller; what that saves goes to the others.
///
/// A budget below rank 1 everywhere is an error that says what that takes, as is a singular value that is no number.
pub fn factor_ranks(spectra: &[Spectrum], budget: u64) -> Result<Vec<Option<usize>>> {
    let least: u64 = spectra.iter().map(|spectrum| curve(spectrum).cost()).sum();
    if least > budget {
        let problem = format!("rank 1 everywhere takes {least} parameters, and there are {budget}: name fewer layers");
        return Err(Error::Config(format!("budget: {problem}")));
    }
    let (mut ranks, mut left) = (vec![Some(1); spectra.len()], budget);
    loop {
        let open: Vec<usize> = (0..ranks.len()).filter(|&i| ranks[i].is_some()).collect();
        if open.is_empty() {
            return Ok(ranks);
        }
        let curves: Vec<Curve> = open.iter().map(|&i| curve(&spectra[i])).collect();
        let costs: Vec<u64> = curves.iter().map(Curve::cost).collect();
        let found = allocate(&curves, &costs, left, Bounds::default(), Rule::Greedy)?;
        open.iter().zip(&found.ranks).for_each(|(&i, &rank)| ranks[i] = Some(rank));
        let whole: Vec<usize> =
            open.into_iter().filter(|&i| ranks[i].is_some_and(|rank| !saves(rank, spectra[i].sizes))).collect();
        if whole.is_empty() {
            return Ok(ranks);
        }
        for i in whole {
            ranks[i] = None;
            left -= elements(spectra[i].sizes) as u64;
        }
    }
}

/// Squares of singular values, up to the rank at which factors are no smaller than the matrix: that stands for it.
fn curve(spectrum: &Spectrum) -> Curve {
    let Spectrum { path, sizes, values } = spectrum;
    let most = elements(*sizes).div_ceil(sizes[0] + sizes[1]).min(values.len());
    let squares: Vec<f64> = values.iter().map(|s| s * s).collect();
    let (gains, rest) = squares.split_at(most);
    Curve { path: path.clone(), sizes: *sizes, score: 0.0, gains: gains.into(), rest: rest.iter().sum() }
}

fn elements(sizes: [usize; 2]) -> usize {
    sizes[0] * sizes[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spectrum(sizes: [usize; 2], values: impl Fn(usize) -> f64) -> Spectrum {
        let values = (0..sizes[0].min(sizes[1])).map(values).collect();
        Spectrum { path: format!("{sizes:?}"), sizes, values }
    }

    fn layers() -> Vec<Spectrum> {
        vec![
            spectrum([40, 30], |i| 0.8_f64.powi(i as i32)),
            spectrum([20, 20], |i| 3.0 / (1.0 + i as f64)),
            spectrum([64, 16], |_| 0.5),
            spectrum([1, 9], |_| 2.0),
        ]
    }

    fn parameters(ranks: &[Option<usize>], layers: &[Spectrum]) -> u64 {
        let of = |(rank, layer): (&Option<usize>, &Spectrum)| {
            let [inputs, outputs] = layer.sizes;
            rank.map_or(inputs * outputs, |rank| rank * (inputs + outputs)) as u64
        };
        ranks.iter().zip(layers).map(of).sum()
    }

    #[test]
    fn budgets_are_kept_and_spent_where_it_keeps_most() {
        let layers = layers();
        let all: u64 = layers.iter().map(|layer| elements(layer.sizes) as u64).sum();
        let mut before = 0;
        for budget in (240..all + 200).step_by(60) {
            let ranks = factor_ranks(&layers, budget).unwrap();
            let spent = parameters(&ranks, &layers);
            assert!(spent <= budget, "{ranks:?} take {spent} of {budget}");
            for (rank, layer) in ranks.iter().zip(&layers) {
                assert!(rank.is_none_or(|rank| rank >= 1 && saves(rank, layer.sizes)), "{rank:?} of {}", layer.path);
            }
            // No rank is left that could be paid.
            let next = ranks.iter().zip(&layers).filter(|(rank, _)| rank.is_some());
            let least = next.map(|(_, layer)| (layer.sizes[0] + layer.sizes[1]) as u64).min();
            assert!(least.is_none_or(|least| spent + least > budget), "{ranks:?} leave {} of {budget}", budget - spent);
            assert!(spent >= before, "{ranks:?}");
            before = spent;
        }
        assert_eq!(factor_ranks(&layers, 2 * all).unwrap(), [None; 4]);
    }

    #[test]
    fn what_is_too_little_or_no_number_is_refused() {
        let error = factor_ranks(&layers(), 199).unwrap_err().to_string();
        assert!(error.contains("rank 1 everywhere takes 200 parameters, and there are 199"), "{error}");
        let error = factor_ranks(&[spectrum([4, 4], |_| f64::NAN)], 99).unwrap_err().to_string();
        assert!(error.contains("layer [4, 4]"), "{error}");
    }
}
