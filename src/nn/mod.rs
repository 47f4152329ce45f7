//! Layers and models.

mod cache;
mod config;
mod generate;
mod gpt2;
mod hugging_face;
mod layers;
mod llama;

pub use cache::Cache;
pub use config::{Arch, ModelConfig};
pub use generate::{Sampling, generate};
pub use gpt2::Gpt2;
pub use layers::{LayerNorm, Linear, Pass, RmsNorm};
pub use llama::Llama;

use crate::module::{LinearMap, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{DType, Device, Result};

/// A language model of either family, with its configuration.
#[derive(Clone, Debug)]
pub enum Model {
    /// GPT-2.
    Gpt2(Gpt2, ModelConfig),
    /// Llama.
    Llama(Llama, ModelConfig),
}

impl Model {
    /// Fresh weights, a function of the seed.
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Result<Model> {
        config.validate()?;
        Ok(match config.arch {
            Arch::Gpt2 => Model::Gpt2(Gpt2::new(config, seed, device), config.clone()),
            Arch::Llama => Model::Llama(Llama::new(config, seed, device), config.clone()),
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Model::Gpt2(_, config) | Model::Llama(_, config) => config,
        }
    }

    /// The device its weights lie on.
    pub fn device(&self) -> Device {
        self.parameters()[0].1.tensor().device().clone()
    }

    /// The same model with weights of another type: f64 is for proofs. Codes stay words.
    pub fn cast(mut self, dtype: DType) -> Model {
        self.visit_mut(&Path::root(), &mut |_, parameter| {
            if parameter.tensor().dtype() != DType::U32 {
                let value = parameter.tensor().detach().cast(dtype);
                parameter.set(value);
            }
        });
        if let Model::Llama(model, config) = &mut self {
            model.retype(config, dtype);
        }
        self
    }

    /// Logits of the next token at every position: ids [batch, time] u32 to [batch, time, vocabulary].
    #[track_caller]
    pub fn logits(&self, ids: &Tensor, pass: &Pass) -> Tensor {
        self.head(&match self {
            Model::Gpt2(model, _) => model.hidden(ids, pass),
            Model::Llama(model, _) => model.hidden(ids, pass),
        })
    }

    /// Mean cross-entropy in nats per token, over targets [batch, time] that are not ignored.
    #[track_caller]
    pub fn loss(&self, ids: &Tensor, targets: &Tensor, pass: &Pass) -> Tensor {
        self.logits(ids, pass).cross_entropy(targets)
    }

    fn head(&self, hidden: &Tensor) -> Tensor {
        match self {
            Model::Gpt2(model, _) => model.head(hidden),
            Model::Llama(model, _) => model.head(hidden),
        }
    }
}

impl Module for Model {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        match self {
            Model::Gpt2(model, _) => model.visit(path, see),
            Model::Llama(model, _) => model.visit(path, see),
        }
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        match self {
            Model::Gpt2(model, _) => model.visit_mut(path, see),
            Model::Llama(model, _) => model.visit_mut(path, see),
        }
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        match self {
            Model::Gpt2(model, _) => model.visit_maps(path, see),
            Model::Llama(model, _) => model.visit_maps(path, see),
        }
    }
}
