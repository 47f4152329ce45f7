//! Adapters added to the weights that they stand beside, and taken out again.

use super::adapt::plus;
use super::{Factored, Lora, dora, each};
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

/// The base as it was without the adapter, if it was kept.
pub(super) type Merged = Option<LinearMap>;

/// A base and its adapter in one: a matrix, stored as the base's is, or factors.
enum Sum {
    Dense(Tensor),
    Factored(Tensor, Tensor),
}

impl Sum {
    /// `W + s A B`, or L beside s A and R above B, whose product that is; for DoRA scaled to its lengths. None of a base that
    /// nothing can be added to.
    fn of(map: &Lora) -> Option<Sum> {
        let [a, b] = [&map.a, &map.b].map(|factor| factor.tensor().detach());
        let factor = map.magnitude.as_ref().map(|magnitude| dora::factor(map, &magnitude.tensor().detach()));
        let scaled = |sum: Tensor, columns: bool| match &factor {
            None => sum,
            Some(factor) if columns => sum * factor,
            Some(factor) => sum * factor.unsqueeze(1),
        };
        if let Some(base) = map.base.get::<Dense>() {
            return Some(Sum::Dense(scaled(plus(base, &a, &b, map.scale), !base.transposed)));
        }
        let base = map.base.get::<Factored>()?;
        let [left, right] = [&base.factor_in, &base.factor_out].map(|factor| factor.tensor().detach());
        let right = scaled(Tensor::concat(&[&right, &b], 0), true);
        Some(Sum::Factored(Tensor::concat(&[&left, &(a * map.scale)], 1), right))
    }

    fn is_finite(&self) -> Result<bool> {
        Ok(match self {
            Sum::Dense(sum) => is_finite(sum)?,
            Sum::Factored(left, right) => is_finite(left)? && is_finite(right)?,
        })
    }

    /// Takes the place of what it was made of.
    fn replace(self, base: &mut LinearMap) {
        if let (Sum::Dense(sum), Some(dense)) = (&self, base.get_mut::<Dense>()) {
            return dense.weight.set(sum.clone());
        }
        let Sum::Factored(left, right) = self else { unreachable!("a dense sum is of a dense base") };
        let trains = base.get::<Factored>().is_some_and(|base| base.factor_in.trains());
        base.replace(|_| Factored::new(left, right).training(trains));
    }
}

fn is_finite(x: &Tensor) -> Result<bool> {
    let sum = (x * x.zeros_like()).sum_all();
    Ok(sum.item()? == 0.0)
}

/// Makes every adapter a part of its base weight, so that the model costs no more than without; of a base that is factors,
/// whose rank grows by the adapter's. The adapters stay where they are, without effect until [`unmerge`]; what is saved in
/// between holds them twice, so [`bake`] first. Those that are merged already are left alone.
///
/// With `check`, factors or sums that are not finite are an error that names the layer. Fails, with nothing changed, on
/// these, on an adapter whose base is neither a dense matrix nor factors, and on one for rows alone of a table that is the
/// head as well.
pub fn merge(model: &mut dyn Module, keep: Keep, check: bool) -> Result<()> {
    let mut found = Ok(());
    each::<Lora>(model, |path, map| {
        if found.is_ok() && !map.is_merged() {
            found = verify(path, map, check);
        }
    });
    found?;
    each::<Lora>(model, |_, map| {
        if !map.is_merged() {
            let (sum, before) = (Sum::of(map).expect("looked at above"), map.base.clone());
            sum.replace(&mut map.base);
            map.merged = Some((keep == Keep::Weights).then_some(before));
        }
    });
    Ok(())
}

fn verify(path: &str, map: &Lora, check: bool) -> Result<()> {
    if map.base.get::<Dense>().is_none() && map.base.get::<Factored>().is_none() {
        return Err(Error::Config(format!("{path}: its base is not a dense matrix, so nothing can be added to it")));
    }
    if map.rows_only {
        let problem = "the output head shares this table without the adapter, so neither can be a part of it";
        return Err(Error::Config(format!("{path}: {problem}: untie the head before the adapter is put on")));
    }
    let bad = |what: &str| Err(Error::NotFinite(format!("{path}: non-finite {what}; the adapter was not merged")));
    if !check || !map.a.tensor().device().computes() {
        return Ok(());
    }
    let factors = [&map.a, &map.b].into_iter().chain(&map.magnitude);
    for factor in factors {
        if !is_finite(&factor.tensor().detach())? {
            return bad("factor");
        }
    }
    let sum = Sum::of(map).expect("looked at above");
    if sum.is_finite()? { Ok(()) } else { bad("sum of weight and adapter") }
}

/// Takes merged adapters out of their weights again: the same bits as before. `weights` is asked for those that were
/// not kept, by the path of the weight, such as `h.0.attn.c_attn.weight`, or of a factor: read them where the model came
/// from.
///
/// Fails, with nothing changed, where `weights` does, and on a weight of another shape or type.
pub fn unmerge(model: &mut dyn Module, weights: &mut dyn FnMut(&str) -> Result<Tensor>) -> Result<()> {
    let mut read = Vec::new();
    let mut found = Ok(());
    each::<Lora>(model, |path, map| {
        if let (Ok(()), Some(kept)) = (&found, &map.merged) {
            match kept.clone().map_or_else(|| reread(path, map, weights), Ok) {
                Ok(base) => read.push(base),
                Err(problem) => found = Err(problem),
            }
        }
    });
    found?;
    let mut read = read.into_iter();
    each::<Lora>(model, |_, map| {
        if map.merged.take().is_some() {
            map.base = read.next().expect("one for each");
        }
    });
    Ok(())
}

/// The base with the weights that it had.
fn reread(path: &str, map: &Lora, weights: &mut dyn FnMut(&str) -> Result<Tensor>) -> Result<LinearMap> {
    let (mut base, rank) = (map.base.clone(), map.rank());
    let factored = base.get::<Factored>().is_some();
    let mut done = Ok(());
    base.visit_mut(&Path::root().join(path), &mut |path, parameter| {
        let mut expected = parameter.tensor().spec();
        if factored {
            // What the adapter added to the rank is taken off again.
            let axis = if path.to_string().ends_with("factor_in") { 1 } else { 0 };
            expected.shape = expected.shape.with(axis, expected.shape[axis] - rank);
        }
        let mut set = || {
            let weight = weights(&path.to_string())?;
            if weight.spec() != expected {
                let found = weight.spec();
                return Err(Error::Config(format!("{path}: {found:?} in place of {expected:?}")));
            }
            parameter.set(weight);
            Ok(())
        };
        if done.is_ok() {
            done = set();
        }
    });
    done.map(|()| base)
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
