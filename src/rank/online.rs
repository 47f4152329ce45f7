//! Where a model with adapters would grow best: for each layer the rank-one direction that its gradient asks for most, and
//! what a step along it can be expected to win, measured on other batches than those that proposed it (LoRAMBo's online
//! loop, Cawley, with curvature that is positive and a gain that is not its own witness).

use super::estimate::{Pairs, Running};
use super::losses::{Losses, numbers, share};
use super::shift::Direction;
use super::spectrum::{Sketching, spectra};
use super::taps::{Taps, Use};
use crate::error::Result;
use crate::lowrank::svd::orthonormal;
use crate::lowrank::{Lora, each};
use crate::module::Module;
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// A direction that a layer could grow in.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Path of the layer.
    pub path: String,
    /// `in` and `out`.
    pub sizes: [usize; 2],
    /// The new column u of A, of length 1 and orthogonal to those that are there: [in, 1].
    pub column: Tensor,
    /// What a step of B would put beside it: v, of length 1, [1, out].
    pub row: Tensor,
    /// How fast the loss falls along −u v, on the batches that judge.
    pub slope: f64,
    /// The loss's second derivative along u v; where that is not positive by two standard errors, no less than the
    /// Gauss-Newton matrix's.
    pub curvature: f64,
    /// Predicted decrease slope² / 2 curvature, without what the noise of batches adds to the square; 0 where the loss does not
    /// fall.
    pub gain: f64,
}

/// Joint products with random signs, of which each layer's own part of the curvature is the mean.
const PROBES: u64 = 4;

/// The best direction of every layer that has an adapter, in the order of the model. Batches of `propose` give the
/// directions, batches of `judge` say what they win: one Hessian-vector product of four directions, and one gradient of drawn
/// targets for Gauss-Newton, for each of those.
pub fn candidates<M: Module + Clone>(
    model: &M,
    propose: &dyn Losses<M>,
    judge: &dyn Losses<M>,
    seed: Seed,
) -> Result<Vec<Candidate>> {
    let spans = spans(model)?;
    let names: Vec<&str> = spans.keys().map(String::as_str).collect();
    let taps = Taps::new(model, &names)?;
    let how = Sketching { rank: 1, oversample: 7, iterations: 1, seed: seed.named("sketch") };
    // Inputs without what the columns of A see of them: then G has no part that the adapter has.
    let outside = |i: usize, used: Use| match &spans[&taps.layers[i].path] {
        None => used,
        Some(q) => Use { x: &used.x - used.x.matmul(q).matmul(&q.t()), dy: used.dy },
    };
    let found = spectra(&taps, propose, how, &outside)?;
    let pairs: Vec<[Tensor; 2]> = found.into_iter().map(|found| [found.leading.u, found.leading.v.t()]).collect();
    let judged = Judged::new(&taps, judge, &pairs, seed)?;
    let candidate = |(i, [column, row]): (usize, [Tensor; 2])| {
        let (slope, own, positive) = (judged.slopes[i], judged.hessian[i].estimate(), judged.gauss_newton[i]);
        // A curvature that may be zero would make the noise of a step without limit its gain.
        let curvature = if own.mean > 2.0 * own.error { own.mean } else { own.mean.max(positive) };
        let falls = slope > 0.0 && curvature > 0.0;
        let gain = if falls { 0.5 * judged.pairs[i].without_noise(slope * slope) / curvature } else { 0.0 };
        let (path, sizes) = (taps.layers[i].path.clone(), taps.layers[i].sizes);
        Candidate { path, sizes, column, row, slope, curvature, gain }
    };
    Ok(pairs.into_iter().enumerate().map(candidate).collect())
}

/// Orthonormal bases [in, r] of the columns of A, of every adapter; none where it has no rank yet.
fn spans<M: Module + Clone>(model: &M) -> Result<BTreeMap<String, Option<Tensor>>> {
    let mut found = BTreeMap::new();
    each::<Lora>(&mut model.clone(), |path, map| {
        let a = map.a().tensor().detach();
        found.insert(path.to_string(), (map.rank() > 0).then(|| orthonormal(&a)).transpose());
    });
    found.into_iter().map(|(path, span)| Ok((path, span?))).collect()
}

/// What the judging batches say of each pair u, v.
struct Judged {
    slopes: Vec<f64>,
    pairs: Vec<Pairs>,
    hessian: Vec<Running>,
    gauss_newton: Vec<f64>,
}

impl Judged {
    fn new<M: Module + Clone>(
        taps: &Taps<M>,
        judge: &dyn Losses<M>,
        pairs: &[[Tensor; 2]],
        seed: Seed,
    ) -> Result<Judged> {
        let mut judged = Judged {
            slopes: vec![0.0; pairs.len()],
            pairs: vec![Pairs::default(); pairs.len()],
            hessian: vec![Running::default(); pairs.len()],
            gauss_newton: vec![0.0; pairs.len()],
        };
        for batch in 0..judge.batches() {
            let (share, targets) = (share(judge, batch), judge.counted(batch) as f64);
            let seed = seed.named("judge").fold(batch);
            let slopes = along(taps, pairs, |model| judge.loss(model, batch))?;
            let drawn = along(taps, pairs, |model| judge.drawn(model, batch, seed.named("targets")))?;
            let probes: Vec<Vec<Direction>> = (0..PROBES).map(|k| signed(pairs, seed.named("signs").fold(k))).collect();
            let products = taps.curvatures(&probes, |model| judge.loss(model, batch))?;
            for i in 0..pairs.len() {
                judged.slopes[i] += share * slopes[i];
                judged.gauss_newton[i] += share * targets * drawn[i] * drawn[i];
                judged.pairs[i].add(slopes[i] * slopes[i], share);
                let weight = share * judge.batches() as f64;
                products.iter().for_each(|layers| judged.hessian[i].push(weight * layers[i]));
            }
        }
        Ok(judged)
    }
}

/// uᵀ G v of each layer: Σ (x u) (dy v).
fn along<M: Module + Clone>(
    taps: &Taps<M>,
    pairs: &[[Tensor; 2]],
    loss: impl FnOnce(&M) -> Result<Tensor>,
) -> Result<Vec<f64>> {
    let mut sums: Vec<Option<Tensor>> = vec![None; pairs.len()];
    taps.factors(loss, &mut |i, used| {
        let [u, v] = &pairs[i];
        let part = used.x.matmul(u).dot(&used.dy.matmul(&v.t()));
        sums[i] = [sums[i].take(), Some(part)].into_iter().flatten().reduce(|a, b| a + b);
        Ok(())
    })?;
    numbers(&sums)
}

/// u v of each layer, with a random sign.
fn signed(pairs: &[[Tensor; 2]], seed: Seed) -> Vec<Direction> {
    let sign = |i: usize| if seed.block(i as u64)[0] & 1 == 0 { 1.0 } else { -1.0 };
    pairs.iter().enumerate().map(|(i, [u, v])| Direction::Outer(Box::new([u.clone(), v * sign(i)]))).collect()
}
