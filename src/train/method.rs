//! Which optimizer, and what it does unless told otherwise.

use super::{Adapter, AdapterStart, Config};
use crate::error::Result;
use crate::lowrank::{ALL, ALL_LINEAR, Lift, Projection, Subspaces, Transfer, others};
use crate::lowrank::{apollo, apollo_mini, compressed_adam, flora, galore};
use crate::module::Module;
use crate::ops::project::Entries;
use crate::optim::{Accumulation, Adam, Adam8bit, Momentum, Optimizer, Takes, adafactor};
use crate::rng::Seed;
use serde::{Deserialize, Serialize};

/// Which optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    Adamw,
    /// The same with its state in eight bits (Dettmers et al. 2022).
    Adamw8bit,
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adafactor (Shazeer & Stern 2018), without momentum unless `momentum` is given.
    Adafactor,
    /// Flora (Hao et al. 2024): Adafactor with compressed momentum and compressed accumulation.
    Flora,
    /// APOLLO (Zhu et al. 2024): columns of the gradient scaled by compressed Adam.
    Apollo,
    /// APOLLO-Mini: the whole gradient scaled by Adam at rank 1.
    ApolloMini,
    /// GaLore (Zhao et al. 2024): Adam in the span of leading singular vectors.
    Galore,
    /// Adam with both moments compressed by random projections.
    CompressedAdam,
}

/// What is used where the configuration says nothing.
pub struct Defaults {
    /// Highest learning rate.
    pub lr: f64,
    /// Decay of momentum.
    pub momentum: f64,
    /// Layers whose state is compressed.
    pub layers: &'static str,
    /// Steps from one subspace to the next.
    pub resample: u64,
    /// How subspaces are chosen.
    pub projection: Projection,
    /// What happens to state at a change.
    pub transfer: Transfer,
    /// Factor on lifted updates.
    pub scale: f64,
    /// How `flora` lifts its momentum.
    pub lift: Lift,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 9] = [
        Method::Adamw,
        Method::Adamw8bit,
        Method::Sgd,
        Method::Adafactor,
        Method::Flora,
        Method::Apollo,
        Method::ApolloMini,
        Method::Galore,
        Method::CompressedAdam,
    ];

    /// What it does unless told otherwise.
    pub fn defaults(self) -> Defaults {
        let usual = Defaults {
            lr: 2e-3,
            momentum: 0.0,
            layers: ALL,
            resample: 50,
            projection: Projection::Rademacher,
            transfer: Transfer::Keep,
            scale: 1.0,
            lift: Lift::Within,
        };
        match self {
            Method::Adamw | Method::Adamw8bit => usual,
            Method::Sgd => Defaults { lr: 0.1, momentum: 0.9, ..usual },
            Method::Adafactor => Defaults { lr: 3e-3, ..usual },
            Method::Flora => Defaults { lr: 3e-3, momentum: 0.9, transfer: Transfer::Reset, ..usual },
            Method::Apollo => Defaults { lr: 1e-2, layers: ALL_LINEAR, projection: Projection::Gaussian, ..usual },
            Method::ApolloMini => Defaults {
                lr: 6e-3,
                layers: ALL_LINEAR,
                projection: Projection::Gaussian,
                scale: 128_f64.sqrt(),
                ..usual
            },
            Method::Galore => Defaults { lr: 6e-3, layers: ALL_LINEAR, projection: Projection::Svd, ..usual },
            Method::CompressedAdam => Defaults { lr: 1e-2, layers: ALL_LINEAR, transfer: Transfer::Scaled, ..usual },
        }
    }

    /// Whether its state lives in subspaces.
    pub fn is_low_rank(self) -> bool {
        !matches!(self, Method::Adamw | Method::Adamw8bit | Method::Sgd | Method::Adafactor)
    }
}

impl Config {
    /// The optimizer for a model, with decay on matrices alone; the configuration must be resolved.
    pub fn optimizer(&self, model: &mut dyn Module) -> Result<Optimizer> {
        let usual = self.method().defaults();
        let groups = self.groups()?;
        let adam = Adam { beta1: self.beta1, beta2: self.beta2, epsilon: self.epsilon };
        let momentum = self.momentum.unwrap_or(usual.momentum);
        let scale = self.update_scale.unwrap_or(usual.scale);
        let lift = self.lift.unwrap_or(usual.lift);
        let subspaces = self.subspaces();
        let optimizer = match self.method() {
            Method::Adamw => Optimizer::new(adam, groups),
            Method::Adamw8bit => Optimizer::new(Adam8bit(adam), groups),
            Method::Sgd => Optimizer::new(Momentum { beta: momentum }, groups),
            Method::Adafactor => Optimizer::new(adafactor(momentum, self.scale_parameter), groups),
            Method::Flora => Optimizer::new(flora(subspaces, momentum, lift, self.scale_parameter), groups),
            Method::Apollo => Optimizer::new(apollo(subspaces, adam, scale), groups),
            Method::ApolloMini => Optimizer::new(apollo_mini(subspaces, adam, scale), groups),
            Method::Galore => Optimizer::new(galore(subspaces, adam, scale), groups),
            Method::CompressedAdam => Optimizer::new(compressed_adam(subspaces, adam), groups),
        };
        let optimizer = optimizer.seeded(Seed(self.seed).named("optimizer")).accumulating(self.accumulation());
        let layers: Vec<&str> = self.compressed_layers.iter().flatten().map(String::as_str).collect();
        if !self.method().is_low_rank() || layers == [ALL] {
            return Ok(optimizer);
        }
        let dense = others(model, &layers)?;
        let takes: Takes =
            Box::new(move |path, _| path.strip_suffix(".weight").is_some_and(|path| dense.contains(path)));
        Ok(match self.method() {
            Method::Flora => optimizer.except(takes, adafactor(momentum, self.scale_parameter)),
            _ => optimizer.except(takes, adam),
        })
    }

    /// The optimizer, which depends on what is trained where the configuration does not say.
    pub fn method(&self) -> Method {
        let usual = if self.adapter == Adapter::None { Method::Flora } else { Method::Adamw };
        self.optimizer.unwrap_or(usual)
    }

    /// The same with nothing said about the method, its rank apart.
    pub(super) fn without_method(&self) -> Config {
        Config {
            optimizer: None,
            adapter: Adapter::None,
            base: None,
            start: AdapterStart::Uniform,
            growth: None,
            rank_pattern: Default::default(),
            alpha_pattern: Default::default(),
            compressed_layers: None,
            resample: None,
            projection: None,
            momentum_transfer: None,
            update_scale: None,
            lift: None,
            compress_accumulation: None,
            momentum: None,
            lr: None,
            ..self.clone()
        }
    }

    fn subspaces(&self) -> Subspaces {
        let usual = self.method().defaults();
        Subspaces {
            projection: self.projection.unwrap_or(usual.projection),
            rank: self.rank,
            resample: self.resample.unwrap_or(usual.resample),
            transfer: self.momentum_transfer.unwrap_or(usual.transfer),
        }
    }

    /// How gradients are added up, where there are several micro-batches.
    fn accumulation(&self) -> Option<Accumulation> {
        let wanted = self.compress_accumulation.unwrap_or(self.method() == Method::Flora);
        let entries = match self.subspaces().projection {
            Projection::Gaussian => Entries::Gaussian,
            Projection::Walsh => Entries::Walsh,
            _ => Entries::Rademacher,
        };
        (wanted && self.accumulate > 1).then_some(Accumulation { entries, rank: self.rank })
    }
}
