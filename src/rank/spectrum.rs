//! Leading singular values of averaged gradients, from their factors x and dy alone: the gradient G of a layer is formed
//! only where as many singular values are wanted as it has.

use super::estimate::Pairs;
use super::losses::{Losses, numbers, share};
use super::taps::{Layer, Taps, Use};
use crate::error::Result;
use crate::lowrank::svd::{Svd, orthonormal, svd};
use crate::module::{Module, normal};
use crate::rng::Seed;
use crate::tensor::Tensor;

/// How many singular values, and how well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sketching {
    /// Singular values wanted of each layer.
    pub rank: usize,
    /// Columns of a sketch beyond those.
    pub oversample: usize,
    /// Further pairs of passes over the batches, for spectra that fall slowly (Halko, Martinsson & Tropp 2011,
    /// algorithm 4.4).
    pub iterations: usize,
    pub seed: Seed,
}

/// The averaged gradient G of a layer, as far as it was looked at.
pub(super) struct Spectrum {
    /// Leading singular values and vectors of G [in, out].
    pub leading: Svd,
    /// ‖G − U s Vᵀ‖²: exact where G was there, else the mean over random directions that did not choose them alone.
    pub rest: f64,
    /// ‖E g‖², without the part that noise of batches adds to ‖G‖²: from products of different batches alone, not below
    /// zero; ‖G‖² where there is one batch. Of sketches an estimate.
    pub debiased: f64,
}

/// What a layer's factors are changed to before they are used: whitened, say.
pub(super) type Change<'a> = &'a dyn Fn(usize, Use) -> Use;

/// Spectra of the gradient averaged over all batches, in the order of the layers: in 2 + 2 `iterations` passes over them,
/// in one where all singular values are wanted of all layers.
pub(super) fn spectra<M: Module + Clone>(
    taps: &Taps<M>,
    losses: &dyn Losses<M>,
    how: Sketching,
    change: Change<'_>,
) -> Result<Vec<Spectrum>> {
    let passes = Passes { taps, losses, change };
    let mut bases: Vec<Option<Tensor>> = Vec::new();
    let first = passes.sums(&mut |i, used| {
        let layer = &taps.layers[i];
        if how.is_whole(layer) {
            return Some(used.x.t().matmul(&used.dy));
        }
        bases.resize(taps.layers.len(), None);
        let sketch = bases[i].get_or_insert_with(|| how.sketch(layer, &used.dy));
        Some(used.x.t().matmul(&used.dy.matmul(sketch)))
    })?;
    // A column of Ω has squares of mean 1.
    let columns = |i: usize| if how.is_whole(&taps.layers[i]) { 1.0 } else { how.width(&taps.layers[i]) as f64 };
    let (pairs, first): (Vec<Pairs>, Vec<Option<Tensor>>) = first.into_iter().map(|sum| (sum.pairs, sum.sum)).unzip();
    let whole = squares(&first)?;
    let found = passes.decomposed(first.clone(), how)?;
    bases.resize(taps.layers.len(), None);
    let left = |(i, leading): (usize, &Svd)| Some(beyond(leading, first[i].as_ref()?, bases[i].as_ref()));
    let rests = squares(&found.iter().enumerate().map(left).collect::<Vec<_>>())?;
    let spectrum = |(i, leading): (usize, Svd)| {
        let debiased = pairs[i].without_noise(whole[i]) / columns(i);
        Spectrum { leading, rest: rests[i] / columns(i), debiased }
    };
    Ok(found.into_iter().enumerate().map(spectrum).collect())
}

/// (G − U s Vᵀ) Ω from G Ω, or without Ω from G itself.
fn beyond(leading: &Svd, of: &Tensor, sketch: Option<&Tensor>) -> Tensor {
    let back = leading.v.t();
    let back = sketch.map_or_else(|| back.clone(), |sketch| back.matmul(sketch));
    of - (&leading.u * &leading.s).matmul(&back)
}

impl Sketching {
    fn width(&self, layer: &Layer) -> usize {
        (self.rank + self.oversample).min(layer.sizes[0].min(layer.sizes[1]))
    }

    /// Whether a sketch would be no smaller than what it is of.
    fn is_whole(&self, layer: &Layer) -> bool {
        self.width(layer) == layer.sizes[0].min(layer.sizes[1])
    }

    /// Ω [out, width].
    fn sketch(&self, layer: &Layer, like: &Tensor) -> Tensor {
        let shape = [layer.sizes[1], self.width(layer)];
        normal(&shape, 1.0, self.seed.named(&layer.path), like.device()).cast(like.dtype())
    }
}

struct Passes<'a, M> {
    taps: &'a Taps<M>,
    losses: &'a dyn Losses<M>,
    change: Change<'a>,
}

impl<M: Module + Clone> Passes<'_, M> {
    /// Weighted sums over all batches of what `product` makes of each layer's factors.
    fn sums(&self, product: &mut dyn FnMut(usize, Use) -> Option<Tensor>) -> Result<Vec<Sum>> {
        let count = self.taps.layers.len();
        let mut sums: Vec<Sum> = (0..count).map(|_| Sum::default()).collect();
        for batch in 0..self.losses.batches() {
            let mut parts: Vec<Option<Tensor>> = vec![None; count];
            let mut see = |i: usize, used: Use| {
                let part = product(i, (self.change)(i, used));
                parts[i] = parts[i].take().into_iter().chain(part).reduce(Tensor::sum_with);
                Ok(())
            };
            self.taps.factors(|model| self.losses.loss(model, batch), &mut see)?;
            let (share, squares) = (share(self.losses, batch), squares(&parts)?);
            for ((sum, part), square) in sums.iter_mut().zip(parts).zip(squares) {
                if let Some(part) = part {
                    sum.add(part, square, share);
                }
            }
        }
        Ok(sums)
    }

    /// Leading singular values and vectors, from G where it is there as a whole, and from Y = G Ω otherwise.
    fn decomposed(&self, first: Vec<Option<Tensor>>, how: Sketching) -> Result<Vec<Svd>> {
        let layers = &self.taps.layers;
        let sketched: Vec<bool> = layers.iter().map(|layer| !how.is_whole(layer)).collect();
        let mut held = first;
        if sketched.contains(&true) {
            for _ in 0..how.iterations {
                self.down(&mut held, &sketched)?;
                self.up(&mut held, &sketched)?;
            }
            let q = self.down(&mut held, &sketched)?;
            let found = held.into_iter().zip(q).zip(layers).map(|((held, q), layer)| how.leading(layer, held, q));
            return found.collect();
        }
        held.into_iter().zip(layers).map(|(held, layer)| how.leading(layer, held, None)).collect()
    }

    /// Z = Gᵀ Q in the place of each Y, for Q an orthonormal basis of it, which is given.
    fn down(&self, held: &mut [Option<Tensor>], sketched: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let q = bases(held, sketched)?;
        let sums = self.sums(&mut |i, used| Some(used.dy.t().matmul(&used.x.matmul(q[i].as_ref()?))))?;
        replace(held, sums);
        Ok(q)
    }

    /// Y = G P in the place of each Z, for P an orthonormal basis of it.
    fn up(&self, held: &mut [Option<Tensor>], sketched: &[bool]) -> Result<()> {
        let p = bases(held, sketched)?;
        let sums = self.sums(&mut |i, used| Some(used.x.t().matmul(&used.dy.matmul(p[i].as_ref()?))))?;
        replace(held, sums);
        Ok(())
    }
}

/// Orthonormal bases of the columns of what is held of sketched layers.
fn bases(held: &[Option<Tensor>], sketched: &[bool]) -> Result<Vec<Option<Tensor>>> {
    let basis = |(held, &sketched): (&Option<Tensor>, &bool)| {
        held.as_ref().filter(|_| sketched).map(|held| orthonormal(held)).transpose()
    };
    held.iter().zip(sketched).map(basis).collect()
}

fn replace(held: &mut [Option<Tensor>], sums: Vec<Sum>) {
    held.iter_mut().zip(sums).filter(|(_, sum)| sum.sum.is_some()).for_each(|(held, sum)| *held = sum.sum);
}

impl Sketching {
    /// From Z = Gᵀ Q, or from G itself without Q. A layer that was never applied has a gradient of zero.
    fn leading(&self, layer: &Layer, held: Option<Tensor>, q: Option<Tensor>) -> Result<Svd> {
        let rank = self.rank.min(layer.sizes[0].min(layer.sizes[1]));
        let Some(held) = held else {
            let zeros = Tensor::zeros(layer.sizes, crate::DType::F32, &crate::Device::cpu());
            return Ok(svd(&zeros)?.truncated(rank));
        };
        let Some(q) = q else { return Ok(svd(&held)?.truncated(rank)) };
        let found = svd(&held)?.truncated(rank); // Z = V s Wᵀ, so G ≈ Q Zᵀ = (Q W) s Vᵀ
        Ok(Svd { u: q.matmul(&found.v), s: found.s, v: found.u })
    }
}

/// A sum over batches, and what tells the noise of batches from their mean.
#[derive(Default)]
struct Sum {
    /// Σ a part, with a the share of a batch in all.
    sum: Option<Tensor>,
    pairs: Pairs,
}

impl Sum {
    /// With ‖part‖².
    fn add(&mut self, part: Tensor, square: f64, share: f64) {
        self.pairs.add(square, share);
        self.sum = self.sum.take().into_iter().chain([part * share]).reduce(Tensor::sum_with);
    }
}

/// ‖x‖² of each, 0 for none.
fn squares(all: &[Option<Tensor>]) -> Result<Vec<f64>> {
    numbers(&all.iter().map(|x| x.as_ref().map(|x| x.dot(x))).collect::<Vec<_>>())
}
