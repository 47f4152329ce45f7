//! How adapters begin.

use super::Initial;
use super::svd::{Svd, randomized, svd};
use crate::device::{Device, Tag, tagged};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::module::Dense;
use crate::rng::Seed;
use crate::tensor::Tensor;
use rand::RngExt;
use std::collections::BTreeMap;

/// What A and B of an adapter begin as. Where A B is not zero, s A B is taken from the base, so that the map is as it was.
///
/// In the place of an embedding the first three are one: A zero, B normal with deviation 1.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// A uniform within ±1/√in, B zero: the default of LoRA's own code and of PEFT.
    #[default]
    Uniform,
    /// A normal with deviation 1/r, B zero: PEFT's `gaussian`.
    Gaussian,
    /// A zero, B uniform within ±1/√r (Hayou et al., "The impact of initialization on LoRA", 2024, Init\[B\]).
    ZeroA,
    /// The leading r of `W = U diag(σ) Vᵀ`: A and B have σ/s between them (Meng et al., "PiSSA", 2024, equations 2 to 4).
    Principal {
        /// Power iterations of a sketch of W in place of its whole decomposition, as `pissa_niter_k` of PEFT.
        iterations: Option<usize>,
    },
    /// From the gradient G = U diag(σ) Vᵀ of a weight: A of the leading r of U, B of the next r of V, both times
    /// ∜out/√γ with γ = 16 (Wang et al., "LoRA-GA", 2024, with the direction `ArB2r` and the scale `stable` of its code).
    /// Gradients by the path of the weight they are of, such as `h.0.attn.c_attn.weight`, in its shape.
    Gradient(BTreeMap<String, Tensor>),
    /// These A and B: what [`initial`](super::initial) gave of another model of the same weights, or
    /// [`steepest`](super::steepest()) found.
    Given(Initial),
}

/// Power iterations of the sketch of a gradient, and its columns for each of the rank, as in LoRA-GA's code.
pub(super) const ITERATIONS: usize = 4;
const COLUMNS: usize = 4;

/// What an adapter is made for.
pub(super) struct Site<'a> {
    /// Path of the map.
    pub path: &'a str,
    pub sizes: [usize; 2],
    pub embedding: bool,
    pub dense: Option<&'a Dense>,
    pub rank: usize,
    pub scale: f64,
    pub dtype: DType,
    pub device: Device,
    pub seed: Seed,
}

/// A [in, r] and B [r, out] at the beginning.
pub(super) struct Factors {
    pub a: Tensor,
    pub b: Tensor,
    /// Whether s A B has to be taken from the base.
    pub moves_base: bool,
}

impl Start {
    /// Whether s A B is taken from the base, which has to be a dense matrix then.
    pub fn moves_base(&self) -> bool {
        matches!(self, Start::Principal { .. } | Start::Gradient(_) | Start::Given(_))
    }

    pub(super) fn factors(&self, site: &Site<'_>) -> Result<Factors> {
        let [input, output] = site.sizes;
        let (up, down) = ([input, site.rank], [site.rank, output]);
        let (a, b) = (site.seed.named("A"), site.seed.named("B"));
        let beside = |a, b| Ok(Factors { a, b, moves_base: false });
        let taken = |(a, b)| Ok(Factors { a, b, moves_base: true });
        match self {
            Start::Principal { iterations } => taken(principal(site, *iterations)?),
            Start::Gradient(gradients) => taken(by_gradient(site, gradients)?),
            Start::Given(factors) => taken(given(site, factors)?),
            _ if site.embedding => beside(site.zeros(up), site.normal(down, 1.0, b)),
            Start::Uniform => beside(site.uniform(up, 1.0 / (input as f64).sqrt(), a), site.zeros(down)),
            Start::Gaussian => beside(site.normal(up, 1.0 / site.rank as f64, a), site.zeros(down)),
            Start::ZeroA => beside(site.zeros(up), site.uniform(down, 1.0 / (site.rank as f64).sqrt(), b)),
        }
    }
}

impl Site<'_> {
    fn zeros(&self, shape: [usize; 2]) -> Tensor {
        let zeros = vec![0.0_f32; shape[0] * shape[1]];
        tagged(Tag::Weights, || Tensor::new(&zeros, shape, &self.device).cast(self.dtype))
    }

    fn normal(&self, shape: [usize; 2], deviation: f64, seed: Seed) -> Tensor {
        crate::module::normal(&shape, deviation, seed, &self.device).cast(self.dtype)
    }

    pub(super) fn uniform(&self, shape: [usize; 2], bound: f64, seed: Seed) -> Tensor {
        let mut stream = seed.stream();
        let draw = |_| (bound * (2.0 * stream.random::<f64>() - 1.0)) as f32;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(draw).collect();
        tagged(Tag::Weights, || Tensor::new(&values, shape, &self.device).cast(self.dtype))
    }

    /// The base's weight, as it is stored.
    fn weight(&self) -> Result<&Dense> {
        let problem =
            || Error::Config(format!("{}: its base is not a dense matrix, which this start needs", self.path));
        self.dense.ok_or_else(problem)
    }

    /// A matrix stored like the weight, as [in, out].
    fn turned(&self, stored: &Tensor) -> Result<Tensor> {
        Ok(if self.weight()?.transposed { stored.t() } else { stored.clone() })
    }
}

/// A = U √(σ/s), B = √(σ/s) Vᵀ.
fn principal(site: &Site<'_>, iterations: Option<usize>) -> Result<(Tensor, Tensor)> {
    let w = site.turned(&site.weight()?.weight.tensor().detach())?;
    let found = match iterations {
        None => svd(&w)?.truncated(site.rank),
        // As many columns more as `torch.svd_lowrank` would be asked for.
        Some(iterations) => randomized(&w, site.rank, site.rank, iterations, site.seed.named(SKETCH))?,
    };
    let root = (found.s * (1.0 / site.scale)).sqrt();
    Ok((found.u * &root, (found.v * &root).t().contiguous()))
}

/// A = c U[:, ..r], B = c V[:, r..2r]ᵀ with c = ∜out/√16.
fn by_gradient(site: &Site<'_>, gradients: &BTreeMap<String, Tensor>) -> Result<(Tensor, Tensor)> {
    let weight = site.weight()?.weight.tensor().shape();
    let path = format!("{}.weight", site.path);
    let gradient = gradients.get(&path).ok_or_else(|| Error::Config(format!("{path}: no gradient to start from")))?;
    if gradient.shape() != weight {
        let shape = gradient.shape();
        return Err(Error::Config(format!("{path}: a gradient of shape {shape:?} for a weight of {weight:?}")));
    }
    let width = sketch_width(site.path, site.sizes, site.rank)?;
    let gradient = site.turned(&gradient.detach().cast(site.dtype))?;
    let (wanted, seed) = (2 * site.rank, site.seed.named(SKETCH));
    let found = randomized(&gradient, wanted, width - wanted, ITERATIONS, seed)?;
    Ok(by_directions(&found, site.sizes[1]))
}

/// Under which name a layer's sketch is drawn.
pub(super) const SKETCH: &str = "sketch";

/// Columns of the sketch of a layer's gradient, of which A and B take 2 r.
pub(super) fn sketch_width(path: &str, [input, output]: [usize; 2], rank: usize) -> Result<usize> {
    let smaller = input.min(output);
    if 2 * rank > smaller {
        let problem = format!("{path}: rank {rank} takes {} singular vectors of a gradient", 2 * rank);
        return Err(Error::Config(format!("{problem} that has {smaller}: take a rank of at most {}", smaller / 2)));
    }
    Ok((COLUMNS * rank).min(smaller))
}

/// A and B from the leading 2 r singular vectors of a gradient with `output` columns.
pub(super) fn by_directions(found: &Svd, output: usize) -> (Tensor, Tensor) {
    let (rank, c) = (found.s.count() / 2, (output as f64).powf(0.25) / 4.0);
    let a = found.u.slice(1, 0, rank) * c;
    let b = found.v.slice(1, rank, rank).t() * c;
    (a.contiguous(), b.contiguous())
}

/// The factors that are given for this layer, whose base they are to be taken from.
fn given(site: &Site<'_>, factors: &Initial) -> Result<(Tensor, Tensor)> {
    site.weight()?;
    let problem = |text: String| Error::Config(format!("{}: {text}", site.path));
    let [a, b] = factors.get(site.path).ok_or_else(|| problem("no factors to start from".into()))?;
    let ([input, output], rank) = (site.sizes, site.rank);
    match a.shape()[..] == [input, rank] && b.shape()[..] == [rank, output] {
        true => Ok((a.clone(), b.clone())),
        false => Err(problem(format!("factors {:?} and {:?} to start from at rank {rank}", a.shape(), b.shape()))),
    }
}
