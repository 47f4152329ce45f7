//! What the files hold, put in the place of a model's weights.

use super::cast::upload;
use super::shards::Shards;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::arrays::dtype_of;
use crate::module::{Module, Path as ModulePath};
use crate::nn::Model;
use crate::shape::Shape;
use crate::tensor::Tensor;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes that may be on their way to a device at a time: what a GPU's driver stages it holds until it has copied it.
const STAGED: usize = 256 << 20;

/// Weights by the model's paths.
type Found<'a> = BTreeMap<String, TensorView<'a>>;

/// Sets every weight of the model from the files; fails, with nothing read, if any is missing, unknown or does not fit.
pub fn load(model: &mut Model, shards: &Shards, folder: &Path, device: &Device) -> Result<()> {
    let contents = shards.contents()?;
    let mut problems = Vec::new();
    let mut found = Found::new();
    for (name, view) in contents.iter().flat_map(|file| file.tensors()) {
        let Some(path) = model.config().hub_path(&name) else { continue };
        if found.insert(path.into(), view).is_some() {
            problems.push(format!("{name} is there twice"));
        }
    }
    compare(model, &found, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Data { path: folder.into(), problem: problems.join("; ") });
    }
    set(model, &found, device)
}

/// All that is missing, unknown, or of another type or shape.
fn compare(model: &Model, found: &Found<'_>, problems: &mut Vec<String>) {
    let mut known = Vec::new();
    model.visit(&ModulePath::root(), &mut |path, parameter| {
        let (path, shape) = (path.to_string(), parameter.tensor().shape());
        match found.get(&path) {
            None => problems.push(format!("{path} is missing, the model has {shape:?}")),
            Some(view) => problems.extend(misfit(&path, view, shape)),
        }
        known.push(path);
    });
    known.sort_unstable();
    let extra = found.iter().filter(|(path, _)| known.binary_search(path).is_err());
    problems.extend(extra.map(|(path, view)| format!("{path} {:?} is not known", view.shape())));
}

fn misfit(path: &str, view: &TensorView<'_>, shape: &Shape) -> Option<String> {
    if view.shape() != &shape[..] {
        return Some(format!("{path} is {:?}, the model has {shape:?}", view.shape()));
    }
    let known = real(view).is_some();
    (!known).then(|| format!("{path} is of type {:?}: f32, f16, bf16 and f64 are read", view.dtype()))
}

fn real(view: &TensorView<'_>) -> Option<DType> {
    dtype_of(view.dtype()).filter(|dtype| *dtype != DType::U32)
}

fn set(model: &mut Model, found: &Found<'_>, device: &Device) -> Result<()> {
    let (mut staged, mut done) = (0, Ok(()));
    model.visit_mut(&ModulePath::root(), &mut |path, parameter| {
        if done.is_err() {
            return;
        }
        let view = &found[&path.to_string()];
        let from = real(view).expect("compared before");
        let array = upload(view.data(), from, *parameter.tensor().shape(), device);
        parameter.set(Tensor::from_array(array));
        staged += view.data().len();
        if staged > STAGED {
            (staged, done) = (0, device.wait());
        }
    });
    done
}
