//! Gain curves of updates that are known: an adapter's, or the difference that a full fine-tuning made.

use super::Curve;
use crate::error::{Error, Result};
use crate::lowrank::svd::svd;
use crate::lowrank::{Lora, chosen, each, product_svd};
use crate::module::{Dense, Module, Path};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

fn values(s: &Tensor, factor: f64) -> Result<Vec<f64>> {
    Ok(s.cast(crate::DType::F64).to_vec::<f64>()?.into_iter().map(|s| s * factor).collect())
}

/// Curves of what a model's adapters add, s A B. A model without any is an error.
pub fn of_adapters(model: &mut dyn Module) -> Result<Vec<Curve>> {
    let mut curves = Vec::new();
    each::<Lora>(model, |path, map| {
        let sizes = crate::module::Map::sizes(map);
        let found = product_svd(&map.a().tensor().detach(), &map.b().tensor().detach());
        curves
            .push(found.and_then(|found| Ok(Curve::of_singular_values(path, sizes, &values(&found.s, map.scale())?))));
    });
    match curves.is_empty() {
        true => Err(Error::Config("the model has no adapters whose update could be looked at".into())),
        false => curves.into_iter().collect(),
    }
}

/// Curves of the change of each layer that is meant, from one model to another of the same shape.
pub fn of_change(before: &mut dyn Module, after: &mut dyn Module, names: &[&str]) -> Result<Vec<Curve>> {
    let paths = chosen(before, names)?;
    let (before, mut after) = (weights(before, &paths)?, weights(after, &paths)?);
    let change = |path: String| {
        let (old, new) = (&before[&path], after.remove(&path).expect("the same paths"));
        if old.shape() != new.shape() {
            let shapes = format!("{:?} and {:?}", old.shape(), new.shape());
            return Err(Error::Config(format!("layer {path}: shapes {shapes} of the two models differ")));
        }
        let sizes = [old.shape()[0], old.shape()[1]];
        Ok(Curve::of_singular_values(&path, sizes, &values(&svd(&(new - old))?.s, 1.0)?))
    };
    paths.into_iter().map(change).collect()
}

/// The weights at these paths, [in, out].
fn weights(model: &mut dyn Module, paths: &[String]) -> Result<BTreeMap<String, Tensor>> {
    let mut found = BTreeMap::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        if let Some(dense) = map.get::<Dense>() {
            let weight = dense.weight.tensor().detach();
            found.insert(path.to_string(), if dense.transposed { weight.t() } else { weight });
        }
    });
    match paths.iter().find(|path| !found.contains_key(*path)) {
        None => Ok(found),
        Some(path) => Err(Error::Config(format!("layer {path}: it is no dense matrix in both models"))),
    }
}
