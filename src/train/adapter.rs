//! Which adapters a run trains, and how fast their parts learn.

use super::Config;
use crate::error::{Error, Result};
use crate::lowrank::{AdapterConfig, LoraPlus, Start, adapt, is_head};
use crate::module::{Module, Parameter, Path};
use crate::nn::Model;
use crate::optim::Group;
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is trained of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adapter {
    /// All of it.
    None,
    /// Adapters of low rank beside frozen maps (Hu et al. 2021).
    Lora,
    /// The same with a higher learning rate for B (Hayou et al. 2024).
    #[serde(rename = "lora+")]
    LoraPlus,
    /// Adapters and lengths of outputs (Liu et al. 2024).
    Dora,
}

impl Config {
    /// Puts the adapters on, if there are to be any, starting so; the configuration must be resolved. Beside them train the
    /// head of a classifier and the parameters that are `fresh`, whose layers get none.
    pub fn adapt(&self, model: &mut Model, start: Start, fresh: &[String]) -> Result<()> {
        if self.adapter == Adapter::None {
            return Ok(());
        }
        let adapters = self.adapters(start, self.adapted_layers(model, fresh)?);
        adapt(model, &adapters, self.adapters_seed())?;
        self.cut_down(model)?;
        train_whole(model, fresh);
        Ok(())
    }

    /// The adapters of these layers.
    pub(super) fn adapters(&self, start: Start, targets: Vec<String>) -> AdapterConfig {
        let (without, with): (Vec<_>, Vec<_>) = self.rank_pattern.iter().partition(|(_, rank)| **rank == 0);
        AdapterConfig {
            rank: self.rank,
            alpha: self.alpha,
            rank_stabilised: self.rank_stabilised,
            targets,
            exclude: without.into_iter().map(|(name, _)| name.clone()).collect(),
            rank_pattern: with.into_iter().map(|(name, rank)| (name.clone(), *rank)).collect(),
            alpha_pattern: self.alpha_pattern.clone().into_iter().collect(),
            start,
            dora: self.adapter == Adapter::Dora,
            dropout: self.adapter_dropout,
            ..AdapterConfig::default()
        }
    }

    /// What first factors are a function of.
    pub(super) fn adapters_seed(&self) -> Seed {
        Seed(self.seed).named("adapters")
    }

    /// Paths of the layers that get adapters; those of `fresh` parameters train as they are.
    pub(super) fn adapted_layers(&self, model: &mut Model, fresh: &[String]) -> Result<Vec<String>> {
        let whole = whole(model, fresh);
        let mut layers = self.named_layers(model)?;
        layers.retain(|path| !whole.contains(&format!("{path}.weight")));
        if layers.is_empty() {
            let problem = "adapter_targets: they name only what is trained as a whole; name other layers";
            return Err(Error::Config(problem.into()));
        }
        if let Some(last) = self.last_layers {
            let blocks = layers.iter().filter_map(|path| block(path)).max().map_or(0, |block| block + 1);
            layers.retain(|path| block(path).is_some_and(|block| block + last >= blocks));
        }
        Ok(layers)
    }

    /// By names, or as PEFT understands them.
    #[cfg(feature = "hub")]
    fn named_layers(&self, model: &mut Model) -> Result<Vec<String>> {
        crate::io::peft::targets(model, &self.adapter_targets.join(","))
    }

    #[cfg(not(feature = "hub"))]
    fn named_layers(&self, model: &mut Model) -> Result<Vec<String>> {
        let names: Vec<&str> = self.adapter_targets.iter().map(String::as_str).collect();
        crate::lowrank::chosen(model, &names)
    }

    /// Which parameters learn how fast, and decay.
    pub(super) fn groups(&self) -> Result<Vec<Group>> {
        match self.adapter {
            Adapter::LoraPlus => LoraPlus {
                rate: self.lr.unwrap_or_default(),
                ratio: self.lora_plus_ratio,
                embedding_rate: self.embedding_lr,
                decay: self.weight_decay,
            }
            .groups(),
            _ => Ok(Group::decay_matrices(self.weight_decay)),
        }
    }
}

/// Paths of the parameters that are trained as they are beside adapters.
fn whole(model: &Model, fresh: &[String]) -> BTreeSet<String> {
    let classifies = model.config().labels.is_some();
    let of_head = |path: &String| path.rsplit_once('.').is_some_and(|(layer, _)| classifies && is_head(layer));
    let paths = model.parameters().into_iter().map(|(path, _)| path);
    paths.filter(|path| of_head(path) || fresh.contains(path)).collect()
}

/// Lets them train.
pub(super) fn train_whole(model: &mut Model, fresh: &[String]) {
    let whole = whole(model, fresh);
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if whole.contains(&path.to_string()) {
            *parameter = Parameter::new(parameter.tensor().detach());
        }
    });
}

/// Which block a layer is in: the first number in its path.
fn block(path: &str) -> Option<usize> {
    path.split('.').find_map(|part| part.parse().ok())
}
