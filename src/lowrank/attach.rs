//! Putting adapters on a model that are there already.

use super::adapt::{freeze_base, plus};
use super::quantised::kind;
use super::start::{Site, Start};
use super::{Lora, dora, names};
use crate::error::{Error, Result};
use crate::module::{Dense, LinearMap, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// The adapter of one layer, in the layer's type and on its device.
#[derive(Clone, Debug)]
pub struct Ready {
    /// A [in, r].
    pub a: Tensor,
    /// B [r, out].
    pub b: Tensor,
    /// Lengths of the outputs `[out]` (DoRA), if they have their own.
    pub magnitude: Option<Tensor>,
    /// Factor on A B.
    pub scale: f64,
    /// Probability that training drops an element of what the adapter is given.
    pub dropout: f64,
    /// Whether the adapter was trained beside what [`Start::Principal`] leaves of the base: the leading r singular values
    /// are taken from it.
    pub principal: bool,
    /// Of an embedding whose table is the output head as well: whether the head multiplies by the table alone.
    pub rows_only: bool,
}

/// Factors A₀ [in, r] and B₀ [r, out] of which s A₀ B₀ was taken from the base, by the path of the layer.
pub type Initial = BTreeMap<String, [Tensor; 2]>;

/// The factors of adapters that took a part of their bases, to be called right after [`adapt`](super::adapt()): before
/// they train.
pub fn initial(model: &mut dyn Module) -> Initial {
    let mut found = Initial::new();
    names::each::<Lora>(model, |path, map| {
        if map.moved_base {
            found.insert(path.into(), [&map.a, &map.b].map(|factor| factor.tensor().detach()));
        }
    });
    found
}

/// What is taken from a base, and what is left of it.
struct Taken {
    factors: [Tensor; 2],
    rest: Tensor,
}

/// Freezes all of a model but adapters that it has, and puts these beside the layers at their paths. Returns the factors
/// that were taken from bases, if any were.
///
/// Fails, with nothing changed, on a path without a layer, on a layer that has an adapter already, and where lengths or
/// leading singular values need a base of another kind. Panics on factors that do not fit a layer.
#[track_caller]
pub fn attach(model: &mut dyn Module, mut adapters: BTreeMap<String, Ready>) -> Result<Initial> {
    let mut found: BTreeMap<String, Result<Option<Taken>>> = BTreeMap::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if let Some(ready) = adapters.get(&path) {
            found.insert(path.clone(), taken(&path, map, ready));
        }
    });
    if let Some(path) = adapters.keys().find(|path| !found.contains_key(*path)) {
        let there = names::paths(model).join(", ");
        return Err(Error::Config(format!("there is no layer {path:?}; there are {there}")));
    }
    let mut found = found.into_iter().map(|(path, taken)| Ok((path, taken?))).collect::<Result<BTreeMap<_, _>>>()?;
    let mut initial = Initial::new();
    freeze_base(model);
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if let Some(ready) = adapters.remove(&path) {
            let taken = found.remove(&path).flatten();
            let rest = taken.map(|Taken { factors, rest }| {
                initial.insert(path, factors);
                rest
            });
            map.replace(|base| ready.around(base, rest));
        }
    });
    Ok(initial)
}

/// What has to be taken from the base, if anything has to.
fn taken(path: &str, map: &LinearMap, ready: &Ready) -> Result<Option<Taken>> {
    let problem = |text: &str| Err(Error::Config(format!("{path}: {text}")));
    if map.get::<Lora>().is_some() {
        return problem("it has an adapter already: merge and bake that first");
    }
    let dense = map.get::<Dense>();
    if dense.is_none() && ready.principal || ready.magnitude.is_some() && !dora::fits(map) {
        return problem("its base is not a dense matrix, which this adapter needs");
    }
    let Some(base) = dense.filter(|_| ready.principal) else { return Ok(None) };
    let (dtype, device) = kind(map);
    let (sizes, embedding, rank, scale) = (map.sizes(), map.is_embedding(), ready.a.shape()[1], ready.scale);
    if rank > sizes[0].min(sizes[1]) {
        return problem("its rank is above the number of singular values that its base has");
    }
    let site = Site { path, sizes, embedding, dense, rank, scale, dtype, device, seed: Seed(0) };
    let first = Start::Principal { iterations: None }.factors(&site)?;
    Ok(Some(Taken { rest: plus(base, &first.a, &first.b, -scale), factors: [first.a, first.b] }))
}

impl Ready {
    fn around(self, mut base: LinearMap, rest: Option<Tensor>) -> Lora {
        let moved_base = rest.is_some();
        if let (Some(dense), Some(rest)) = (base.get_mut::<Dense>(), rest) {
            dense.weight.set(rest);
        }
        let mut map = Lora::new(base, self.a, self.b, self.scale);
        map.magnitude = self.magnitude.map(Parameter::new);
        (map.dropout, map.moved_base, map.rows_only) = (self.dropout, moved_base, self.rows_only);
        map
    }
}
