//! Writing a model in Hugging Face's layout.

use super::{CONFIG, shards::WHOLE};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::Files;
use crate::io::folder::{write_file, write_pieces, write_whole};
use crate::lowrank::{self, Factored, is_head};
use crate::module::{Dense, Module, Path as ModulePath};
use crate::nn::{Arch, Model, ModelConfig};
use crate::tensor::Tensor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes a folder, which must not exist yet, that [`open`](super::open) and `transformers` load: `config.json` and
/// `model.safetensors` in single precision, and the files `beside` (a tokenizer's, say). It appears whole or not at all.
///
/// A layer that is [factors](Factored) is written as such, which `transformers` does not know: `module.factor_in` [in,
/// rank] and `module.factor_out` [rank, out] in the place of `module.weight`, with the rank in `config.json` under
/// `eckart.ranks`.
///
/// Fails, with nothing written, if a layer is neither a plain matrix nor factors: adapters are to be merged and baked in
/// first.
pub fn save(model: &Model, folder: &Path, beside: &Files) -> Result<()> {
    check(model, folder, beside)?;
    let config = model.config().with_ranks_of(model).to_hugging_face();
    let config = serde_json::to_vec_pretty(&config).expect("names and numbers");
    let weights = weights(model);
    write_whole(folder, |scratch| {
        write_file(&scratch.join(CONFIG), &config)?;
        for (name, contents) in beside {
            write_file(&scratch.join(name), contents)?;
        }
        write_weights(&scratch.join(WHOLE), &weights)
    })
}

/// Puts dense matrices, as the layout stores them, in the place of factors, so that other programs know the model. Returns
/// the layers' paths.
pub fn multiply_out(model: &mut Model) -> Vec<String> {
    let config = model.config().clone();
    lowrank::multiply_out(model, &|path| is_transposed(&config, path))
}

fn check(model: &Model, folder: &Path, beside: &Files) -> Result<()> {
    let refused = |problem: String| Err(Error::Data { path: folder.into(), problem });
    if folder.exists() {
        return refused("is there already: choose another folder, or move it away".into());
    }
    let ours = [CONFIG, WHOLE];
    let foreign = |name: &&String| Path::new(name).file_name() != Some(name.as_ref()) || ours.contains(&name.as_str());
    if let Some(name) = beside.keys().find(foreign) {
        return refused(format!("{name:?} cannot be a further file of it"));
    }
    if !model.device().computes() {
        return Err(Error::Device("the null device has no weights to save".into()));
    }
    plain(model)
}

/// Whether the layout has a layer's matrix as [out, in]: a GPT-2's are the other way round, but for a classifier's.
fn is_transposed(config: &ModelConfig, path: &str) -> bool {
    config.arch != Arch::Gpt2 || is_head(path)
}

/// Every layer must be the matrix that the layout has, or factors.
fn plain(model: &Model) -> Result<()> {
    let mut other = None;
    model.clone().visit_maps(&ModulePath::root(), &mut |path, map| {
        let transposed = !map.is_embedding() && is_transposed(model.config(), &path.to_string());
        let plain = map.get::<Dense>().is_some_and(|dense| dense.transposed == transposed);
        if other.is_none() && !plain && map.get::<Factored>().is_none() {
            other = Some(path.to_string());
        }
    });
    let advice = "is no plain matrix: merge its adapter and bake it in first (lowrank::merge, lowrank::bake)";
    other.map_or(Ok(()), |path| Err(Error::Config(format!("{path} {advice}"))))
}

/// Under the files' names, in their order.
fn weights(model: &Model) -> BTreeMap<String, Tensor> {
    let name = |path: String| model.config().hub_name(&path);
    model.parameters().into_iter().map(|(path, parameter)| (name(path), parameter.tensor().detach())).collect()
}

/// One weight at a time, so that no second copy of all of them is made.
fn write_weights(path: &Path, weights: &BTreeMap<String, Tensor>) -> Result<()> {
    write_pieces(path, |write| {
        write(&header(weights))?;
        for weight in weights.values() {
            let host = weight.cast(DType::F32).array().to_host()?;
            write(bytemuck::cast_slice(host.slice::<f32>()))?;
        }
        Ok(())
    })
}

/// The table of contents, padded to whole words, behind its own length.
fn header(weights: &BTreeMap<String, Tensor>) -> Vec<u8> {
    // Files without this are refused by `transformers`.
    let mut table = Map::from_iter([("__metadata__".to_string(), json!({"format": "pt"}))]);
    let mut end = 0;
    for (name, weight) in weights {
        let start = end;
        end += weight.count() * size_of::<f32>();
        let entry = json!({"dtype": "F32", "shape": weight.shape()[..], "data_offsets": [start, end]});
        table.insert(name.clone(), entry);
    }
    let mut text = Value::Object(table).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
