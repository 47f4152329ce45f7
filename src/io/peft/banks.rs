//! Several adapters on one model at once, one for each example of a batch.

use super::Adapter;
use super::place::Like;
use super::sites::Kind;
use crate::error::{Error, Result};
use crate::lowrank::{Banked, bank_of};
use crate::nn::Model;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Gives the layers that these adapters are for a [`Bank`](crate::lowrank::Bank) of them all, so that
/// [`select`](crate::lowrank::select()) chooses one for each example, counted in this order. All but adapters is frozen.
/// Returns the layers' paths.
///
/// The adapters must be for the same layers, each layer with one rank; their factors may differ: B is multiplied by what
/// tells it from the first adapter's. Lengths of outputs (DoRA), modules that were trained whole, embeddings, and PiSSA's
/// adapters that were not converted are errors, as is whatever [`Adapter::check`] finds; then nothing is changed.
pub fn bank(model: &mut Model, adapters: &[Adapter]) -> Result<Vec<String>> {
    let like = Like::of(model);
    let mut layers: Vec<BTreeMap<String, Factors>> = Vec::new();
    for adapter in adapters {
        let found = adapter.factors(model, &like)?;
        if let Some(first) = layers.first() {
            same(first, &found).map_err(|problem| adapter.problem(problem))?;
        }
        layers.push(found);
    }
    let Some(first) = layers.first() else {
        return Err(Error::Config("no adapters are given: give one folder or more".into()));
    };
    let stacked = first.keys().map(|path| (path.clone(), stack(&layers, path))).collect();
    bank_of(model, stacked)
}

/// One adapter of one layer: A [in, r], B [r, out] and the factor on A B.
struct Factors {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

impl Adapter {
    fn problem(&self, problem: String) -> Error {
        Error::Data { path: self.folder.clone(), problem }
    }

    fn factors(&self, model: &Model, like: &Like) -> Result<BTreeMap<String, Factors>> {
        let expected = self.sound(model)?;
        let inner = |kind: Kind| matches!(kind, Kind::Inner | Kind::Head);
        let replaced = expected.tables.iter().any(|(key, _)| self.tensors.contains_key(key));
        let refused = [
            (self.config.dora, "lengths of outputs (DoRA)"),
            (self.config.principal, "a part that PiSSA took from the base"),
            (replaced || !self.config.whole.is_empty(), "modules of its own"),
            (expected.targets.iter().any(|target| !inner(target.site.kind)), "an adapter of the embedding"),
        ];
        if let Some((_, what)) = refused.iter().find(|(refused, _)| *refused) {
            return Err(self.problem(format!("has {what}, which cannot be chosen for each example")));
        }
        let mut found = BTreeMap::new();
        for target in &expected.targets {
            let ready = self.ready(target, like)?;
            found.insert(target.site.path.clone(), Factors { a: ready.a, b: ready.b, scale: ready.scale });
        }
        Ok(found)
    }
}

/// Whether two adapters can lie in one bank.
fn same(first: &BTreeMap<String, Factors>, other: &BTreeMap<String, Factors>) -> Result<(), String> {
    if let Some(path) = first.keys().find(|path| !other.contains_key(*path)) {
        return Err(format!("has no adapter of {path}, the first has one"));
    }
    for (path, factors) in other {
        let Some(before) = first.get(path) else {
            return Err(format!("has an adapter of {path}, the first has none"));
        };
        let [rank, wanted] = [factors, before].map(|factors| factors.a.shape()[1]);
        if rank != wanted {
            return Err(format!("has rank {rank} at {path}, the first has {wanted}: shrink the larger one"));
        }
    }
    Ok(())
}

fn stack(layers: &[BTreeMap<String, Factors>], path: &str) -> Banked {
    let scale = layers[0][path].scale;
    let one = |factors: &Factors| {
        let b = if factors.scale == scale { factors.b.clone() } else { &factors.b * (factors.scale / scale) };
        [factors.a.unsqueeze(0), b.unsqueeze(0)]
    };
    let (a, b): (Vec<Tensor>, Vec<Tensor>) = layers.iter().map(|layer| one(&layer[path]).into()).unzip();
    let joined = |parts: Vec<Tensor>| Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0);
    Banked { a: joined(a), b: joined(b), scale }
}
