//! Adapters as the library loralib (Hu et al. 2021) leaves them, in safetensors.

use super::config::{CLASSIFICATION, Config};
use super::names::Names;
use super::sites::keys;
use super::{Adapter, regular};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::decode;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ENDS: [&str; 2] = [".lora_A", ".lora_B"];

/// Reads a file of loralib's `lora_state_dict`, saved as safetensors: `module.lora_A` [r, in] and `module.lora_B` [out, r],
/// and beside them the modules that were trained whole. It does not say alpha.
///
/// Errors: factors without partners or of unlike ranks, as merged maps of queries, keys and values have them; biases trained
/// beside adapters; an alpha that is no number; a file without adapters.
pub fn from_loralib(path: &Path, alpha: f64) -> Result<Adapter> {
    let problem = |problem: String| Error::Data { path: path.into(), problem };
    let mut factors: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
    let mut rest: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, array) in decode(&regular(path, u64::MAX)?, path, &Device::cpu())? {
        let tensor = Tensor::from_array(array);
        match ENDS.iter().position(|end| name.ends_with(end)) {
            Some(which) => {
                factors.entry(name[..name.len() - ENDS[which].len()].into()).or_default()[which] = Some(tensor)
            }
            None => drop(rest.insert(name, tensor)),
        }
    }
    if factors.is_empty() {
        return Err(problem("has no adapters: no tensor's name ends in .lora_A".into()));
    }
    let modules: BTreeSet<String> = factors.keys().cloned().collect();
    let (mut tensors, mut ranks) = (BTreeMap::new(), Vec::new());
    for (module, pair) in factors {
        let [Some(a), Some(b)] = pair else { return Err(problem(format!("{module} has one factor of two"))) };
        ranks.push((module.clone(), rank(&a, &b).ok_or_else(|| problem(unlike(&module, &a, &b)))?));
        let [up, down, _] = keys(&module, false);
        tensors.extend([(up, a), (down, b)]);
    }
    let whole = whole(&rest, &modules).map_err(problem)?;
    tensors.extend(rest);
    let mut config = Config::plain(Names::List(modules));
    config.settle(ranks.iter().map(|(module, rank)| (&**module, *rank, alpha / *rank as f64)));
    config.task_type = whole.contains("classifier").then(|| CLASSIFICATION.into());
    config.whole = whole.into_iter().collect();
    config.check()?;
    Ok(Adapter { folder: path.into(), config, tensors, labels: None })
}

fn rank(a: &Tensor, b: &Tensor) -> Option<usize> {
    match (&a.shape()[..], &b.shape()[..]) {
        ([rank, _], [_, same]) if rank == same && *rank > 0 => Some(*rank),
        _ => None,
    }
}

fn unlike(module: &str, a: &Tensor, b: &Tensor) -> String {
    let shapes = format!("lora_A {:?} and lora_B {:?}", a.shape(), b.shape());
    format!("{module} has {shapes}, which are no [r, in] and [out, r]: merged maps are not read")
}

/// The modules that the other tensors belong to: what their paths begin with.
fn whole(rest: &BTreeMap<String, Tensor>, modules: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for name in rest.keys() {
        let module = name.rsplit_once('.').map_or("", |(module, _)| module);
        if modules.contains(module) {
            return Err(format!("{name} was trained beside an adapter, which is not supported"));
        }
        let first = name.split('.').next().unwrap_or_default();
        let apart = !modules.iter().any(|module| module.split('.').next() == Some(first));
        found.insert(if apart { first } else { module }.to_string());
    }
    Ok(found)
}
