//! Multiplicative adapters, one per example of a batch: each scales the base's inputs and outputs.

use super::select::{Chosen, Plan, random, zeros};
use crate::autograd::checkpoint;
use crate::device::{Tag, tagged};
use crate::error::Result;
use crate::module::{LinearMap, Map, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;

/// A base map and adapters by which example e of a batch is multiplied by `W ∘ (1 1ᵀ + s Σ_ρ b_ρ a_ρᵀ)`, where b [rank, in]
/// and a [rank, out] are those of the adapter that [`select`](super::select()) chose for e:
/// `y = x W + s Σ_ρ a_ρ ∘ ((b_ρ ∘ x) W)` (Wen & Chaudhuri, 2312.05677, equation 7, with a one added so that adapters
/// whose a is zero leave the base as it is, and several components do not stay equal).
///
/// Needs no product but the base's own, rank times more of it. For backward nothing is kept but x and the factors: the
/// products are made again.
#[derive(Clone, Debug)]
pub struct Hadamard {
    /// The map that all share; its paths stay what they were.
    pub base: LinearMap,
    /// b, [adapters, rank, in].
    pub hadamard_in: Parameter,
    /// a, [adapters, rank, out].
    pub hadamard_out: Parameter,
    /// s.
    pub scale: f64,
    pub(super) chosen: Chosen,
}

/// Rows that are worth a product of their own: components are stacked up to that many.
const ROWS: usize = 512;

impl Module for Hadamard {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.base.visit(path, see);
        self.hadamard_in.visit(&path.join("hadamard_in"), see);
        self.hadamard_out.visit(&path.join("hadamard_out"), see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.base.visit_mut(path, see);
        self.hadamard_in.visit_mut(&path.join("hadamard_in"), see);
        self.hadamard_out.visit_mut(&path.join("hadamard_out"), see);
    }
}

impl Map for Hadamard {
    fn sizes(&self) -> [usize; 2] {
        self.base.sizes()
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (b, a) = (&self.hadamard_in, &self.hadamard_out);
        self.add(self.base.apply(x, bias), x, b, a, |base, x| base.apply(x, None))
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        let (b, a) = (&self.hadamard_in, &self.hadamard_out);
        self.add(self.base.apply_transposed(x), x, a, b, LinearMap::apply_transposed)
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

impl Hadamard {
    /// Adapters with these factors, b [adapters, rank, in] and a [adapters, rank, out].
    #[track_caller]
    pub fn new(base: LinearMap, b: Tensor, a: Tensor, scale: f64) -> Hadamard {
        let ([inputs, outputs], n, rank) = (base.sizes(), b.shape()[0], b.shape()[1]);
        let fits = b.shape()[..] == [n, rank, inputs] && a.shape()[..] == [n, rank, outputs];
        assert!(fits, "factors {:?} and {:?} for a map [{inputs}, {outputs}]", b.shape(), a.shape());
        let (hadamard_in, hadamard_out) = (Parameter::new(b), Parameter::new(a));
        Hadamard { base, hadamard_in, hadamard_out, scale, chosen: Chosen::default() }
    }

    /// Copies of b [rank, in] and a [rank, out] of one adapter.
    #[track_caller]
    pub fn adapter(&self, i: usize) -> [Tensor; 2] {
        [&self.hadamard_in, &self.hadamard_out].map(|factor| {
            let value = factor.tensor().detach().index(0, i);
            tagged(Tag::Weights, || Tensor::from_array(value.array().to_owned()))
        })
    }

    /// `y + s Σ_ρ out_ρ ∘ product(in_ρ ∘ x)`, as many components together as make [`ROWS`] rows, and each part made again
    /// in backward.
    fn add(
        &self,
        y: Tensor,
        x: &Tensor,
        into: &Parameter,
        out: &Parameter,
        product: fn(&LinearMap, &Tensor) -> Tensor,
    ) -> Tensor {
        let ids = self.chosen.for_batch(x);
        let width = x.shape().last_size();
        let rows = x.reshape([x.shape()[0], 1, x.shape()[1..x.shape().len() - 1].iter().product(), width]);
        let rank = into.tensor().shape()[1];
        let together = (ROWS / (rows.count() / width.max(1)).max(1)).clamp(1, rank);
        let weights: Vec<Tensor> = self.base.parameters().into_iter().map(|(_, p)| p.tensor().clone()).collect();
        let mut ins = vec![&rows, into.tensor(), out.tensor(), ids];
        ins.extend(&weights);
        let mut sum = y;
        for first in (0..rank).step_by(together) {
            let (base, scale, count) = (self.base.hollow(), self.scale, together.min(rank - first));
            let segment = move |ins: &[Tensor]| {
                let mut base = base.clone();
                base.bind(&ins[4..]);
                let factor = |i: usize| ins[i].slice(1, first, count).gather(&ins[3]).unsqueeze(2);
                let z = product(&base, &(&ins[0] * &factor(1)));
                let z = z * &(factor(2) * scale);
                if count == 1 { z } else { z.sum(&[1]) }
            };
            let part = checkpoint(segment, &ins);
            let part = part.reshape(*sum.shape());
            sum = sum.sum_with(part);
        }
        sum
    }
}

/// Gives every layer that is meant a [`Hadamard`] map of `n` adapters of this rank, and freezes all other parameters but
/// adapters. Returns the layers' paths; layers are meant as for [`bank`](super::bank()), and errors are the same.
///
/// b starts uniform in ±√3, with variance 1, and a at zero: a function of the seed, the path and the adapter's number
/// alone. s is `alpha / rank`.
pub fn hadamard(
    model: &mut impl Module,
    names: &[&str],
    n: usize,
    rank: usize,
    alpha: f64,
    seed: Seed,
) -> Result<Vec<String>> {
    let make = |map: &LinearMap, seed: Seed| {
        let [inputs, outputs] = map.sizes();
        let b = random(map, n, [rank, inputs], 3.0_f64.sqrt(), seed);
        LinearMap::new(Hadamard::new(map.clone(), b, zeros(map, [n, rank, outputs]), alpha / rank as f64))
    };
    Plan { names, n, rank, make: &make, seed }.install(model)
}
