//! Putting adapters on a model.

use super::names::{ALL_LINEAR, Place, check, places};
use super::quantised::kind;
use super::start::{Factors, Site, Start};
use super::{Lora, dora};
use crate::autograd::apply_onto;
use crate::device::{Tag, tagged};
use crate::error::{Error, Result};
use crate::module::{Dense, LinearMap, Module, Parameter, Path};
use crate::ops::linear::Linear;
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which layers get which adapters. Names mean the layer of that path, or those whose path ends with it behind a dot.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    /// Rank r, at least 1 and at most a layer's smaller side.
    pub rank: usize,
    /// Factor on A B before it is divided by the rank.
    pub alpha: f64,
    /// Divide by √r rather than r (Kalajdzievski, "A rank stabilization scaling factor", 2023), so that adapters of
    /// different ranks learn at about the same pace.
    pub rank_stabilised: bool,
    /// Layers to adapt; [`ALL_LINEAR`] means all but embeddings and the head.
    pub targets: Vec<String>,
    /// Layers not to adapt all the same.
    pub exclude: Vec<String>,
    /// Other ranks for some layers; the first name that means a layer counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other alphas for some layers; the first name that means a layer counts.
    pub alpha_pattern: Vec<(String, f64)>,
    /// How adapters begin.
    pub start: Start,
    /// Lengths of outputs of their own (DoRA).
    pub dora: bool,
    /// A stays as it began (Zhang et al., "LoRA-FA", 2023, with the gradient of B as it comes): no layer keeps its input.
    pub freeze_a: bool,
    /// Probability that training drops an element of what an adapter is given, in passes run by
    /// [`with_dropout`](super::with_dropout); what the base is given stays whole. Rows read from embeddings are not
    /// dropped.
    pub dropout: f64,
}

/// Rank 8 and alpha 8 on all linear layers, as PEFT has it.
impl Default for AdapterConfig {
    fn default() -> AdapterConfig {
        AdapterConfig {
            rank: 8,
            alpha: 8.0,
            rank_stabilised: false,
            targets: vec![ALL_LINEAR.into()],
            exclude: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            start: Start::default(),
            dora: false,
            freeze_a: false,
            dropout: 0.0,
        }
    }
}

impl AdapterConfig {
    /// The same for these layers alone, by path, with these ranks; layers of rank 0 get no adapter.
    pub fn with_ranks<'a>(self, ranks: impl IntoIterator<Item = (&'a str, usize)>) -> AdapterConfig {
        let some = ranks.into_iter().filter(|(_, rank)| *rank > 0);
        let rank_pattern: Vec<(String, usize)> = some.map(|(path, rank)| (path.into(), rank)).collect();
        let targets = rank_pattern.iter().map(|(path, _)| path.clone()).collect();
        AdapterConfig { targets, exclude: Vec::new(), rank_pattern, ..self }
    }

    /// Rank and alpha of a layer.
    fn sizes(&self, place: &Place) -> (usize, f64) {
        let rank = self.rank_pattern.iter().find(|(name, _)| place.is_meant(name));
        let alpha = self.alpha_pattern.iter().find(|(name, _)| place.is_meant(name));
        (rank.map_or(self.rank, |(_, rank)| *rank), alpha.map_or(self.alpha, |(_, alpha)| *alpha))
    }

    /// Factor on A B.
    fn scale(&self, rank: usize, alpha: f64) -> f64 {
        alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 }
    }

    /// The layers to adapt.
    fn chosen(&self, model: &mut dyn Module) -> Result<Vec<Place>> {
        let all = places(model);
        check(self.targets.iter().chain(&self.exclude).map(|name| &**name), &all)?;
        let meant = |names: &[String], place: &Place| names.iter().any(|name| place.is_meant(name));
        let chosen = |place: &Place| meant(&self.targets, place) && !meant(&self.exclude, place);
        let chosen: Vec<Place> = all.into_iter().filter(chosen).collect();
        let patterns = self.rank_pattern.iter().map(|(name, _)| name);
        check(patterns.chain(self.alpha_pattern.iter().map(|(name, _)| name)).map(|name| &**name), &chosen)?;
        match chosen.is_empty() {
            true => Err(Error::Config("no layer is left to adapt: name some as targets".into())),
            false => Ok(chosen),
        }
    }

    /// Paths and ranks of the layers to adapt.
    pub(super) fn places(&self, model: &mut dyn Module) -> Result<Vec<(String, usize)>> {
        let chosen = self.chosen(model)?;
        Ok(chosen.into_iter().map(|place| (place.path.clone(), self.sizes(&place).0)).collect())
    }

    /// What puts the same adapters on, layer by layer: of each that is meant, by path, a configuration of it alone.
    pub fn one_by_one(&self, model: &mut dyn Module) -> Result<BTreeMap<String, AdapterConfig>> {
        let alone = |place: Place| {
            let (rank, alpha) = self.sizes(&place);
            let (exclude, rank_pattern, alpha_pattern) = (Vec::new(), Vec::new(), Vec::new());
            let targets = vec![place.path.clone()];
            (place.path, AdapterConfig { rank, alpha, targets, exclude, rank_pattern, alpha_pattern, ..self.clone() })
        };
        Ok(self.chosen(model)?.into_iter().map(alone).collect())
    }

    /// The adapter of one layer.
    fn adapter(&self, place: &Place, map: &LinearMap, seed: Seed) -> Result<Adapter> {
        let problem = |text: String| Err(Error::Config(format!("{}: {text}", place.path)));
        let sizes = map.sizes();
        let (rank, alpha) = self.sizes(place);
        if map.get::<Lora>().is_some() {
            return problem("it has an adapter already: merge and bake that first".into());
        }
        if rank == 0 || rank > sizes[0].min(sizes[1]) {
            let most = sizes[0].min(sizes[1]);
            return problem(format!("rank {rank} for a map {sizes:?}: give one from 1 to {most}"));
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return problem(format!("alpha {alpha}: give a positive number"));
        }
        let dense = map.get::<Dense>();
        if self.dora && !dora::fits(map) {
            return problem("its base is not a dense matrix, whose norms DoRA needs".into());
        }
        let (dtype, device) = kind(map);
        let scale = self.scale(rank, alpha);
        let (path, embedding, seed) = (&*place.path, place.embedding, seed.named(&place.path));
        let site = Site { path, sizes, embedding, dense, rank, scale, dtype, device, seed };
        Ok(Adapter { factors: self.start.factors(&site)?, scale })
    }
}

/// What will be put beside a map.
struct Adapter {
    factors: Factors,
    scale: f64,
}

impl Adapter {
    fn around(self, mut base: LinearMap, config: &AdapterConfig) -> Lora {
        let Adapter { factors: Factors { a, b, moves_base }, scale } = self;
        if let Some(dense) = base.get_mut::<Dense>().filter(|_| moves_base) {
            let moved = plus(dense, &a, &b, -scale);
            dense.weight.set(moved);
        }
        let mut map = Lora::new(base, a, b, scale);
        map.dropout = config.dropout;
        map.moved_base = moves_base;
        if config.dora {
            map.magnitude = Some(Parameter::new(dora::norms(&map)));
        }
        if config.freeze_a {
            map.a.freeze();
        }
        map
    }
}

/// `W + s A B`, stored as W is.
pub(super) fn plus(base: &Dense, a: &Tensor, b: &Tensor, scale: f64) -> Tensor {
    let w = tagged(Tag::Weights, || Tensor::from_array(base.weight.tensor().array().to_owned()));
    let op = Arc::new(Linear { transposed: base.transposed });
    match base.transposed {
        false => apply_onto(op, &[a, &(b * scale)], w),
        true => apply_onto(op, &[&(b.t() * scale), a], w),
    }
}

/// Freezes all but adapters: those of other layers go on training.
pub(super) fn freeze_base(model: &mut dyn Module) {
    let adapts = |path: &Path| path.to_string().rsplit('.').next().is_some_and(|name| name.starts_with("lora_"));
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if !adapts(path) {
            parameter.freeze();
        }
    });
}

/// Freezes all of a model but adapters that it has, and puts adapters beside the layers that are meant; gives their
/// paths. What adapters begin as is a function of the seed and the layer's path.
///
/// Fails, with nothing changed, on a name that means no layer, a rank that a layer cannot have, an alpha that is no
/// positive number, a layer that has an adapter already, where a start or DoRA needs a base of another kind, and
/// on a dropout outside [0, 1). Errors of one layer name it.
pub fn adapt(model: &mut dyn Module, config: &AdapterConfig, seed: Seed) -> Result<Vec<String>> {
    if !(0.0..1.0).contains(&config.dropout) {
        return Err(Error::Config(format!("adapters' dropout {} is not in [0, 1)", config.dropout)));
    }
    let chosen = config.chosen(model)?;
    let mut places: BTreeMap<String, Place> = chosen.iter().map(|place| (place.path.clone(), place.clone())).collect();
    let mut adapters: BTreeMap<String, Result<Adapter>> = BTreeMap::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        if let Some(place) = places.remove(&path.to_string()) {
            adapters.insert(path.to_string(), config.adapter(&place, map, seed));
        }
    });
    let mut ready: BTreeMap<String, Adapter> = BTreeMap::new();
    for Place { path, .. } in &chosen {
        ready.insert(path.clone(), adapters.remove(path).expect("places were found by the same walk")?);
    }
    freeze_base(model);
    model.visit_maps(&Path::root(), &mut |path, map| {
        if let Some(adapter) = ready.remove(&path.to_string()) {
            map.replace(|base| adapter.around(base, config));
        }
    });
    Ok(chosen.into_iter().map(|place| place.path).collect())
}
