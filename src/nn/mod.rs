//! Layers and models.

mod cache;
mod config;
mod factors;
mod generate;
mod gpt2;
mod hugging_face;
mod layers;
mod llama;
mod rope;
mod validate;

pub use cache::Cache;
pub use config::{Arch, AttentionBias, ModelConfig};
pub use generate::{Prompt, Sampling, generate, generate_together, generate_while};
pub use gpt2::Gpt2;
pub use layers::{LayerNorm, Linear, Pass, RmsNorm};
pub use llama::Llama;
pub use rope::RopeScaling;

use crate::module::{LinearMap, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{DType, Device, Error, Result};

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
        let dense = match config.arch {
            Arch::Gpt2 => Model::Gpt2(Gpt2::new(config, seed, device), config.clone()),
            Arch::Llama => Model::Llama(Llama::new(config, seed, device), config.clone()),
        };
        dense.factored(seed)
    }

    /// A model for `device` whose weights are still to be set, every one: until then they are shapes of a null device,
    /// which cost nothing.
    pub(crate) fn unset(config: &ModelConfig, device: &Device) -> Result<Model> {
        let nowhere = device.like_null();
        let mut model = Model::new(config, Seed(0), &nowhere)?;
        if let Model::Llama(model, config) = &mut model {
            model.retype(config, DType::F32, device);
        }
        Ok(model)
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
        let device = self.device();
        if let Model::Llama(model, config) = &mut self {
            model.retype(config, dtype, &device);
        }
        self
    }

    /// Gives the output head weights of its own, a copy of the embedding's; a model that has them stays as it is. They
    /// train if the embedding does.
    ///
    /// GPT-2's head is always its embedding: an error, as is an embedding with an adapter on it.
    pub fn untie(&mut self) -> Result<()> {
        let problem = match self {
            Model::Gpt2(..) => "GPT-2's output head is its embedding, always",
            Model::Llama(_, config) if !config.tied => return Ok(()),
            Model::Llama(model, config) => {
                if model.untie() {
                    config.tied = false;
                    return Ok(());
                }
                "the embedding is no plain table: untie the head before it gets an adapter"
            }
        };
        Err(Error::Config(problem.into()))
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
