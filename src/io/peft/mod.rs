//! Adapters as the library PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! A [r, in] and B [out, r] there are Aᵀ and Bᵀ here. A configuration names layers by lists or regular expressions, and ranks
//! and alphas by regular expressions of which the first that matches counts; both are read as PEFT reads them (0.21). What
//! would change numbers and is not known here is refused by name.

mod banks;
mod config;
mod faults;
mod inspect;
mod json;
mod loralib;
mod names;
mod place;
mod save;
mod sites;

pub use banks::bank;
pub use config::Config;
pub use inspect::{Budget, LayerReport};
pub use loralib::from_loralib;
pub use names::Names;
pub use place::Placed;
pub use save::{About, save};

use super::{Files, decode, encode, write_plain};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// Names of the classes of a classifier: a file of ours, which PEFT passes over as it has none.
const LABELS: &str = "labels.json";

/// What PEFT puts before every path.
const PREFIX: &str = "base_model.model.";

/// Bytes of a configuration that are read.
const LONGEST_CONFIG: u64 = 1 << 20;

/// An adapter as it was read, or as it will be written, on the host.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Where it came from, for messages.
    pub folder: PathBuf,
    /// What it is for.
    pub config: Config,
    /// Its tensors by their names in the file, without `base_model.model.`, in the types that they are stored in.
    pub tensors: BTreeMap<String, Tensor>,
    /// Names of the classes, if it was written here for a model that classifies.
    pub labels: Option<Vec<String>>,
}

/// Reads an adapter's folder. Whether its tensors fit each other and a model is another question: see [`Adapter::check`].
///
/// A file that is not there, too long, or no configuration or tensors: an error that says what is wrong.
pub fn open(folder: &Path) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    let problem = |problem: String| Error::Data { path: path.clone(), problem };
    let bytes = regular(&path, LONGEST_CONFIG)?;
    let config = Config::from_json(&bytes).map_err(|error| problem(error.to_string()))?;
    drop(bytes);
    let path = folder.join(TENSORS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        let problem = "is not there, adapter_model.bin is: save it again with safe_serialization=True".into();
        return Err(Error::Data { path, problem });
    }
    let arrays = decode(&regular(&path, u64::MAX)?, &path, &Device::cpu())?;
    let mut tensors = BTreeMap::new();
    for (name, array) in arrays {
        let short = name.strip_prefix(PREFIX).unwrap_or(&name).to_string();
        if tensors.insert(short, Tensor::from_array(array)).is_some() {
            return Err(Error::Data { path, problem: format!("{name} is there with and without {PREFIX}") });
        }
    }
    Ok(Adapter { folder: folder.into(), config, tensors, labels: labels(&folder.join(LABELS))? })
}

fn labels(path: &Path) -> Result<Option<Vec<String>>> {
    if !path.exists() {
        return Ok(None);
    }
    let problem = |error: serde_json::Error| Error::Data { path: path.into(), problem: error.to_string() };
    serde_json::from_slice(&regular(path, LONGEST_CONFIG)?).map(Some).map_err(problem)
}

/// The contents of a file, which is neither a folder nor a pipe.
fn regular(path: &Path, longest: u64) -> Result<Vec<u8>> {
    let about = std::fs::metadata(path).map_err(Error::file(path))?;
    let problem = |problem: String| Err(Error::Data { path: path.into(), problem });
    if !about.is_file() {
        return problem("is no file".into());
    }
    if about.len() > longest {
        return problem(format!("has {} bytes; at most {longest} are read", about.len()));
    }
    super::read(path)
}

impl Adapter {
    /// Names of the classes that a model tells apart with it: those of the classifier trained beside it, which the model's own
    /// are taken for where it has no names and as many; `LABEL_0` and so on where only their number is known; and the model's
    /// if it has no classifier.
    pub fn classes(&self, of_model: Option<&[String]>) -> Option<Vec<String>> {
        let heads = ["score.weight", "classifier.weight", "classifier.out_proj.weight"];
        let rows = || heads.iter().find_map(|head| self.tensors.get(*head)?.shape().first().copied());
        let Some(rows) = rows().filter(|_| self.config.classifies()) else { return of_model.map(<[String]>::to_vec) };
        let known = [self.labels.as_deref(), of_model].into_iter().flatten().find(|names| names.len() == rows);
        Some(known.map_or_else(|| (0..rows).map(|number| format!("LABEL_{number}")).collect(), <[String]>::to_vec))
    }

    /// Writes both files, and the names of classes if there are some, into a folder that is not there yet; its parent must
    /// be. The folder appears whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            return Err(Error::Config(format!("{} is there already: give a folder that is not", folder.display())));
        }
        let tensors: Vec<Tensor> = self.tensors.values().map(Tensor::contiguous).collect();
        let named = self.tensors.keys().zip(&tensors).map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.array()));
        let mut files = Files::from([(CONFIG.into(), self.config.to_json()), (TENSORS.into(), encode(named)?)]);
        if let Some(labels) = &self.labels {
            files.insert(LABELS.into(), serde_json::to_vec_pretty(labels).expect("names"));
        }
        write_plain(folder, &files)
    }
}

/// The paths of a model's layers that a text means as PEFT would take it: `all-linear`, names or ends of names with commas
/// between them, or a regular expression for whole names. Names are those of Hugging Face's files; to be used as
/// [`AdapterConfig::targets`](crate::lowrank::AdapterConfig).
///
/// A name or an expression that means no layer is an error that says which there are.
pub fn targets(model: &Model, text: &str) -> Result<Vec<String>> {
    let names = Names::parse(text)?;
    let sites: Vec<sites::Site> = sites::sites(model).into_iter().filter(|s| s.kind != sites::Kind::Tied).collect();
    let each = match &names {
        Names::List(names) => names.iter().map(|name| Names::List([name.clone()].into())).collect(),
        other => vec![other.clone()],
    };
    let mut meant = vec![false; sites.len()];
    for names in &each {
        let found = sites::meant(names, &sites)?;
        if !found.contains(&true) {
            return Err(Error::Config(faults::no_layer(&names.words(), &sites)));
        }
        meant.iter_mut().zip(found).for_each(|(meant, found)| *meant |= found);
    }
    let chosen: Vec<String> = sites.into_iter().zip(meant).filter(|(_, meant)| *meant).map(|(s, _)| s.path).collect();
    match chosen.is_empty() {
        true => Err(Error::Config("no layer is named: give all-linear, names, or a regular expression".into())),
        false => Ok(chosen),
    }
}
