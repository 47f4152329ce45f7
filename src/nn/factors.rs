//! Models some of whose maps are factors from the beginning.

use super::{Model, ModelConfig};
use crate::error::{Error, Result};
use crate::lowrank::{Factored, each};
use crate::module::{LinearMap, Module, Path, normal};
use crate::rng::Seed;
use std::collections::BTreeMap;

/// Deviation of the elements of a new map.
const DEVIATION: f64 = 0.02;

impl Model {
    /// Puts factors in the place of the maps that the configuration has a rank for; an error names what is not there.
    pub(super) fn factored(mut self, seed: Seed) -> Result<Model> {
        // Files for another task may have factors in a head that this model has not.
        let (mut ranks, config) = (self.config().ranks.clone(), self.config().clone());
        ranks.retain(|path, _| config.hub_path(&config.hub_name(path)).is_some());
        let mut problem = None;
        self.visit_maps(&Path::root(), &mut |path, map| {
            let path = path.to_string();
            let Some(rank) = ranks.remove(&path) else { return };
            let [inputs, outputs] = map.sizes();
            match (1..=inputs + outputs).contains(&rank) {
                true => map.replace(|dense| factors(&dense, rank, seed.named(&path))),
                false => problem = Some(format!("rank {rank} of {path} [{inputs}, {outputs}] cannot be")),
            }
        });
        let unknown =
            ranks.into_keys().next().map(|path| format!("a rank is given for {path}, which the model has not"));
        problem.or(unknown).map_or(Ok(self), |problem| Err(Error::Config(problem)))
    }
}

/// L and R with elements of equal deviations, such that L R has elements of the usual one.
fn factors(dense: &LinearMap, rank: usize, seed: Seed) -> Factored {
    let [inputs, outputs] = dense.sizes();
    let deviation = (DEVIATION / (rank as f64).sqrt()).sqrt();
    let parameters = dense.parameters();
    let device = parameters[0].1.tensor().device();
    let factor = |shape: [usize; 2], name| normal(&shape, deviation, seed.named(name), device);
    Factored::new(factor([inputs, rank], "in"), factor([rank, outputs], "out"))
}

impl ModelConfig {
    /// The same with the ranks that a model's maps have.
    pub fn with_ranks_of(&self, model: &Model) -> ModelConfig {
        let mut ranks = BTreeMap::new();
        each(&mut model.clone(), |path, map: &mut Factored| {
            ranks.insert(path.into(), map.rank());
        });
        ModelConfig { ranks, ..self.clone() }
    }
}
