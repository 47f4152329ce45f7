//! What the files hold, put in the place of a model's weights.

use super::cast::{element, upload};
use super::shards::{Entry, Shards};
use crate::device::Device;
use crate::dtype::DType;
use crate::element;
use crate::error::{Error, Result};
use crate::io::arrays::dtype_of;
use crate::lowrank::{ALL_LINEAR, Quantised, chosen};
use crate::module::{Dense, LinearMap, Module, Parameter, Path as ModulePath};
use crate::nn::Model;
use crate::ops::quantised::Format;
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Bytes that may be on their way to a device at a time: what a GPU's driver stages it holds until it has copied it.
const STAGED: usize = 256 << 20;

/// Weights by the model's paths.
type Found = BTreeMap<String, Entry>;

/// What the files have for a model and was not put in its place yet.
pub struct Weights<'a> {
    shards: &'a Shards,
    device: &'a Device,
    found: Found,
    /// Bytes on their way to the device.
    staged: usize,
}

impl<'a> Weights<'a> {
    /// Finds every weight of the model; fails, with nothing read, if any is missing, unknown or does not fit. Gives the
    /// paths of a head that they lack as well, if they may.
    pub fn of(
        model: &Model,
        shards: &'a Shards,
        folder: &Path,
        headless: bool,
        device: &'a Device,
    ) -> Result<(Weights<'a>, Vec<String>)> {
        let mut problems = Vec::new();
        let mut found = Found::new();
        for (name, entry) in shards.contents()? {
            let Some(path) = model.config().hub_path(&name) else { continue };
            if found.insert(path, entry).is_some() {
                problems.push(format!("{name} is there twice"));
            }
        }
        let fresh = compare(model, &found, headless, &mut problems);
        if !problems.is_empty() {
            return Err(Error::Data { path: folder.into(), problem: problems.join("; ") });
        }
        Ok((Weights { shards, device, found, staged: 0 }, fresh))
    }

    /// Sets what was not set yet of a model, or of the part of it at `path`.
    pub fn set(&mut self, path: &ModulePath, part: &mut dyn Module) -> Result<()> {
        let mut done = Ok(());
        part.visit_mut(path, &mut |path, parameter| {
            let entry = if done.is_ok() { self.found.remove(&path.to_string()) } else { None };
            if let Some(entry) = entry {
                done = self.set_one(parameter, &entry);
            }
        });
        done
    }

    /// Sets the linear map at `wanted`.
    pub fn set_map(&mut self, model: &mut Model, wanted: &str) -> Result<()> {
        let mut done = Ok(());
        model.visit_maps(&ModulePath::root(), &mut |path, map| {
            if path.to_string() == wanted {
                done = self.set(path, map);
            }
        });
        done
    }

    /// Sets all linear layers but embeddings and head, in fewer bits; those that are factors stay for later.
    pub fn set_in(&mut self, format: Format, model: &mut Model) -> Result<()> {
        let layers = chosen(model, &[ALL_LINEAR])?;
        let mut done = Ok(());
        model.visit_maps(&ModulePath::root(), &mut |path, map| {
            if done.is_ok() && layers.contains(&path.to_string()) && self.has(path) && map.get::<Dense>().is_some() {
                done = self.packed(&path.to_string(), map, format).map(|packed| map.replace(|_| packed));
            }
        });
        done
    }

    /// Whether the files have a weight for the layer at `path` that was not set yet.
    fn has(&self, path: &ModulePath) -> bool {
        self.found.contains_key(&format!("{path}.weight"))
    }

    fn packed(&mut self, path: &str, map: &LinearMap, format: Format) -> Result<Quantised> {
        let entry = self.found.remove(&format!("{path}.weight")).expect("compared before");
        let (from, bytes) = (real(&entry).expect("compared before"), self.shards.bytes(&entry)?);
        let packed = element!(from, T => {
            Quantised::read(path, map, format, self.device, |i| element::<T>(&bytes, i))
        })?;
        self.stage(packed.parameters().iter().map(|(_, parameter)| parameter.tensor().spec().bytes()).sum())?;
        Ok(packed)
    }

    fn set_one(&mut self, parameter: &mut Parameter, entry: &Entry) -> Result<()> {
        let (from, shape) = (real(entry).expect("compared before"), *parameter.tensor().shape());
        let bytes = self.shards.bytes(entry)?;
        parameter.set(Tensor::from_array(upload(&bytes, from, shape, self.device)));
        self.stage(parameter.tensor().spec().bytes())
    }

    fn stage(&mut self, bytes: usize) -> Result<()> {
        self.staged += bytes;
        if self.staged <= STAGED {
            return Ok(());
        }
        self.staged = 0;
        self.device.wait()
    }
}

/// All that is missing, unknown, or of another type or shape. Gives what may be missing: the parts of a head of which there
/// is nothing.
fn compare(model: &Model, found: &Found, headless: bool, problems: &mut Vec<String>) -> Vec<String> {
    let (mut known, mut fresh) = (Vec::new(), Vec::new());
    let first = |path: &str| path.split('.').next().unwrap_or_default().to_string();
    let parts: BTreeSet<String> = found.keys().map(|path| first(path)).collect();
    model.visit(&ModulePath::root(), &mut |path, parameter| {
        let (path, shape) = (path.to_string(), parameter.tensor().shape());
        match found.get(&path) {
            None if headless && model.config().is_of_head(&path) && !parts.contains(&first(&path)) => {
                fresh.push(path.clone());
            }
            None => problems.push(format!("{path} is missing, the model has {shape:?}")),
            Some(entry) => problems.extend(misfit(&path, entry, shape)),
        }
        known.push(path);
    });
    known.sort_unstable();
    let extra = found.iter().filter(|(path, _)| known.binary_search(path).is_err());
    problems.extend(extra.map(|(path, entry)| format!("{path} {:?} is not known", entry.shape)));
    fresh
}

fn misfit(path: &str, entry: &Entry, shape: &Shape) -> Option<String> {
    if entry.shape != shape[..] {
        return Some(format!("{path} is {:?}, the model has {shape:?}", entry.shape));
    }
    let known = real(entry).is_some();
    (!known).then(|| format!("{path} is of type {:?}: f32, f16, bf16 and f64 are read", entry.dtype))
}

fn real(entry: &Entry) -> Option<DType> {
    dtype_of(entry.dtype).filter(|dtype| *dtype != DType::U32)
}
