//! What a model has under the names that PEFT knows: modules that could have adapters, and parameters.

use super::config::Config;
use super::names::{Candidate, Names, by_pattern, named, targets};
use crate::error::Result;
use crate::lowrank::is_head;
use crate::module::{LinearMap, Module, Path};
use crate::nn::{Arch, Model};
use crate::shape::Shape;

/// What output heads over tokens are called.
pub(super) const HEADS: [&str; 3] = ["lm_head", "cls.predictions.decoder", "lm_head.decoder"];

/// A module that could have an adapter.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Path of the map here; of the table, for a head that is its transpose.
    pub path: String,
    /// Path of the module there.
    pub module: String,
    /// `in` and `out` of the module there.
    pub sizes: [usize; 2],
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A linear map inside the model.
    Inner,
    /// A table that is read by rows.
    Embedding,
    /// What makes the logits, of tokens or of classes, with weights of its own.
    Head,
    /// An output head that is the embedding's transpose: a module there, and none here.
    Tied,
}

/// A module that has an adapter.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub site: Site,
    pub rank: usize,
    pub alpha: f64,
}

/// A parameter, under the name that it has there.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub path: String,
    pub name: String,
    pub shape: Shape,
    pub trains: bool,
}

/// The path of the table that is the head's transpose, if the head has no weights of its own.
pub(super) fn tied_table(model: &Model) -> Option<&'static str> {
    let config = model.config();
    let table = match config.arch {
        Arch::Gpt2 => "wte",
        Arch::Llama => "model.embed_tokens",
        Arch::Bert | Arch::Roberta => "embeddings.word_embeddings",
    };
    (config.tied && config.labels.is_none()).then_some(table)
}

/// All modules that could have adapters, in the order of the model; a tied head last.
pub(super) fn sites(model: &Model) -> Vec<Site> {
    let mut all = Vec::new();
    // Maps are shown to be changed alone; a copy shares its values.
    let mut copy = model.clone();
    let config = model.config();
    copy.visit_maps(&Path::root(), &mut |path, map: &mut LinearMap| {
        let path = path.to_string();
        let kind = match map.is_embedding() {
            true => Kind::Embedding,
            false if is_head(&path) => Kind::Head,
            false => Kind::Inner,
        };
        all.push(Site { module: config.hub_name(&path), path, sizes: map.sizes(), kind });
    });
    let table = tied_table(model).and_then(|table| all.iter().find(|site| site.path == table));
    if let (Some(&Site { ref path, sizes: [input, output], .. }), Some(head)) = (table, config.hub_head()) {
        all.push(Site { path: path.clone(), module: head.into(), sizes: [output, input], kind: Kind::Tied });
    }
    all
}

/// Parameters that are no adapter's, in the order of the model.
pub(super) fn parameters(model: &Model) -> Vec<Named> {
    let of_adapter = |path: &str| path.rsplit('.').next().is_some_and(|last| last.starts_with("lora_"));
    let named = |(path, parameter): (String, crate::Parameter)| {
        let name = model.config().hub_name(&path);
        Named { name, shape: *parameter.tensor().shape(), trains: parameter.trains(), path }
    };
    model.parameters().into_iter().filter(|(path, _)| !of_adapter(path)).map(named).collect()
}

fn candidates(sites: &[Site]) -> Vec<Candidate<'_>> {
    sites.iter().map(|site| Candidate { module: &site.module, inner: site.kind == Kind::Inner }).collect()
}

/// Which modules these names mean.
pub(super) fn meant(names: &Names, sites: &[Site]) -> Result<Vec<bool>> {
    named(names, &candidates(sites))
}

/// Modules that a configuration gives adapters, with their ranks.
pub(super) fn chosen(config: &Config, sites: &[Site]) -> Result<Vec<Target>> {
    let candidates = candidates(sites);
    let mut meant = targets(config, &candidates)?;
    if config.tied {
        // The head goes with its table.
        let of = |kind: Kind| sites.iter().position(|site| site.kind == kind);
        let table = of(Kind::Tied).and_then(|head| sites.iter().position(|site| site.path == sites[head].path));
        if let (Some(head), Some(table)) = (of(Kind::Tied), table) {
            meant[head] |= meant[table];
        }
    }
    let modules: Vec<&str> = candidates.iter().map(|candidate| candidate.module).collect();
    let ranks = by_pattern(&config.ranks, &modules)?;
    let alphas = by_pattern(&config.alphas, &modules)?;
    let target = |i: usize| Target {
        site: sites[i].clone(),
        rank: ranks[i].unwrap_or(config.rank),
        alpha: alphas[i].unwrap_or(config.alpha),
    };
    Ok((0..sites.len()).filter(|i| meant[*i]).map(target).collect())
}

impl Target {
    /// The keys of its tensors, below the prefix: A [r, in], B [out, r], and lengths `[out]`.
    pub fn keys(&self) -> [String; 3] {
        let embedding = self.site.kind == Kind::Embedding;
        keys(&self.site.module, embedding)
    }
}

/// The keys of A, B and lengths of a module's adapter.
pub(super) fn keys(module: &str, embedding: bool) -> [String; 3] {
    let [a, b] = if embedding { ["lora_embedding_A", "lora_embedding_B"] } else { ["lora_A.weight", "lora_B.weight"] };
    [a, b, "lora_magnitude_vector"].map(|name| format!("{module}.{name}"))
}
