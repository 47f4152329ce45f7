//! Adapters added to the weights that they stand beside, and taken out again.

use super::adapt::plus;
use super::{Lora, dora, each};
use crate::error::{Error, Result};
use crate::module::{Dense, LinearMap, Module, Path};
use crate::tensor::Tensor;

/// What becomes of the weights that adapters are added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are kept beside, so that [`unmerge`] gives back the same bits; memory of their size.
    Weights,
    /// They are not; [`unmerge`] has to be given them again.
    Nothing,
}

/// The weight as it was without the adapter, if it was kept.
pub(super) type Merged = Option<Tensor>;

/// `W + s A B`, for DoRA scaled to its lengths, stored as W is.
fn merged(map: &Lora, base: &Dense) -> Tensor {
    let sum = plus(base, &map.a.tensor().detach(), &map.b.tensor().detach(), map.scale);
    match &map.magnitude {
        None => sum,
        Some(magnitude) => {
            let factor = dora::factor(map, &magnitude.tensor().detach());
            if base.transposed { sum * factor.unsqueeze(1) } else { sum * factor }
        }
    }
}

fn is_finite(x: &Tensor) -> Result<bool> {
    let sum = (x * x.zeros_like()).sum_all();
    Ok(sum.item()? == 0.0)
}

/// Makes every adapter a part of its base weight, so that the model costs no more than without. The adapters stay where
/// they are, without effect until [`unmerge`]; what is saved in between holds them twice, so [`bake`] first. Those that
/// are merged already are left alone.
///
/// With `check`, factors or sums that are not finite are an error that names the layer. Fails, with nothing changed, on
/// these, on an adapter whose base is not a dense matrix, and on one for rows alone of a table that is the head as well.
pub fn merge(model: &mut dyn Module, keep: Keep, check: bool) -> Result<()> {
    let mut found = Ok(());
    each::<Lora>(model, |path, map| {
        if found.is_ok() && !map.is_merged() {
            found = verify(path, map, check);
        }
    });
    found?;
    each::<Lora>(model, |_, map| {
        let Some(base) = map.base.get::<Dense>().filter(|_| !map.is_merged()) else { return };
        let sum = merged(map, base);
        let base = map.base.get_mut::<Dense>().expect("it was dense a moment ago");
        let weight = base.weight.tensor().detach();
        base.weight.set(sum);
        map.merged = Some((keep == Keep::Weights).then_some(weight));
    });
    Ok(())
}

fn verify(path: &str, map: &Lora, check: bool) -> Result<()> {
    let Some(base) = map.base.get::<Dense>() else {
        return Err(Error::Config(format!("{path}: its base is not a dense matrix, so nothing can be added to it")));
    };
    if map.rows_only {
        let problem = "the output head shares this table without the adapter, so neither can be a part of it";
        return Err(Error::Config(format!("{path}: {problem}: untie the head before the adapter is put on")));
    }
    let bad = |what: &str| Err(Error::NotFinite(format!("{path}: non-finite {what}; the adapter was not merged")));
    if !check || !base.weight.tensor().device().computes() {
        return Ok(());
    }
    let factors = [&map.a, &map.b].into_iter().chain(&map.magnitude);
    for factor in factors {
        if !is_finite(&factor.tensor().detach())? {
            return bad("factor");
        }
    }
    if is_finite(&merged(map, base))? { Ok(()) } else { bad("sum of weight and adapter") }
}

/// Takes merged adapters out of their weights again: the same bits as before. `weights` is asked for those that were
/// not kept, by the path of the weight, such as `h.0.attn.c_attn.weight`: read them where the model came from.
///
/// Fails, with nothing changed, where `weights` does, and on a weight of another shape or type.
pub fn unmerge(model: &mut dyn Module, weights: &mut dyn FnMut(&str) -> Result<Tensor>) -> Result<()> {
    let mut read = Vec::new();
    let mut found = Ok(());
    each::<Lora>(model, |path, map| {
        if let (Ok(()), Some(kept)) = (&found, &map.merged) {
            match kept.clone().map_or_else(|| reread(path, map, weights), Ok) {
                Ok(weight) => read.push(weight),
                Err(problem) => found = Err(problem),
            }
        }
    });
    found?;
    let mut read = read.into_iter();
    each::<Lora>(model, |_, map| {
        if map.merged.take().is_some() {
            let base = map.base.get_mut::<Dense>().expect("only dense maps are merged");
            base.weight.set(read.next().expect("one for each"));
        }
    });
    Ok(())
}

fn reread(path: &str, map: &Lora, weights: &mut dyn FnMut(&str) -> Result<Tensor>) -> Result<Tensor> {
    let weight = weights(&format!("{path}.weight"))?;
    let expected = map.base.get::<Dense>().expect("only dense maps are merged").weight.tensor().spec();
    if weight.spec() != expected {
        let found = weight.spec();
        return Err(Error::Config(format!("{path}.weight: {found:?} in place of {expected:?}")));
    }
    Ok(weight)
}

/// Puts plain layers in the place of all merged adapters, whose factors are gone then; gives their paths. Parameters stay
/// frozen or not as they are.
pub fn bake(model: &mut dyn Module) -> Vec<String> {
    let mut baked = Vec::new();
    model.visit_maps(&Path::root(), &mut |path, map: &mut LinearMap| {
        let base = map.get::<Lora>().filter(|lora| lora.is_merged()).map(|lora| lora.base.clone());
        if let Some(base) = base {
            *map = base;
            baked.push(path.to_string());
        }
    });
    baked
}
