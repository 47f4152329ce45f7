//! Every method on the same model: what each would take.

use super::{Adapter, Config, MemoryUse, Method, Plan};
use crate::error::Result;
use crate::nn::ModelConfig;
use serde::Serialize;

/// One method at one rank, and its plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// Its name, as in tables.
    pub method: String,
    /// Rank of subspaces or adapters; none where there is nothing of low rank.
    pub rank: Option<usize>,
    /// What it would take; none if it cannot be, and why.
    pub plan: std::result::Result<Plan, String>,
}

/// A way to train: a name, and what it sets in a configuration.
pub struct Variant {
    /// As in tables.
    pub name: &'static str,
    /// Whether its memory depends on the rank.
    pub low_rank: bool,
    set: fn(&mut Config),
}

/// Every way to train, the dense ones first.
pub const VARIANTS: [Variant; 13] = [
    dense("adamw", |config| config.optimizer = Some(Method::Adamw)),
    dense("adamw8bit", |config| config.optimizer = Some(Method::Adamw8bit)),
    dense("sgd", |config| config.optimizer = Some(Method::Sgd)),
    dense("adafactor", |config| config.optimizer = Some(Method::Adafactor)),
    dense("adafactor, momentum", |config| {
        config.optimizer = Some(Method::Adafactor);
        config.momentum = Some(0.9);
    }),
    low_rank("flora", |config| config.optimizer = Some(Method::Flora)),
    low_rank("galore", |config| config.optimizer = Some(Method::Galore)),
    low_rank("apollo", |config| config.optimizer = Some(Method::Apollo)),
    dense("apollo-mini", |config| config.optimizer = Some(Method::ApolloMini)),
    low_rank("compressed-adam", |config| config.optimizer = Some(Method::CompressedAdam)),
    low_rank("lora", |config| config.adapter = Adapter::Lora),
    low_rank("lora+", |config| config.adapter = Adapter::LoraPlus),
    low_rank("dora", |config| config.adapter = Adapter::Dora),
];

const fn dense(name: &'static str, set: fn(&mut Config)) -> Variant {
    Variant { name, low_rank: false, set }
}

const fn low_rank(name: &'static str, set: fn(&mut Config)) -> Variant {
    Variant { name, low_rank: true, set }
}

impl Variant {
    /// The configuration with this method and rank, and that method's own defaults.
    pub fn of(&self, config: &Config, rank: usize) -> Config {
        let mut config = config.without_method();
        (self.set)(&mut config);
        config.rank = rank;
        config
    }
}

/// What the run of a resolved configuration would take with AdamW on all parameters; none if that is what it does.
pub fn beside_adamw(config: &Config, model: &ModelConfig) -> Result<Option<MemoryUse>> {
    if config.method() == Method::Adamw && config.adapter == Adapter::None {
        return Ok(None);
    }
    let dense = VARIANTS[0].of(config, config.rank).resolved()?;
    Plan::of_model(&dense, model).map(|plan| Some(plan.peak_bytes))
}

/// Plans every method, those of low rank at each of `ranks`, for a model of this configuration.
pub fn plan_all(config: &Config, model: &ModelConfig, ranks: &[usize]) -> Result<Vec<Planned>> {
    let mut all = Vec::new();
    for variant in &VARIANTS {
        let ranks = if variant.low_rank { ranks } else { &ranks[..1] };
        for &rank in ranks {
            let plan = variant.of(config, rank).resolved().and_then(|config| Plan::of_model(&config, model));
            let plan = plan.map_err(|error| error.to_string());
            all.push(Planned { method: variant.name.into(), rank: variant.low_rank.then_some(rank), plan });
        }
    }
    Ok(all)
}
