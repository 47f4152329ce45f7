//! Traces of the Hessian and of the Gauss-Newton matrix in each layer's weight, all layers at once.

use super::estimate::{Estimate, Running};
use super::losses::{Losses, numbers, share};
use super::taps::Taps;
use crate::autograd::{Factors, Gradient};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// When there are samples enough.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Most samples, rounded up to as many of every batch; each is of one batch, which are taken in turn.
    pub most: u64,
    /// Standard error, as a part of the mean, below which every layer has enough.
    pub tolerance: f64,
    /// What probes and drawn targets are functions of.
    pub seed: Seed,
}

/// Samples below which a standard error says nothing.
const FEWEST: u64 = 8;

/// Estimates for each layer, and how many samples were left out because a number in them was not finite.
#[derive(Clone, Debug)]
pub struct Traces {
    /// In the order of the layers.
    pub layers: Vec<Estimate>,
    /// Samples left out.
    pub left_out: u64,
}

/// Tr H of each layer: Hutchinson's estimate with random signs, all layers moving at once (methods of Pearlmutter 1994 and
/// Hutchinson 1990). Other layers' blocks add to a layer's variance, so errors are empirical.
pub(super) fn hessian<M: Module + Clone>(taps: &Taps<M>, losses: &dyn Losses<M>, sampling: Sampling) -> Result<Traces> {
    gathered(taps.layers.len(), losses, sampling, |batch, seed| {
        let probe = taps.signs(seed.named("probe"));
        Ok(taps.curvatures(&[probe], |model| losses.loss(model, batch))?.remove(0))
    })
}

/// Tr of the Gauss-Newton matrix of each layer, from gradients g of targets that the model itself draws: T E‖g‖² for the
/// mean loss of T targets (Martens 2020, section 9). Never negative.
pub(super) fn gauss_newton<M: Module + Clone>(
    taps: &Taps<M>,
    losses: &dyn Losses<M>,
    sampling: Sampling,
) -> Result<Traces> {
    let count = taps.layers.len();
    gathered(count, losses, sampling, |batch, seed| {
        let mut gradients: Vec<Vec<Factors>> = (0..count).map(|_| Vec::new()).collect();
        let drawn = |model: &M| losses.drawn(model, batch, seed.named("targets"));
        taps.factors(drawn, &mut |i, used| {
            gradients[i].push(Factors::Product { x: used.x, dy: used.dy });
            Ok(())
        })?;
        let square = |(factors, layer): (Vec<Factors>, &super::taps::Layer)| {
            Gradient { shape: layer.sizes.into(), dense: None, factors }.square()
        };
        let squares: Vec<Option<Tensor>> = gradients.into_iter().zip(&taps.layers).map(square).collect();
        let targets = losses.counted(batch) as f64;
        Ok(numbers(&squares)?.into_iter().map(|square| targets * square).collect())
    })
}

/// Samples of all layers until the errors are small enough or there are as many as may be; each weighs as its batch does
/// among all, and none has been sampled more often than another when it ends early.
fn gathered<M>(
    layers: usize,
    losses: &dyn Losses<M>,
    sampling: Sampling,
    mut sample: impl FnMut(u64, Seed) -> Result<Vec<f64>>,
) -> Result<Traces> {
    let batches = losses.batches();
    if batches == 0 {
        return Err(Error::Config("curvature of no batches: take at least one".into()));
    }
    let mut running = vec![Running::default(); layers];
    let mut left_out = 0;
    let enough = |running: &[Running]| {
        running.iter().map(Running::estimate).all(|e| e.error <= sampling.tolerance * e.mean.abs())
    };
    for number in 0..sampling.most.next_multiple_of(batches) {
        let batch = number % batches;
        let found = sample(batch, sampling.seed.fold(number))?;
        if found.iter().all(|x| x.is_finite()) {
            let weight = share(losses, batch) * batches as f64;
            running.iter_mut().zip(found).for_each(|(running, x)| running.push(weight * x));
        } else {
            left_out += 1;
        }
        if batch + 1 == batches && number + 1 - left_out >= FEWEST && enough(&running) {
            break;
        }
    }
    match running.iter().all(|running| running.estimate().samples > 0) {
        true => Ok(Traces { layers: running.iter().map(Running::estimate).collect(), left_out }),
        false => Err(Error::NotFinite(format!("none of {left_out} samples of curvature is a number"))),
    }
}
