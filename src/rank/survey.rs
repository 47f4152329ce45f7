//! How much each layer wins by rank, from a model and a little data.

use super::losses::{Losses, numbers, share};
use super::spectrum::{Sketching, Spectrum, spectra};
use super::taps::{Layer, Taps, Use};
use super::traces::{Sampling, Traces, gauss_newton, hessian};
use super::{Curve, Estimate};
use crate::autograd::apply_onto;
use crate::error::{Error, Result};
use crate::lowrank::whitening;
use crate::module::Module;
use crate::ops::matmul::Matmul;
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::sync::Arc;

/// What a layer's sensitivity is taken from. G is its gradient averaged over the batches, with singular values σ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sensitivity {
    /// Gains σ². Score: the square of the mean gradient per parameter, debiased, that is without what noise of batches adds.
    Gradient,
    /// Gains σ²/2h, a Newton step's along each singular direction, with h = Tr H / (in · out), the mean curvature and the
    /// score. Where h is not clearly positive, that of [`Sensitivity::GaussNewton`].
    Hessian,
    /// The same with the trace of the Gauss-Newton matrix.
    GaussNewton,
    /// Gains σ²/2 of C^(−½) G, with C = E[x xᵀ] of the layer's inputs: a Newton step's if all outputs are as curved. Score:
    /// Tr C / in.
    Data,
    /// Gains σ²/2 of C^(−½) G S^(−½), with S = E[δ δᵀ] of the cotangents of outputs for targets drawn from the model: a
    /// Newton step's with Kronecker-factored curvature (Martens & Grosse 2015). Score: Tr C / in · Tr S / out.
    Kronecker,
}

/// How closely layers are looked at.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Layers: paths, ends of paths, or `all-linear`.
    pub names: Vec<String>,
    /// Ranks that gains are wanted of; no more than a layer's smaller side.
    pub rank: usize,
    /// Columns of sketches beyond those.
    pub oversample: usize,
    /// Further pairs of passes over the batches for singular values, see `lowrank::svd::randomized`.
    pub iterations: usize,
    /// Most samples of curvature.
    pub samples: u64,
    /// Standard error of curvature that is small enough, as a part of it.
    pub tolerance: f64,
    /// Part of their mean that is added to second moments before they are divided by.
    pub damping: f64,
    /// What sketches, probes and drawn targets are functions of.
    pub seed: Seed,
}

/// All linear layers, 32 ranks, at most 64 samples of curvature.
impl Default for Survey {
    fn default() -> Survey {
        Survey {
            names: vec![crate::lowrank::ALL_LINEAR.into()],
            rank: 32,
            oversample: 8,
            iterations: 1,
            samples: 64,
            tolerance: 0.05,
            damping: 1e-2,
            seed: Seed(0),
        }
    }
}

/// What a survey found.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Of each layer, in the order of the model.
    pub curves: Vec<Curve>,
    /// Traces of curvature, where the sensitivity is one.
    pub traces: Option<Vec<Estimate>>,
    /// What there is to say of single layers, in lines for people.
    pub notes: Vec<String>,
}

impl Survey {
    /// Gain curves of all layers. Weights of any kind are looked at, frozen ones and those in fewer bits too; of none a
    /// gradient is formed, unless as many ranks are wanted as it has.
    ///
    /// A name without a layer is an error, as are numbers that are not finite.
    pub fn look<M: Module + Clone>(
        &self,
        model: &M,
        losses: &dyn Losses<M>,
        sensitivity: Sensitivity,
    ) -> Result<Surveyed> {
        let looking = Looking { survey: self, taps: self.taps(model)?, losses };
        match sensitivity {
            Sensitivity::Gradient => looking.by_gradient(),
            Sensitivity::Hessian => looking.by_curvature(true),
            Sensitivity::GaussNewton => looking.by_curvature(false),
            Sensitivity::Data => looking.by_moments(false),
            Sensitivity::Kronecker => looking.by_moments(true),
        }
    }

    /// Paths and traces of the Hessian, or with `positive` of the Gauss-Newton matrix, in each layer's weight.
    pub fn traces<M: Module + Clone>(
        &self,
        model: &M,
        losses: &dyn Losses<M>,
        positive: bool,
    ) -> Result<(Vec<String>, Traces)> {
        let looking = Looking { survey: self, taps: self.taps(model)?, losses };
        let traces = looking.traces(positive)?;
        Ok((looking.taps.layers.into_iter().map(|layer| layer.path).collect(), traces))
    }

    fn taps<M: Module + Clone>(&self, model: &M) -> Result<Taps<M>> {
        Taps::new(model, &self.names.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// A survey under way.
struct Looking<'a, M> {
    survey: &'a Survey,
    taps: Taps<M>,
    losses: &'a dyn Losses<M>,
}

impl<M: Module + Clone> Looking<'_, M> {
    fn spectra(&self, change: &dyn Fn(usize, Use) -> Use) -> Result<Vec<Spectrum>> {
        let Survey { rank, oversample, iterations, seed, .. } = *self.survey;
        let how = Sketching { rank, oversample, iterations, seed: seed.named("sketch") };
        spectra(&self.taps, self.losses, how, change)
    }

    fn traces(&self, positive: bool) -> Result<Traces> {
        let Survey { samples, tolerance, seed, .. } = *self.survey;
        let sampling = Sampling { most: samples, tolerance, seed };
        match positive {
            true => gauss_newton(&self.taps, self.losses, sampling),
            false => hessian(&self.taps, self.losses, sampling),
        }
    }

    fn by_gradient(&self) -> Result<Surveyed> {
        let found = self.spectra(&|_, used| used)?;
        let score = |i: usize, spectrum: &Spectrum| spectrum.debiased / elements(&self.taps.layers[i]);
        self.surveyed(found, score, |_| 1.0, None)
    }

    fn by_curvature(&self, hessian: bool) -> Result<Surveyed> {
        let found = self.spectra(&|_, used| used)?;
        let traces = self.traces(!hessian)?;
        let mut notes = Vec::new();
        if traces.left_out > 0 {
            notes.push(format!("{} samples of curvature were not finite and were left out", traces.left_out));
        }
        let mut means: Vec<f64> = traces.layers.iter().map(|trace| trace.mean).collect();
        let doubtful: Vec<usize> =
            (0..means.len()).filter(|&i| traces.layers[i].mean <= traces.layers[i].interval()).collect();
        if hessian && !doubtful.is_empty() {
            let instead = self.traces(true)?;
            for &i in &doubtful {
                means[i] = instead.layers[i].mean;
                let (path, mean) = (&self.taps.layers[i].path, traces.layers[i].mean);
                notes.push(format!("{path}: a trace of {mean:.3e} is not clearly positive, Gauss-Newton's stands in"));
            }
        }
        let curvature: Vec<f64> =
            self.taps.layers.iter().zip(&means).map(|(layer, mean)| mean / elements(layer)).collect();
        let score = |i: usize, _: &Spectrum| curvature[i].max(0.0);
        let factor = |i: usize| if curvature[i] > 0.0 { 0.5 / curvature[i] } else { 0.0 };
        let mut surveyed = self.surveyed(found, score, factor, Some(traces.layers))?;
        surveyed.notes.splice(0..0, notes);
        Ok(surveyed)
    }

    fn by_moments(&self, outputs_too: bool) -> Result<Surveyed> {
        let inputs = self.whitenings(self.moments(false)?)?;
        let outputs = match outputs_too {
            true => self.whitenings(self.moments(true)?)?,
            false => inputs.iter().map(|_| White { mean: 1.0, by: None }).collect(),
        };
        let times = |x: Tensor, white: &White| white.by.as_ref().map_or(x.clone(), |by| x.matmul(by));
        let found = self.spectra(&|i, used| Use { x: times(used.x, &inputs[i]), dy: times(used.dy, &outputs[i]) })?;
        self.surveyed(found, |i, _| inputs[i].mean * outputs[i].mean, |_| 0.5, None)
    }

    /// What whitens, for each layer.
    fn whitenings(&self, moments: Vec<Option<Tensor>>) -> Result<Vec<White>> {
        let means = numbers(&moments.iter().map(|c| c.as_ref().map(mean_of_diagonal)).collect::<Vec<_>>())?;
        let white = |((layer, c), mean): ((&Layer, Option<Tensor>), f64)| {
            let named = |error: Error| Error::Config(format!("layer {}: {error}", layer.path));
            let c = c.filter(|c| mean != 0.0 || !c.device().computes());
            let by = c.map(|c| whitening(&c, self.survey.damping)).transpose().map_err(named)?;
            Ok(White { mean, by })
        };
        self.taps.layers.iter().zip(moments).zip(means).map(white).collect()
    }

    /// E[x xᵀ] of those of each layer's inputs that something is learnt from, or E[δ δᵀ] of what drawn targets give back to
    /// its outputs, for each target.
    fn moments(&self, of_outputs: bool) -> Result<Vec<Option<Tensor>>> {
        let mut sums: Vec<Option<Tensor>> = vec![None; self.taps.layers.len()];
        for batch in 0..self.losses.batches() {
            let (share, targets) = (share(self.losses, batch), self.losses.counted(batch) as f64);
            let run = |model: &M| match of_outputs {
                true => self.losses.drawn(model, batch, self.survey.seed.named("moments").fold(batch)),
                false => self.losses.loss(model, batch),
            };
            self.taps.factors(run, &mut |i, used| {
                let (rows, scaled) = match of_outputs {
                    true => (used.dy.clone(), used.dy * (share * targets)),
                    false => (used.x.clone(), used.x * (learnt_from(&used.dy) * share)),
                };
                sums[i] = Some(match sums[i].take() {
                    Some(sum) => apply_onto(Arc::new(Matmul), &[&rows.t(), &scaled], sum),
                    None => rows.t().matmul(&scaled),
                });
                Ok(())
            })?;
        }
        Ok(sums)
    }

    fn surveyed(
        &self,
        found: Vec<Spectrum>,
        score: impl Fn(usize, &Spectrum) -> f64,
        factor: impl Fn(usize) -> f64,
        traces: Option<Vec<Estimate>>,
    ) -> Result<Surveyed> {
        let mut surveyed = Surveyed { curves: Vec::new(), traces, notes: Vec::new() };
        for (i, (layer, spectrum)) in self.taps.layers.iter().zip(found).enumerate() {
            let values = spectrum.leading.s.cast(crate::DType::F64).to_vec::<f64>()?;
            let factor = factor(i);
            let curve = Curve {
                path: layer.path.clone(),
                sizes: layer.sizes,
                score: score(i, &spectrum),
                gains: values.iter().map(|s| factor * s * s).collect(),
                rest: factor * spectrum.rest,
            };
            curve.check()?;
            if values.iter().all(|s| *s == 0.0) {
                surveyed.notes.push(format!("{}: its gradient is zero, so no rank wins anything there", layer.path));
            }
            surveyed.curves.push(curve);
        }
        Ok(surveyed)
    }
}

/// Weights of rows [rows, 1], equal and 1 together, and 0 of those that nothing is learnt from, such as what fills up.
fn learnt_from(dy: &Tensor) -> Tensor {
    let squares = (dy * dy).sum_keep(&[-1]);
    let counts = squares.greater(&squares.zeros_like()).cast(dy.dtype());
    let all = counts.sum_all() + f32::MIN_POSITIVE as f64;
    counts / all
}

fn elements(layer: &Layer) -> f64 {
    (layer.sizes[0] * layer.sizes[1]) as f64
}

/// What is known of second moments C.
struct White {
    /// Tr C / n.
    mean: f64,
    /// What whitens; nothing where all of C is zero, so that nothing comes of it.
    by: Option<Tensor>,
}

fn mean_of_diagonal(c: &Tensor) -> Tensor {
    let n = c.shape()[0];
    let places: Vec<u32> = (0..n).map(|i| (i * (n + 1)) as u32).collect();
    c.reshape([n * n, 1]).gather(&Tensor::new(&places, [n], c.device())).mean_all()
}
