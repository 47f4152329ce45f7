//! Which layers are meant.

use crate::error::{Error, Result};
use crate::module::{Map, Module, Path};
use std::collections::BTreeSet;

/// All layers but embeddings and the head.
pub const ALL_LINEAR: &str = "all-linear";

/// All layers, embeddings and head with them.
pub const ALL: &str = "all";

/// Whether what lies at this path makes the logits, with weights of its own: over tokens `lm_head`, over classes `score` or
/// `classifier`, which in a RoBERTa has two maps.
pub fn is_head(path: &str) -> bool {
    means("lm_head", path) || matches!(path, "score" | "classifier") || path.starts_with("classifier.")
}

/// A linear map's place in a model.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub path: String,
    pub embedding: bool,
}

/// Whether a name is this path, or the end of it behind a dot, as in PEFT's `target_modules`.
pub(super) fn means(name: &str, path: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

impl Place {
    pub fn is_meant(&self, name: &str) -> bool {
        match name {
            ALL => true,
            ALL_LINEAR => !self.embedding && !is_head(&self.path),
            name => means(name, &self.path),
        }
    }
}

/// Places of all linear maps, in the order of the model.
pub(super) fn places(model: &mut dyn Module) -> Vec<Place> {
    let mut all = Vec::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        all.push(Place { path: path.to_string(), embedding: map.is_embedding() });
    });
    all
}

/// Fails unless each of these names means something among `places`; says what there is.
pub(super) fn check<'a>(names: impl IntoIterator<Item = &'a str>, places: &[Place]) -> Result<()> {
    for name in names {
        if !places.iter().any(|place| place.is_meant(name)) {
            let there: Vec<&str> = places.iter().map(|place| &*place.path).collect();
            return Err(Error::Config(format!("there is no layer {name:?}; there are {}", there.join(", "))));
        }
    }
    Ok(())
}

/// Paths of the linear maps that are meant, in the order of the model; an error names what is not there.
pub fn chosen(model: &mut dyn Module, names: &[&str]) -> Result<Vec<String>> {
    let all = places(model);
    check(names.iter().copied(), &all)?;
    let meant = |place: &Place| names.iter().any(|name| place.is_meant(name));
    Ok(all.into_iter().filter(meant).map(|place| place.path).collect())
}

/// Paths of the linear maps that are not meant.
pub fn others(model: &mut dyn Module, names: &[&str]) -> Result<BTreeSet<String>> {
    let meant = chosen(model, names)?;
    Ok(paths(model).into_iter().filter(|path| !meant.contains(path)).collect())
}

/// Paths of all linear maps.
pub(super) fn paths(model: &mut dyn Module) -> Vec<String> {
    places(model).into_iter().map(|place| place.path).collect()
}

/// Shows each map of this kind, with its path.
pub fn each<M: Map>(model: &mut dyn Module, mut see: impl FnMut(&str, &mut M)) {
    model.visit_maps(&Path::root(), &mut |path, map| {
        if let Some(map) = map.get_mut() {
            see(&path.to_string(), map);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Place, means};

    #[test]
    fn names_are_paths_or_their_ends() {
        assert!(means("h.0.attn.c_attn", "h.0.attn.c_attn") && means("c_attn", "h.0.attn.c_attn"));
        assert!(means("attn.c_proj", "h.0.attn.c_proj") && !means("attn.c_proj", "h.0.mlp.c_proj"));
        assert!(!means("attn", "h.0.attn.c_attn") && !means("_attn", "h.0.attn.c_attn"));
        let place = |path: &str, embedding| Place { path: path.into(), embedding };
        assert!(place("h.0.mlp.c_fc", false).is_meant("all-linear"));
        assert!(!place("table", true).is_meant("all-linear") && place("table", true).is_meant("table"));
        for (path, meant) in
            [("lm_head", false), ("score", false), ("classifier.dense", false), ("lm_head.dense", true)]
        {
            assert_eq!(place(path, false).is_meant("all-linear"), meant, "{path}");
        }
    }
}
