//! Layers and models.

mod bert;
mod cache;
mod config;
mod encoder_head;
mod factors;
mod generate;
mod gpt2;
mod hugging_face;
mod inputs;
mod layers;
mod llama;
mod rope;
mod validate;

pub use bert::Bert;
pub use cache::Cache;
pub use config::{Activation, Arch, AttentionBias, ModelConfig};
pub use generate::{Prompt, Sampling, generate, generate_together, generate_while};
pub use gpt2::Gpt2;
pub use inputs::Inputs;
pub use layers::{LayerNorm, Linear, Pass, RmsNorm};
pub use llama::Llama;
pub use rope::RopeScaling;

use crate::module::{LinearMap, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{DType, Device, Error, Result};
use inputs::Reads;

/// A language model, or one that classifies, with its configuration.
#[derive(Clone, Debug)]
pub enum Model {
    /// GPT-2.
    Gpt2(Gpt2, ModelConfig),
    /// Llama.
    Llama(Llama, ModelConfig),
    /// BERT or RoBERTa.
    Bert(Box<Bert>, ModelConfig),
}

impl Model {
    /// Fresh weights, a function of the seed.
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Result<Model> {
        config.validate()?;
        let dense = match config.arch {
            Arch::Gpt2 => Model::Gpt2(Gpt2::new(config, seed, device), config.clone()),
            Arch::Llama => Model::Llama(Llama::new(config, seed, device), config.clone()),
            Arch::Bert | Arch::Roberta => Model::Bert(Box::new(Bert::new(config, seed, device)), config.clone()),
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

    /// Puts a fresh head in the place of its own, a function of the seed; one that is the embedding stays.
    pub(crate) fn renew_head(&mut self, seed: Seed, device: &Device) {
        match self {
            Model::Gpt2(model, config) => model.score = layers::score(config, seed, device),
            Model::Llama(model, config) => model.renew_head(config, seed, device),
            Model::Bert(model, config) => model.head = encoder_head::Head::new(config, seed, device),
        }
    }

    /// What it is made of.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Model::Gpt2(_, config) | Model::Llama(_, config) | Model::Bert(_, config) => config,
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
    /// The head of a GPT-2 or an encoder is always its embedding: an error, as is an embedding with an adapter on it, and a
    /// model that classifies.
    pub fn untie(&mut self) -> Result<()> {
        let problem = match self {
            _ if self.config().labels.is_some() => "a model that classifies has no output head over tokens",
            Model::Gpt2(..) => "GPT-2's output head is its embedding, always",
            Model::Bert(..) => "an encoder's output head is its embedding, always",
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

    /// Logits of tokens: from ids [batch, time] u32 to [batch, time, vocabulary], of the next token at every position, or in
    /// an encoder of the token itself. Of a model that classifies, [batch, classes]. Where [`Inputs::places`] are given,
    /// [places, vocabulary] or [places, classes].
    #[track_caller]
    pub fn logits(&self, inputs: impl Into<Inputs>, pass: &Pass) -> Tensor {
        let inputs = inputs.into();
        let reads = if self.config().labels.is_some() { Reads::Last } else { Reads::All };
        match self {
            Model::Gpt2(model, _) => model.head(&inputs.of(model.hidden(&inputs.ids, pass), reads)),
            Model::Llama(model, _) => model.head(&inputs.of(model.hidden(&inputs.ids, pass), reads)),
            Model::Bert(model, _) => model.logits(&inputs, pass),
        }
    }

    /// Mean cross-entropy in nats per target, over targets that are not ignored: [batch, time], `[places]`, or of a model
    /// that classifies `[batch]`.
    #[track_caller]
    pub fn loss(&self, inputs: impl Into<Inputs>, targets: &Tensor, pass: &Pass) -> Tensor {
        self.logits(inputs, pass).cross_entropy(targets)
    }

    fn inner(&self) -> &dyn Module {
        match self {
            Model::Gpt2(model, _) => model,
            Model::Llama(model, _) => model,
            Model::Bert(model, _) => &**model,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Module {
        match self {
            Model::Gpt2(model, _) => model,
            Model::Llama(model, _) => model,
            Model::Bert(model, _) => &mut **model,
        }
    }
}

impl Module for Model {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.inner().visit(path, see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.inner_mut().visit_mut(path, see);
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        self.inner_mut().visit_maps(path, see);
    }
}
