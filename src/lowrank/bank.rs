//! One low-rank adapter per example of a batch: many adapters trained or applied together over one base.

use super::select::{Chosen, Plan, freeze_base, of, random, zeros};
use crate::device::{Tag, tagged};
use crate::error::{Error, Result};
use crate::module::{LinearMap, Map, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// A base map and a bank of adapters for it (Hu et al., 2106.09685): example e of a batch is multiplied by
/// `W + (alpha / rank) A[id_e] B[id_e]`, with the ids that [`select`](super::select()) chose. Products with the factors read them where
/// they lie and are added to the base's; gradients are those of each adapter.
#[derive(Clone, Debug)]
pub struct Bank {
    /// The map that all share; its paths stay what they were.
    pub base: LinearMap,
    /// A, [adapters, in, rank], at `lora_A`.
    pub lora_a: Parameter,
    /// B, [adapters, rank, out], at `lora_B`.
    pub lora_b: Parameter,
    /// alpha / rank.
    pub scale: f64,
    pub(super) chosen: Chosen,
}

impl Module for Bank {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.base.visit(path, see);
        self.lora_a.visit(&path.join("lora_A"), see);
        self.lora_b.visit(&path.join("lora_B"), see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.base.visit_mut(path, see);
        self.lora_a.visit_mut(&path.join("lora_A"), see);
        self.lora_b.visit_mut(&path.join("lora_B"), see);
    }
}

impl Map for Bank {
    fn sizes(&self) -> [usize; 2] {
        self.base.sizes()
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (a, b) = (self.lora_a.tensor(), self.lora_b.tensor());
        self.base.apply(x, bias).add_adapters(x, a, b, self.chosen.for_batch(x), self.scale)
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        let [a, b] = [&self.lora_a, &self.lora_b].map(|factor| factor.tensor().t());
        self.base.apply_transposed(x).add_adapters(x, &b, &a, self.chosen.for_batch(x), self.scale)
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

impl Bank {
    /// Adapters with these factors, A [adapters, in, rank] and B [adapters, rank, out].
    #[track_caller]
    pub fn new(base: LinearMap, a: Tensor, b: Tensor, scale: f64) -> Bank {
        let [inputs, outputs] = base.sizes();
        let (n, rank) = (a.shape()[0], a.shape().last_size());
        let fits = a.shape()[..] == [n, inputs, rank] && b.shape()[..] == [n, rank, outputs];
        assert!(fits, "factors {:?} and {:?} for a map [{inputs}, {outputs}]", a.shape(), b.shape());
        Bank { base, lora_a: Parameter::new(a), lora_b: Parameter::new(b), scale, chosen: Chosen::default() }
    }

    /// Number of adapters.
    pub fn adapters(&self) -> usize {
        self.lora_a.tensor().shape()[0]
    }

    /// Copies of A [in, rank] and B [rank, out] of one adapter.
    #[track_caller]
    pub fn adapter(&self, i: usize) -> [Tensor; 2] {
        [&self.lora_a, &self.lora_b].map(|factor| {
            let value = factor.tensor().detach().index(0, i);
            tagged(Tag::Weights, || Tensor::from_array(value.array().to_owned()))
        })
    }
}

/// Gives every layer that is meant a [`Bank`] of `n` adapters of this rank, and freezes all other parameters but adapters.
/// Returns the layers' paths.
///
/// A layer is meant by its path, by the end of it (`c_attn`), or by [`ALL_LINEAR`](super::ALL_LINEAR). Each adapter
/// starts as LoRA does, A uniform in ±1/√in and B zero: a function of the seed, the path and its own number alone. The
/// factor on A B is `alpha / rank`. A name without a layer, a rank of 0 or above a layer's smaller side, a layer that has
/// such adapters already: errors, and nothing is changed.
pub fn bank(
    model: &mut impl Module,
    names: &[&str],
    n: usize,
    rank: usize,
    alpha: f64,
    seed: Seed,
) -> Result<Vec<String>> {
    let make = |map: &LinearMap, seed: Seed| {
        let [inputs, outputs] = map.sizes();
        let a = random(map, n, [inputs, rank], 1.0 / (inputs as f64).sqrt(), seed);
        LinearMap::new(Bank::new(map.clone(), a, zeros(map, [n, rank, outputs]), alpha / rank as f64))
    };
    Plan { names, n, rank, make: &make, seed }.install(model)
}

/// Adapters of one layer that are there already.
#[derive(Clone, Debug)]
pub struct Banked {
    /// A, [adapters, in, rank].
    pub a: Tensor,
    /// B, [adapters, rank, out].
    pub b: Tensor,
    /// Factor on A B.
    pub scale: f64,
}

/// Gives layers, by path, a [`Bank`] of adapters that are there already, in the type and on the device of the layers, and
/// freezes all other parameters but adapters. Returns the layers' paths, in the order of the model.
///
/// A path without a layer, an embedding, a layer that has such adapters already: errors, and nothing is changed. Panics on
/// factors that do not fit a layer.
#[track_caller]
pub fn bank_of(model: &mut impl Module, mut banks: BTreeMap<String, Banked>) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut problem = None;
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if banks.contains_key(&path) {
            let taken = of(map).is_some().then(|| format!("layer {path} has adapters to select from already"));
            let embedding = || map.is_embedding().then(|| format!("{path} is read by rows, not by one adapter each"));
            problem = problem.take().or(taken).or_else(embedding);
            paths.push(path);
        }
    });
    if let Some(path) = banks.keys().find(|path| !paths.contains(path)) {
        problem = Some(format!("there is no layer {path:?} for adapters to select from"));
    }
    if let Some(problem) = problem {
        return Err(Error::Config(problem));
    }
    freeze_base(model);
    model.visit_maps(&Path::root(), &mut |path, map| {
        if let Some(Banked { a, b, scale }) = banks.remove(&path.to_string()) {
            map.replace(|base| Bank::new(base, a, b, scale));
        }
    });
    Ok(paths)
}
