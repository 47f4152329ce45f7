//! What the files hold, put in the place of a model's weights.

use super::cast::upload;
use super::shards::{Entry, Shards};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::arrays::dtype_of;
use crate::module::{Module, Parameter, Path as ModulePath};
use crate::nn::Model;
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Bytes that may be on their way to a device at a time: what a GPU's driver stages it holds until it has copied it.
const STAGED: usize = 256 << 20;

/// Weights by the model's paths.
pub type Found = BTreeMap<String, Entry>;

/// Sets every weight of the model from the files; fails, with nothing read, if any is missing, unknown or does not fit.
///
/// With a seed the files may lack a head: it is fresh then, and the paths of its parameters are what is returned.
pub fn load(
    model: &mut Model,
    shards: &Shards,
    folder: &Path,
    head: Option<Seed>,
    device: &Device,
) -> Result<Vec<String>> {
    let (found, fresh) = table(model, shards, folder, head.is_some())?;
    if let Some(seed) = head.filter(|_| !fresh.is_empty()) {
        model.renew_head(seed, device);
    }
    set(model, shards, &found, device)?;
    Ok(fresh)
}

/// What the files hold for the model, and the paths of a head that they lack, if that is allowed.
pub fn table(model: &Model, shards: &Shards, folder: &Path, headless: bool) -> Result<(Found, Vec<String>)> {
    let mut problems = Vec::new();
    let mut found = Found::new();
    for (name, entry) in shards.contents()? {
        let Some(path) = model.config().hub_path(&name) else { continue };
        if found.insert(path, entry).is_some() {
            problems.push(format!("{name} is there twice"));
        }
    }
    let fresh = compare(model, &found, headless, &mut problems);
    match problems.is_empty() {
        true => Ok((found, fresh)),
        false => Err(Error::Data { path: folder.into(), problem: problems.join("; ") }),
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

fn set(model: &mut Model, shards: &Shards, found: &Found, device: &Device) -> Result<()> {
    let (mut staged, mut done) = (0, Ok(()));
    model.visit_mut(&ModulePath::root(), &mut |path, parameter| {
        let entry = found.get(&path.to_string());
        if let (Ok(()), Some(entry)) = (&done, entry) {
            done = set_one(parameter, shards, entry, device);
            staged += parameter.tensor().spec().bytes();
        }
        if done.is_ok() && staged > STAGED {
            (staged, done) = (0, device.wait());
        }
    });
    done
}

fn set_one(parameter: &mut Parameter, shards: &Shards, entry: &Entry, device: &Device) -> Result<()> {
    let (from, shape) = (real(entry).expect("compared before"), *parameter.tensor().shape());
    let bytes = shards.bytes(entry)?;
    parameter.set(Tensor::from_array(upload(&bytes, from, shape, device)));
    Ok(())
}
