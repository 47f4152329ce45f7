//! A model's adapters as PEFT reads them.

use super::Adapter;
use super::config::{CLASSIFICATION, Config};
use super::names::{Names, exactly};
use super::sites::{Kind, Named, Site, keys, parameters, sites, tied_table};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::lowrank::{Initial, Lora, each};
use crate::module::{Module, Parameter};
use crate::nn::{Arch, Model};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a file says of an adapter that the model does not know.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name or folder of the base.
    pub base_model: Option<String>,
    /// Whether alphas are to be read as divided by √r.
    pub rank_stabilised: bool,
    /// The first factors of adapters that took a part of their bases, from [`initial`](crate::lowrank::initial) right after
    /// [`adapt`](crate::lowrank::adapt()) or from [`Placed`](super::Placed).
    pub initial: Initial,
}

/// Writes a model's adapters, and modules that train whole, into a folder that is not there yet, so that PEFT reads them.
///
/// Adapters that took s A₀ B₀ from their bases are written as plain ones of twice the rank, A beside A₀ and B above −B₀,
/// which belong beside the bases as they were. An embedding's adapter that the head has too is written for both.
///
/// A model without adapters, first factors that are missing, and what PEFT's files cannot say (a parameter that trains in
/// a layer with an adapter, or that is of another kind) are errors, and nothing is written.
pub fn save(model: &Model, about: &About, folder: &Path) -> Result<()> {
    Adapter::of(model, about)?.write(folder)
}

/// A layer's adapter, as it is written.
struct Layer {
    site: Site,
    /// A [r, in].
    a: Tensor,
    /// B [out, r].
    b: Tensor,
    lengths: Option<Tensor>,
    scale: f64,
    dropout: f64,
}

impl Layer {
    fn of(map: &Lora, site: &Site, about: &About) -> Result<Layer> {
        let host = |tensor: &Tensor| tensor.detach().to_device(&Device::cpu());
        let [mut a, mut b] = [host(map.a().tensor())?.t(), host(map.b().tensor())?.t()];
        if map.moved_base() {
            let problem = || {
                let problem = "its start took a part of the base, and its first factors are not given";
                Error::Config(format!("{}: {problem}: take them with lowrank::initial right after adapt", site.path))
            };
            let [first_a, first_b] = about.initial.get(&site.path).ok_or_else(problem)?;
            let [first_a, first_b] = [host(first_a)?.t(), host(first_b)?.t() * -1.0];
            (a, b) = (Tensor::concat(&[&a, &first_a], 0), Tensor::concat(&[&b, &first_b], 1));
        }
        let lengths = map.magnitude().map(|lengths| host(lengths.tensor())).transpose()?;
        Ok(Layer { site: site.clone(), a, b, lengths, scale: map.scale(), dropout: map.dropout() })
    }

    fn rank(&self) -> usize {
        self.a.shape()[0]
    }

    /// The head's, where it is the table's transpose.
    fn turned(&self, head: &Site) -> Layer {
        Layer { site: head.clone(), a: self.b.t(), b: self.a.t(), lengths: None, ..*self }
    }
}

impl Adapter {
    /// A model's adapters, and modules that train whole, as [`save`] writes them.
    pub fn of(model: &Model, about: &About) -> Result<Adapter> {
        let layers = layers(model, about)?;
        let mut tensors = BTreeMap::new();
        for layer in &layers {
            let [a, b, lengths] = keys(&layer.site.module, layer.site.kind == Kind::Embedding);
            tensors.extend([(a, layer.a.contiguous()), (b, layer.b.contiguous())]);
            tensors.extend(layer.lengths.clone().map(|value| (lengths, value)));
        }
        let whole = whole(model, &layers)?;
        for (name, value) in &whole.parameters {
            tensors.insert(name.clone(), value.to_device(&Device::cpu())?);
        }
        let dora = layers.iter().any(|layer| layer.lengths.is_some());
        let dropout = layers[0].dropout;
        let mixed = layers.iter().any(|layer| layer.lengths.is_some() != dora || layer.dropout != dropout);
        if mixed {
            let problem = "some adapters have lengths (DoRA) or a dropout that others have not";
            return Err(Error::Config(format!("{problem}: PEFT's files have one setting for all")));
        }
        let targets = Names::List(layers.iter().map(|layer| layer.site.module.clone()).collect());
        let mut config = Config {
            base_model: about.base_model.clone(),
            rank_stabilised: about.rank_stabilised,
            dora,
            whole: whole.modules.into_iter().collect(),
            dropout,
            fan_in_fan_out: model.config().arch == Arch::Gpt2,
            task_type: task_type(model).map(str::to_owned),
            ..Config::plain(targets)
        };
        config.settle(layers.iter().map(|layer| (&*layer.site.module, layer.rank(), layer.scale)));
        Ok(Adapter { folder: Default::default(), config, tensors, labels: model.config().labels.clone() })
    }
}

/// What PEFT calls the model's task; it has no name for masked language modelling.
fn task_type(model: &Model) -> Option<&'static str> {
    match (&model.config().labels, model.config().arch.is_encoder()) {
        (Some(_), _) => Some(CLASSIFICATION),
        (None, false) => Some("CAUSAL_LM"),
        (None, true) => None,
    }
}

impl Config {
    /// Says ranks and factors of modules: what most have for all, and the others by their whole names.
    pub(super) fn settle<'a>(&mut self, modules: impl Iterator<Item = (&'a str, usize, f64)>) {
        let alpha = |(module, rank, scale)| (module, rank, self.alpha_for(rank, scale));
        let modules: Vec<(&str, usize, f64)> = modules.map(alpha).collect();
        let rank = most(modules.iter().map(|(_, rank, _)| *rank as u64)) as usize;
        let alpha = f64::from_bits(most(modules.iter().map(|(.., alpha)| alpha.to_bits())));
        (self.rank, self.alpha) = (rank, alpha);
        let other = modules.iter().filter(|(_, own, _)| *own != rank);
        self.ranks = other.map(|(module, rank, _)| (exactly(module), *rank)).collect();
        let other = modules.iter().filter(|(.., own)| *own != alpha);
        self.alphas = other.map(|(module, _, alpha)| (exactly(module), *alpha)).collect();
    }
}

/// What occurs most often; the smallest of several.
fn most(values: impl Iterator<Item = u64>) -> u64 {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().rev().max_by_key(|(_, count)| *count).expect("an adapter has layers").0
}

/// All layers with adapters, and the head's part of the embedding's.
fn layers(model: &Model, about: &About) -> Result<Vec<Layer>> {
    let sites = sites(model);
    let tied = sites.iter().find(|site| site.kind == Kind::Tied);
    let mut found = Vec::new();
    each::<Lora>(&mut model.clone(), |path, map| {
        // One that never grew changes nothing.
        if map.rank() == 0 {
            return;
        }
        let site = sites.iter().find(|site| site.path == path).expect("the same walk found it");
        let layer = Layer::of(map, site, about);
        let head = tied.filter(|head| head.path == path && !map.rows_only());
        if let (Ok(layer), Some(head)) = (&layer, head) {
            found.push(match layer.lengths {
                None => Ok(layer.turned(head)),
                Some(_) => {
                    Err(Error::Config(format!("{path}: the head shares its lengths (DoRA), which PEFT has not")))
                }
            });
        }
        found.push(layer);
    });
    let found = found.into_iter().collect::<Result<Vec<Layer>>>()?;
    match found.is_empty() {
        true => Err(Error::Config("the model has no adapters to save: lowrank::adapt puts them on".into())),
        false => Ok(found),
    }
}

/// Modules that train whole, and all their parameters.
struct Whole {
    modules: BTreeSet<String>,
    parameters: BTreeMap<String, Tensor>,
}

fn whole(model: &Model, layers: &[Layer]) -> Result<Whole> {
    let all = parameters(model);
    let module = |name: &str| match name.rsplit_once('.') {
        // PEFT takes a classifier as a whole, also one of several maps.
        Some((module, _)) if module.starts_with("classifier.") => "classifier".to_string(),
        Some((module, _)) => module.to_string(),
        None => String::new(),
    };
    let mut modules = BTreeSet::new();
    for one in all.iter().filter(|one| one.trains) {
        let module = module(&one.name);
        let problem = |text: &str| Err(Error::Config(format!("{} trains, {text}", one.path)));
        if layers.iter().any(|layer| layer.site.module == module) {
            return problem("and its layer has an adapter: PEFT's files have one or the other, freeze it");
        }
        if !(one.name.ends_with(".weight") || one.name.ends_with(".bias")) {
            return problem("which PEFT's files have no place for: freeze it, or save a checkpoint");
        }
        modules.insert(module);
    }
    let values: BTreeMap<String, Parameter> = model.parameters().into_iter().collect();
    let held = all.iter().filter(|one| modules.contains(&module(&one.name)));
    let value = |one: &Named| (one.name.clone(), values[&one.path].tensor().detach());
    let mut parameters: BTreeMap<String, Tensor> = held.map(value).collect();
    // A head that is the embedding's transpose learns with it.
    let table = tied_table(model).map(|table| format!("{}.weight", model.config().hub_name(table)));
    let shared = table.and_then(|table| parameters.get(&table).cloned());
    if let (Some(value), Some(head)) = (shared, model.config().hub_head()) {
        if model.config().arch.is_encoder() {
            let problem = "which the head shares, whose bias PEFT's files would have to hold too: freeze it";
            return Err(Error::Config(format!("embeddings.word_embeddings trains, {problem}")));
        }
        modules.insert(head.into());
        parameters.insert(format!("{head}.weight"), value);
    }
    Ok(Whole { modules, parameters })
}
