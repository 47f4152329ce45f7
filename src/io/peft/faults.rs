//! What is wrong with an adapter: by itself, and for a model.

use super::Adapter;
use super::names::by_pattern;
use super::sites::{Kind, Named, Site, Target, chosen, keys, parameters, sites, tied_table};
use crate::dtype::{DType, Element};
use crate::element;
use crate::error::Result;
use crate::nn::Model;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// What a model expects of an adapter.
pub(super) struct Expected {
    pub targets: Vec<Target>,
    /// Parameters that the adapter has whole; of a tied head, with the path of the table.
    pub whole: Vec<Named>,
    /// Weights of embeddings and heads, which may be there too and then replace the model's: key and parameter.
    pub tables: Vec<(String, Named)>,
    sites: Vec<Site>,
}

impl Adapter {
    /// All that is wrong with the adapter, in words, one for each fault; with a model, all that keeps it from being
    /// [put on](Adapter::put_on) too.
    pub fn check(&self, model: Option<&Model>) -> Vec<String> {
        let found = match model {
            None => self.pairs(),
            Some(model) => self.expected(model).map(|expected| self.faults(&expected)),
        };
        let mut faults = found.unwrap_or_else(|error| vec![error.to_string()]);
        faults.extend(self.tensors.iter().filter_map(|(name, tensor)| not_finite(name, tensor)));
        faults
    }

    pub(super) fn expected(&self, model: &Model) -> Result<Expected> {
        let sites = sites(model);
        let targets = chosen(&self.config, &sites)?;
        let mut all = parameters(model);
        if let (Some(table), Some(head)) = (tied_table(model), model.config().hub_head()) {
            let weight = all.iter().find(|one| one.path == format!("{table}.weight")).cloned();
            all.extend(weight.map(|weight| Named { name: format!("{head}.weight"), ..weight }));
        }
        let mut tables = Vec::new();
        for site in sites.iter().filter(|site| site.kind != Kind::Inner) {
            let weight = all.iter().find(|one| one.name == format!("{}.weight", site.module));
            let targeted = targets.iter().any(|target| target.site.module == site.module);
            let key = if targeted { "base_layer.weight" } else { "weight" };
            tables.extend(weight.map(|weight| (format!("{}.{key}", site.module), weight.clone())));
        }
        let whole = all.into_iter().filter(|one| is_whole(&self.config.whole, &one.name)).collect();
        Ok(Expected { targets, whole, tables, sites })
    }

    fn faults(&self, expected: &Expected) -> Vec<String> {
        let mut faults = Vec::new();
        if expected.targets.is_empty() {
            faults.push(no_layer(&self.config.targets.words(), &expected.sites));
        }
        for name in self.config.whole.iter().filter(|name| !self.config.is_usual(name)) {
            let meant = |one: &Named| is_whole(std::slice::from_ref(name), &one.name);
            if !expected.whole.iter().any(meant) {
                faults.push(format!("modules_to_save: the model has no module that ends with {name:?}"));
            }
        }
        let wanted = self.wanted(expected);
        for (key, shape) in &wanted {
            match self.tensors.get(key) {
                None => faults.push(format!("{key} is missing: {shape:?}")),
                Some(found) if found.shape()[..] != shape[..] => {
                    faults.push(format!("{key} is {:?}, the model takes {shape:?}", found.shape()));
                }
                Some(_) => {}
            }
        }
        for (key, named) in &expected.tables {
            let Some(found) = self.tensors.get(key).filter(|_| !wanted.contains_key(key)) else { continue };
            if found.shape() != &named.shape {
                faults.push(format!("{key} is {:?}, the model takes {:?}", found.shape(), named.shape));
            }
        }
        let known = |key: &String| wanted.contains_key(key) || expected.tables.iter().any(|(table, _)| table == key);
        let extra = self.tensors.iter().filter(|(key, _)| !known(key));
        let modules: BTreeSet<&str> = expected.sites.iter().map(|site| &*site.module).collect();
        let mut lacking = BTreeSet::new();
        for (key, tensor) in extra {
            faults.push(format!("{key} {:?} is not asked for by the configuration", tensor.shape()));
            lacking.extend(part_of(key).map(|(module, _)| module).filter(|module| !modules.contains(module)));
        }
        if !lacking.is_empty() {
            let [lacking, there] = [lacking, modules].map(|set| set.into_iter().collect::<Vec<_>>().join(", "));
            faults.push(format!("the model has no layers {lacking}; it has {there}"));
        }
        faults.extend(self.tied_faults(expected));
        faults
    }

    /// Keys that have to be there, with their shapes.
    fn wanted(&self, expected: &Expected) -> BTreeMap<String, Vec<usize>> {
        let mut wanted = BTreeMap::new();
        for target in &expected.targets {
            let ([a, b, lengths], [input, output]) = (target.keys(), target.site.sizes);
            wanted.insert(a, vec![target.rank, input]);
            wanted.insert(b, vec![output, target.rank]);
            if self.config.dora {
                wanted.insert(lengths, vec![output]);
            }
        }
        wanted.extend(expected.whole.iter().map(|one| (one.name.clone(), one.shape.to_vec())));
        wanted
    }

    /// Where the head is the embedding's transpose, what the adapter has for one has to be what it has for the other.
    fn tied_faults(&self, expected: &Expected) -> Vec<String> {
        let Some(head) = expected.sites.iter().find(|site| site.kind == Kind::Tied) else { return Vec::new() };
        let table = expected.sites.iter().find(|site| site.path == head.path).expect("a tied head has a table");
        let target = |site: &Site| expected.targets.iter().find(|target| target.site.module == site.module);
        let get = |key: &String| self.tensors.get(key);
        let apart = |what: &str| {
            let name = &head.module;
            let problem = format!("{name} has {what} of its own here, and is the embedding's transpose in the model");
            vec![format!("{problem}: untie the model's head first, where it can be")]
        };
        if let Some(above) = target(head) {
            let same = target(table).is_some_and(|below| {
                let ([a, b, _], [up, down, _]) = (above.keys(), below.keys());
                let scale = |target: &Target| self.config.scale(target.rank, target.alpha);
                let turned = |key: &String, other: &String| match (get(key), get(other)) {
                    (Some(one), Some(other)) => one.shape().len() == 2 && equal(&one.t(), other),
                    _ => true,
                };
                turned(&a, &down) && turned(&b, &up) && scale(above) == scale(below) && !self.config.dora
            });
            if !same {
                return apart("an adapter");
            }
        }
        let weight = |key: &str| {
            let given = get(&format!("{}.{key}", head.module));
            given.is_some_and(|given| get(&format!("{}.{key}", table.module)).is_none_or(|other| !equal(given, other)))
        };
        let saved = |site: &Site| is_whole(&self.config.whole, &format!("{}.weight", site.module));
        // A table that was trained whole leaves the head as it was, unless that has the same.
        let split = saved(table) && !saved(head);
        if weight("weight") || weight("base_layer.weight") || split { apart("weights") } else { Vec::new() }
    }

    /// What is wrong with the adapter whatever the model is.
    fn pairs(&self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let modules: Vec<&str> = self.modules().into_iter().collect();
        let ranks = by_pattern(&self.config.ranks, &modules)?;
        by_pattern(&self.config.alphas, &modules)?;
        for (module, rank) in modules.into_iter().zip(ranks) {
            let rank = rank.unwrap_or(self.config.rank);
            let [a, b, lengths] = keys(module, self.is_embedding(module));
            for (key, side) in [(&a, 0), (&b, 1)] {
                match self.tensors.get(key).map(Tensor::shape) {
                    None => faults.push(format!("{key} is missing")),
                    Some(shape) if shape.len() != 2 || shape[side] != rank => {
                        faults.push(format!("{key} is {shape:?}, the configuration says rank {rank}"));
                    }
                    Some(_) => {}
                }
            }
            if self.config.dora != self.tensors.contains_key(&lengths) {
                let what = if self.config.dora { "is missing" } else { "is there without use_dora" };
                faults.push(format!("{lengths} {what}"));
            }
        }
        if self.modules().is_empty() {
            faults.push("there is no adapter in the file".into());
        }
        Ok(faults)
    }

    /// Modules that have a tensor of an adapter.
    pub(super) fn modules(&self) -> BTreeSet<&str> {
        let part = |key| part_of(key).filter(|(_, part)| *part != "base_layer.weight");
        self.tensors.keys().filter_map(|key| part(key)).map(|(module, _)| module).collect()
    }

    pub(super) fn is_embedding(&self, module: &str) -> bool {
        keys(module, true)[..2].iter().any(|key| self.tensors.contains_key(key))
    }
}

/// Whether a parameter lies in a module whose path ends with one of these: PEFT asks for no dot before the end.
fn is_whole(names: &[String], parameter: &str) -> bool {
    let modules = parameter.match_indices('.').map(|(dot, _)| &parameter[..dot]);
    modules.into_iter().any(|module| names.iter().any(|name| module.ends_with(name.as_str())))
}

const PARTS: [&str; 6] = [
    "lora_A.weight",
    "lora_B.weight",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "base_layer.weight",
];

/// The module and the part of its adapter that a key names.
fn part_of(key: &str) -> Option<(&str, &'static str)> {
    PARTS.into_iter().find_map(|part| Some((key.strip_suffix(part)?.strip_suffix('.')?, part)))
}

/// A name that means nothing, and what there is.
pub(super) fn no_layer(name: &str, sites: &[Site]) -> String {
    let there: Vec<&str> = sites.iter().filter(|s| s.kind != Kind::Tied).map(|site| &*site.module).collect();
    format!("target_modules {name}: no layer is meant; there are {}", there.join(", "))
}

/// Where a tensor is no number, if it is not everywhere one.
fn not_finite(name: &str, tensor: &Tensor) -> Option<String> {
    if tensor.dtype() == DType::U32 {
        return Some(format!("{name} has whole numbers, u32: adapters have f16, bf16, f32 or f64"));
    }
    let tensor = tensor.contiguous();
    let array = tensor.array();
    let bad = element!(tensor.dtype(), T => array.slice::<T>().iter().position(|x| !Element::to_f64(*x).is_finite()));
    bad.map(|i| format!("{name} {:?} is not finite at element {i}", tensor.shape()))
}

/// Whether two tensors on the host have the same values, whatever their strides.
fn equal(a: &Tensor, b: &Tensor) -> bool {
    let bytes = |tensor: &Tensor| {
        let tensor = tensor.contiguous();
        element!(tensor.dtype(), T => bytemuck::cast_slice::<T, u8>(tensor.array().slice()).to_vec())
    };
    a.spec() == b.spec() && bytes(a) == bytes(b)
}
