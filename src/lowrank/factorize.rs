//! Trained layers replaced by their factors: the nearest ones of a rank, in the weights' norm or in that of the outputs.

use super::moments::Moments;
use super::svd::{Svd, put, randomized, read, svd};
use super::whiten::damped_root;
use super::{Factored, Spectrum, dense, names};
use crate::device::{Device, Tag, tagged};
use crate::error::{Error, Result};
use crate::module::{Dense, LinearMap, Module, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// How factors are found. The default: by the whole singular value decomposition, nearest in the Frobenius norm.
#[derive(Clone, Copy, Default)]
pub struct Method<'a> {
    /// By a sketch instead, for ranks far below the layers' sizes.
    pub sketch: Option<Sketch>,
    /// Nearest where the layers' inputs lie instead.
    pub inputs: Option<Weighting<'a>>,
}

/// See [`randomized`].
#[derive(Clone, Copy, Debug)]
pub struct Sketch {
    /// Columns beyond the rank; 5 to 10 is usual.
    pub oversample: usize,
    /// Products with A Aᵀ; one or two where singular values decay slowly.
    pub iterations: usize,
    /// What the sketch of each layer is drawn from, with its path.
    pub seed: Seed,
}

/// Factors that minimise E‖xW − xLR‖² over a layer's inputs x, which have second moments C: those of the singular value
/// decomposition of SᵀW for C = S Sᵀ (Cholesky), mapped back by S⁻ᵀ (Eckart & Young in the norm of C).
#[derive(Clone, Copy)]
pub struct Weighting<'a> {
    /// C of each layer, see [`moments`](super::moments()).
    pub moments: &'a Moments,
    /// C + damping · (tr C / in) · 1 takes the place of C, so that directions that no input has are kept near W as well
    /// and C need not be regular: 1e-4 is a fair choice for moments in single precision. At 0 the minimum is exact.
    pub damping: f64,
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaced {
    /// Its path.
    pub path: String,
    /// Its rank now.
    pub rank: usize,
    /// ‖W − LR‖ / ‖W‖ in the norm of the method; NaN on the null device.
    pub error: f64,
    /// Parameters before and after.
    pub parameters: [usize; 2],
}

/// Replaces dense layers, named by their paths, by [`Factored`] ones of the given ranks. Singular values are shared out
/// evenly, their roots to both factors. The factors train if the weight did; they are parameters of their own, so that an
/// optimizer's old state is not theirs.
///
/// Errors name the layer: a rank of 0 or above its smaller side, a name that is not there (with those that are), a
/// layer that is not dense, no second moments of its inputs or singular ones without damping, numbers that are not
/// finite. Then nothing is changed.
pub fn factorize(
    model: &mut impl Module,
    ranks: &BTreeMap<String, usize>,
    method: &Method<'_>,
) -> Result<Vec<Replaced>> {
    known(model, ranks.keys())?;
    let mut factors: BTreeMap<String, Result<(Factors, bool)>> = BTreeMap::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if let Some(&rank) = ranks.get(&path)
            && factors.values().all(Result::is_ok)
        {
            let found = layer(&path, map, rank, method).map_err(|error| named(&path, error));
            factors.insert(path, found);
        }
    });
    let mut factors =
        factors.into_iter().map(|(path, found)| Ok((path, found?))).collect::<Result<BTreeMap<_, _>>>()?;
    let mut replaced = Vec::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if let Some((found, trains)) = factors.remove(&path) {
            replaced.push(found.replace(path, map, trains));
        }
    });
    Ok(replaced)
}

/// Singular values of dense layers, named by their paths, in the order of the model: those that [`factorize`] leaves out
/// decide how far it is off. With `inputs`, in that norm. One layer's decomposition is held at a time. The null device has
/// no numbers: an error.
///
/// Fails where [`factorize`] does.
pub fn spectra(model: &mut impl Module, paths: &[String], inputs: Option<Weighting<'_>>) -> Result<Vec<Spectrum>> {
    known(model, paths.iter())?;
    let method = Method { sketch: None, inputs };
    let (mut found, mut done) = (Vec::new(), Ok(()));
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if paths.contains(&path) && done.is_ok() {
            let spectrum = method.spectrum(&path, map).map_err(|error| named(&path, error));
            done = spectrum.map(|spectrum| found.push(spectrum));
        }
    });
    done.map(|()| found)
}

/// Fails unless each of these is the path of a layer.
fn known<'a>(model: &mut impl Module, mut paths: impl Iterator<Item = &'a String>) -> Result<()> {
    let all = names::paths(model);
    match paths.find(|path| !all.contains(path)) {
        Some(unknown) => Err(Error::Config(format!("there is no layer {unknown:?}; there are {}", all.join(", ")))),
        None => Ok(()),
    }
}

/// The error with the layer's name before it.
fn named(path: &str, error: Error) -> Error {
    match error {
        Error::Config(problem) => Error::Config(format!("layer {path}: {problem}")),
        Error::NotFinite(problem) => Error::NotFinite(format!("layer {path}: {problem}")),
        other => other,
    }
}

/// L [in, rank], R [rank, out], and how far their product is off.
struct Factors {
    left: Tensor,
    right: Tensor,
    error: f64,
}

impl Factors {
    fn replace(self, path: String, map: &mut LinearMap, trains: bool) -> Replaced {
        let [inputs, outputs] = map.sizes();
        let rank = self.left.shape()[1];
        map.replace(|_| Factored::new(self.left, self.right).training(trains));
        Replaced { path, rank, error: self.error, parameters: [inputs * outputs, rank * (inputs + outputs)] }
    }
}

/// W [in, out] of a dense layer, and whether it trains.
fn matrix(map: &LinearMap) -> Result<(Tensor, bool)> {
    let Some(Dense { weight, transposed }) = map.get::<Dense>() else {
        return Err(Error::Config("only a dense layer can be factorised, and it is none".into()));
    };
    let stored = weight.tensor().detach();
    Ok((if *transposed { stored.t() } else { stored }, weight.trains()))
}

/// Factors of a layer, and whether its weight trains.
fn layer(path: &str, map: &LinearMap, rank: usize, method: &Method<'_>) -> Result<(Factors, bool)> {
    let ([inputs, outputs], (w, trains)) = (map.sizes(), matrix(map)?);
    let least = inputs.min(outputs);
    if rank == 0 || rank > least {
        return Err(Error::Config(format!("rank {rank} of a layer [{inputs}, {outputs}]: from 1 to {least}")));
    }
    let factors = tagged(Tag::Weights, || match w.device().computes() {
        true => method.factors(path, &w, rank),
        false => {
            Ok(Factors { left: put(None, [inputs, rank], &w), right: put(None, [rank, outputs], &w), error: f64::NAN })
        }
    })?;
    Ok((factors, trains))
}

impl Method<'_> {
    fn spectrum(&self, path: &str, map: &LinearMap) -> Result<Spectrum> {
        let (w, _) = matrix(map)?;
        let measured = match &self.inputs {
            None => w,
            Some(weighting) => weighted(&w, &weighting.root(path, w.shape()[0])?)?,
        };
        let values = read(&svd(&measured)?.s)?;
        let values = values.ok_or_else(|| Error::Device("the null device has no singular values".into()))?;
        Ok(Spectrum { path: path.into(), sizes: map.sizes(), values })
    }

    fn factors(&self, path: &str, w: &Tensor, rank: usize) -> Result<Factors> {
        let Some(weighting) = self.inputs else {
            let (found, error) = self.leading(path, w, rank)?;
            let (left, right) = shared(&found);
            return Ok(Factors { left, right, error });
        };
        let [inputs, outputs] = [w.shape()[0], w.shape()[1]];
        let root = weighting.root(path, inputs)?;
        let (found, error) = self.leading(path, &weighted(w, &root)?, rank)?;
        let (left, right) = shared(&found);
        let left = dense::solve_transposed([inputs, rank], &root, &left.to_vec::<f64>()?);
        Ok(Factors { left: put(Some(left), [inputs, rank], w), right: put(read(&right)?, [rank, outputs], w), error })
    }

    /// Leading singular values and vectors, and the root of the rest's share of all squares.
    fn leading(&self, path: &str, a: &Tensor, rank: usize) -> Result<(Svd, f64)> {
        let squares = |x: &Tensor| -> Result<f64> { Ok(read(x)?.into_iter().flatten().map(|x| x * x).sum()) };
        let (found, rest, all) = match self.sketch {
            None => {
                let found = svd(a)?;
                let rest = squares(&found.s.slice(0, rank, found.s.count() - rank))?;
                let all = squares(&found.s)?;
                (found.truncated(rank), rest, all)
            }
            Some(Sketch { oversample, iterations, seed }) => {
                let found = randomized(a, rank, oversample, iterations, seed.named(path))?;
                let all = squares(a)?;
                let rest = all - squares(&found.s)?;
                (found, rest, all)
            }
        };
        Ok((found, if all > 0.0 { (rest.max(0.0) / all).sqrt() } else { 0.0 }))
    }
}

/// SᵀW on the host in double precision, for S [in, in].
fn weighted(w: &Tensor, root: &[f64]) -> Result<Tensor> {
    let (host, inputs) = (Device::cpu(), w.shape()[0]);
    let values = read(w)?.ok_or_else(|| Error::Device("the null device has no numbers to weigh".into()))?;
    Ok(Tensor::new(root, [inputs, inputs], &host).t().matmul(&Tensor::new(&values, *w.shape(), &host)))
}

/// U √s and √s Vᵀ, in storages of their own.
fn shared(found: &Svd) -> (Tensor, Tensor) {
    let root = found.s.sqrt();
    (&found.u * &root, (&found.v * &root).t().contiguous())
}

impl Weighting<'_> {
    /// S [in, in], lower triangular, with S Sᵀ = C + damping.
    fn root(&self, path: &str, inputs: usize) -> Result<Vec<f64>> {
        let unseen = || Error::Config("there are no second moments of its inputs: see lowrank::moments".into());
        let moments = self.moments.get(path).ok_or_else(unseen)?;
        let c = read(&moments)?.ok_or_else(unseen)?;
        if c.len() != inputs * inputs {
            return Err(Error::Config(format!("second moments {:?} for {inputs} inputs", moments.shape())));
        }
        damped_root(inputs, c, self.damping)
    }
}
