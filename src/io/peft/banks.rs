//! Several adapters on one model at once, one for each example of a batch.

use super::Adapter;
use super::place::Like;
use super::sites::Kind;
use crate::error::{Error, Result};
use crate::lowrank::{Banked, bank_of};
use crate::nn::Model;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// Gives the layers that these adapters are for a [`Bank`](crate::lowrank::Bank) of them all, so that
/// [`select`](crate::lowrank::select()) chooses one for each example, counted in this order; none is the model without
/// any, as PEFT's `__base__`. All but adapters is frozen. Returns the layers' paths.
///
/// Layers, ranks and factors may differ: what an adapter lacks is filled up with zeros, and B is multiplied by what tells
/// its factor from others'. Lengths of outputs (DoRA), modules that were trained whole, embeddings, and PiSSA's adapters
/// that were not converted are errors, as is whatever [`Adapter::check`] finds; then nothing is changed.
pub fn bank(model: &mut Model, adapters: &[Option<&Adapter>]) -> Result<Vec<String>> {
    let like = Like::of(model);
    let factors = |adapter: &Option<&Adapter>| adapter.map_or(Ok(BTreeMap::new()), |one| one.factors(model, &like));
    let slots = adapters.iter().map(factors).collect::<Result<Vec<Slot>>>()?;
    let paths: BTreeSet<&String> = slots.iter().flat_map(BTreeMap::keys).collect();
    if paths.is_empty() {
        return Err(Error::Config("no adapters are given: give one folder or more".into()));
    }
    let stacked = paths.into_iter().map(|path| (path.clone(), stack(&slots, path))).collect();
    bank_of(model, stacked)
}

/// What one choice adds, by the path of the layer.
type Slot = BTreeMap<String, Factors>;

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

    fn factors(&self, model: &Model, like: &Like) -> Result<Slot> {
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

impl Factors {
    fn rank(&self) -> usize {
        self.a.shape()[1]
    }

    /// A and B of this rank, whose product times `scale` is what these add.
    fn widened(&self, rank: usize, scale: f64) -> [Tensor; 2] {
        let (b, more) = (&self.b * (self.scale / scale), rank - self.rank());
        [self.a.pad(1, 0, more), b.pad(0, 0, more)]
    }
}

/// What all of them add to a layer.
fn stack(slots: &[Slot], path: &str) -> Banked {
    let there: Vec<&Factors> = slots.iter().filter_map(|slot| slot.get(path)).collect();
    let (first, rank) = (there[0], there.iter().map(|factors| factors.rank()).max().expect("one has it"));
    let scale = if there.iter().all(|factors| factors.scale == first.scale) { first.scale } else { 1.0 };
    let nothing = || {
        let zeros = |shape: [usize; 2]| Tensor::zeros(shape, first.a.dtype(), first.a.device());
        [zeros([first.a.shape()[0], rank]), zeros([rank, first.b.shape()[1]])]
    };
    let one = |slot: &Slot| slot.get(path).map_or_else(nothing, |factors| factors.widened(rank, scale));
    let (a, b): (Vec<Tensor>, Vec<Tensor>) = slots.iter().map(|slot| one(slot).map(|x| x.unsqueeze(0)).into()).unzip();
    let joined = |parts: Vec<Tensor>| Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0);
    Banked { a: joined(a), b: joined(b), scale }
}
