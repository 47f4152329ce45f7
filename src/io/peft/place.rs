//! Adapters put on models.

use super::Adapter;
use super::faults::Expected;
use super::sites::{Kind, Target, tied_table};
use crate::device::{Device, Tag, tagged};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lowrank::{Initial, Ready, attach};
use crate::module::{Module, Parameter, Path};
use crate::nn::Model;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// What has become of a model.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Paths of layers with adapters.
    pub layers: Vec<String>,
    /// Paths of parameters that were replaced and train.
    pub whole: Vec<String>,
    /// What was taken from bases, as PiSSA's adapters need it: for [`About::initial`](super::About).
    pub initial: Initial,
}

/// Type and device of a model's parameters.
pub(super) struct Like {
    dtype: DType,
    device: Device,
}

impl Like {
    pub fn of(model: &Model) -> Like {
        let first = model.parameters().remove(0).1;
        Like { dtype: first.tensor().dtype(), device: first.tensor().device().clone() }
    }

    /// A copy among the model's weights.
    pub fn copy(&self, tensor: &Tensor) -> Result<Tensor> {
        tagged(Tag::Weights, || tensor.contiguous().cast(self.dtype).to_device(&self.device))
    }
}

impl Adapter {
    /// Puts the adapter on a model: freezes all but adapters, puts A and B beside the layers that the configuration means,
    /// and replaces the parameters of modules that were trained whole, which train on. Values are cast to the model's type.
    ///
    /// Where the head is the embedding's transpose, an adapter of the embedding alone leaves the head as it is, as in PEFT.
    /// An adapter saved by PEFT with `init_lora_weights: pissa` takes the leading singular values from the bases again.
    ///
    /// Fails, with nothing changed, on all faults at once: see [`Adapter::check`]; and on a layer that has an adapter.
    pub fn put_on(&self, model: &mut Model) -> Result<Placed> {
        let expected = self.sound(model)?;
        let like = Like::of(model);
        let tied = expected.targets.iter().any(|target| target.site.kind == Kind::Tied);
        let table = tied_table(model).filter(|_| !tied);
        let mut ready = BTreeMap::new();
        for target in expected.targets.iter().filter(|target| target.site.kind != Kind::Tied) {
            let rows_only = table == Some(&*target.site.path);
            ready.insert(target.site.path.clone(), Ready { rows_only, ..self.ready(target, &like)? });
        }
        let values = self.values(&expected, &like)?;
        let layers = ready.keys().cloned().collect();
        let initial = attach(model, ready)?;
        Ok(Placed { layers, whole: replace(model, values), initial })
    }

    /// What a model expects, if the adapter has it.
    pub(super) fn sound(&self, model: &Model) -> Result<Expected> {
        let faults = self.check(Some(model));
        match faults.is_empty() {
            true => self.expected(model),
            false => Err(Error::Data { path: self.folder.clone(), problem: faults.join("; ") }),
        }
    }

    /// A module's adapter in the model's type.
    pub(super) fn ready(&self, target: &Target, like: &Like) -> Result<Ready> {
        let [a, b, lengths] = target.keys();
        let lengths = self.config.dora.then(|| like.copy(&self.tensors[&lengths]));
        Ok(Ready {
            a: like.copy(&self.tensors[&a].t())?,
            b: like.copy(&self.tensors[&b].t())?,
            magnitude: lengths.transpose()?,
            scale: self.config.scale(target.rank, target.alpha),
            dropout: self.config.dropout,
            principal: self.config.principal && target.site.kind != Kind::Embedding,
            rows_only: false,
        })
    }

    /// New values of parameters, by path, and whether they train.
    fn values(&self, expected: &Expected, like: &Like) -> Result<BTreeMap<String, (Tensor, bool)>> {
        let mut values = BTreeMap::new();
        for (key, parameter) in &expected.tables {
            if let Some(tensor) = self.tensors.get(key) {
                values.insert(parameter.path.clone(), (like.copy(tensor)?, false));
            }
        }
        for parameter in &expected.whole {
            values.insert(parameter.path.clone(), (like.copy(&self.tensors[&parameter.name])?, true));
        }
        Ok(values)
    }
}

/// Replaces parameters; gives the paths of those that train.
fn replace(model: &mut Model, mut values: BTreeMap<String, (Tensor, bool)>) -> Vec<String> {
    let mut whole = Vec::new();
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        let path = path.to_string();
        let Some((value, trains)) = values.remove(&path) else { return };
        *parameter = Parameter::new(value);
        if trains {
            whole.push(path);
        } else {
            parameter.freeze();
        }
    });
    whole
}
