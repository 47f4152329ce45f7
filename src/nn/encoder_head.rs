//! What is made of an encoder's states: logits of tokens, or of classes. BERT's and RoBERTa's heads compute the same under
//! different names, but for a dropout.

use super::bert::DEVIATION;
use super::config::{Activation, Arch, ModelConfig};
use super::inputs::Reads;
use super::layers::{LayerNorm, Linear, drop};
use crate::device::Device;
use crate::module::{LinearMap, Module, Parameter, Path, weights};
use crate::ops::dropout::Mask;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// A head.
#[derive(Clone, Debug)]
pub struct Head {
    /// [width, width].
    dense: Linear,
    last: Last,
    /// Paths of `dense`, of the norm or the last map, and of the vocabulary's bias.
    paths: [&'static str; 3],
    roberta: bool,
    dropout: f64,
}

#[derive(Clone, Debug)]
enum Last {
    Tokens(Box<Tokens>),
    /// A map to the classes' logits.
    Classes(Linear),
}

/// An activation, a norm, the embedding's transpose, and a bias.
#[derive(Clone, Debug)]
struct Tokens {
    activation: Activation,
    norm: LayerNorm,
    /// `[vocabulary]`.
    bias: Parameter,
}

impl Head {
    /// Fresh weights, a function of the seed.
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Head {
        let (width, roberta) = (config.width, config.arch == Arch::Roberta);
        let linear = |name: &str, outputs| {
            Linear::transposed([width, outputs], true, DEVIATION, seed.named("head").named(name), device)
        };
        let (last, paths) = match (&config.labels, roberta) {
            (Some(labels), _) => {
                let bert = ["pooler.dense", "classifier", ""];
                let paths = if roberta { ["classifier.dense", "classifier.out_proj", ""] } else { bert };
                (Last::Classes(linear("out", labels.len())), paths)
            }
            (None, true) => (
                Last::tokens(config, Activation::Gelu, device),
                ["lm_head.dense", "lm_head.layer_norm", "lm_head.bias"],
            ),
            (None, false) => {
                let names =
                    ["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"];
                (Last::tokens(config, config.activation, device), names)
            }
        };
        Head { dense: linear("dense", width), last, paths, roberta, dropout: config.dropout }
    }

    /// Which states of a row it is given.
    pub(super) fn reads(&self) -> Reads {
        match self.last {
            Last::Tokens(_) => Reads::All,
            Last::Classes(_) => Reads::First,
        }
    }

    /// States [.., width] to logits [.., vocabulary] or [.., classes]; `table` is the embedding [vocabulary, width].
    #[track_caller]
    pub fn apply(&self, states: &Tensor, table: &LinearMap, mask: Option<&Mask>) -> Tensor {
        let dropped = |x, place| drop(x, self.dropout, mask, place);
        match &self.last {
            Last::Tokens(tokens) => {
                let x = tokens.norm.apply(&tokens.activation.apply(&self.dense.apply(states)));
                table.apply_transposed(&x) + tokens.bias.tensor()
            }
            Last::Classes(out) => {
                // A RoBERTa drops twice.
                let states = if self.roberta { dropped(states.clone(), u64::MAX - 1) } else { states.clone() };
                out.apply(&dropped(self.dense.apply(&states).tanh(), u64::MAX - 2))
            }
        }
    }
}

impl Last {
    fn tokens(config: &ModelConfig, activation: Activation, device: &Device) -> Last {
        let bias = weights(&[config.vocabulary], device, || vec![0.0; config.vocabulary]);
        let norm = LayerNorm::new(config.width, config.norm_epsilon, device);
        Last::Tokens(Box::new(Tokens { activation, norm, bias: Parameter::new(bias) }))
    }
}

impl Module for Head {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        let [dense, second, third] = self.paths.map(|name| path.join(name));
        self.dense.visit(&dense, see);
        match &self.last {
            Last::Tokens(tokens) => {
                tokens.norm.visit(&second, see);
                tokens.bias.visit(&third, see);
            }
            Last::Classes(out) => out.visit(&second, see),
        }
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        let [dense, second, third] = self.paths.map(|name| path.join(name));
        self.dense.visit_mut(&dense, see);
        match &mut self.last {
            Last::Tokens(tokens) => {
                tokens.norm.visit_mut(&second, see);
                tokens.bias.visit_mut(&third, see);
            }
            Last::Classes(out) => out.visit_mut(&second, see),
        }
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        self.dense.visit_maps(&path.join(self.paths[0]), see);
        if let Last::Classes(out) = &mut self.last {
            out.visit_maps(&path.join(self.paths[1]), see);
        }
    }
}
