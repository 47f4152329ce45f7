//! Which adapter each example of a batch has, and how layers come to have several.

use super::quantised::kind;
use super::{Bank, Hadamard, names};
use crate::device::{Device, Tag, tagged};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::module::{LinearMap, Module, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use rand::RngExt;

/// The adapters' numbers, one for each example of a batch: `[batch]` (u32).
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen(Option<Tensor>);

impl Chosen {
    /// Those for this batch.
    pub(super) fn for_batch(&self, x: &Tensor) -> &Tensor {
        let ids = self.0.as_ref().expect("no adapters are selected: see lowrank::select");
        let (batch, chosen) = (x.shape()[0], ids.count());
        assert!(batch == chosen, "{chosen} adapters are selected for a batch of {batch}: see lowrank::select");
        ids
    }
}

/// Chooses the adapter of each example of the next batches, in all [`Bank`]s and [`Hadamard`] maps of a model. The ids
/// are copied to the device once. An id beyond a layer's adapters, and a model without such layers, are errors; then
/// nothing is changed.
pub fn select(model: &mut impl Module, ids: &[u32]) -> Result<()> {
    let (mut device, mut problem): (Option<Device>, Option<String>) = (None, None);
    model.visit_maps(&Path::root(), &mut |path, map| {
        let Some((factor, _)) = of(map) else { return };
        let n = factor.shape()[0];
        device.get_or_insert_with(|| factor.device().clone());
        if let Some(e) = ids.iter().position(|&id| id as usize >= n)
            && problem.is_none()
        {
            problem = Some(format!("adapter {} of example {e}: layer {path} has {n}, counted from 0", ids[e]));
        }
    });
    let Some(device) = device else {
        return Err(Error::Config("the model has no adapters to select: lowrank::bank makes them".into()));
    };
    if let Some(problem) = problem {
        return Err(Error::Config(problem));
    }
    let ids = Tensor::new(ids, [ids.len()], &device);
    model.visit_maps(&Path::root(), &mut |_, map| {
        if let Some((_, chosen)) = of(map) {
            chosen.0 = Some(ids.clone());
        }
    });
    Ok(())
}

/// A factor of all adapters of a map that has several, and which are chosen.
pub(super) fn of(map: &mut LinearMap) -> Option<(Tensor, &mut Chosen)> {
    // Asked twice: a borrow that is returned on one way only would last on the other as well.
    if map.get::<Bank>().is_some() {
        return map.get_mut().map(|bank: &mut Bank| (bank.lora_a.tensor().detach(), &mut bank.chosen));
    }
    map.get_mut().map(|map: &mut Hadamard| (map.hadamard_in.tensor().detach(), &mut map.chosen))
}

/// What a walk gives layers.
pub(super) struct Plan<'a> {
    /// Which layers, see [`super::bank`].
    pub names: &'a [&'a str],
    /// Adapters of each.
    pub n: usize,
    pub rank: usize,
    /// The map in a layer's place, from the map and a seed of its own.
    pub make: &'a dyn Fn(&LinearMap, Seed) -> LinearMap,
    pub seed: Seed,
}

/// Paths of factors, which a walk after another one does not freeze.
const FACTORS: [&str; 4] = ["lora_A", "lora_B", "hadamard_in", "hadamard_out"];

/// Freezes all that is no adapter.
pub(super) fn freeze_base(model: &mut impl Module) {
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if !FACTORS.iter().any(|name| path.to_string().ends_with(name)) {
            parameter.freeze();
        }
    });
}

impl Plan<'_> {
    /// Puts adapters around the layers that are meant, and freezes all that is no adapter.
    pub(super) fn install(&self, model: &mut impl Module) -> Result<Vec<String>> {
        if self.n == 0 || self.rank == 0 {
            let sizes = format!("{} adapters of rank {}", self.n, self.rank);
            return Err(Error::Config(format!("{sizes}: both have to be at least 1")));
        }
        let layers = names::chosen(model, self.names)?;
        let mut problem = None;
        model.visit_maps(&Path::root(), &mut |path, map| {
            let path = path.to_string();
            if layers.contains(&path) && problem.is_none() {
                problem = self.refusal(&path, map);
            }
        });
        if let Some(problem) = problem {
            return Err(Error::Config(problem));
        }
        freeze_base(model);
        model.visit_maps(&Path::root(), &mut |path, map| {
            let path = path.to_string();
            if layers.contains(&path) {
                *map = (self.make)(map, self.seed.named(&path));
            }
        });
        Ok(layers)
    }

    /// Why a layer cannot have adapters, if it cannot.
    fn refusal(&self, path: &str, map: &mut LinearMap) -> Option<String> {
        let [inputs, outputs] = map.sizes();
        let (least, rank) = (inputs.min(outputs), self.rank);
        if of(map).is_some() {
            return Some(format!("layer {path} has adapters to select from already"));
        }
        (rank > least).then(|| format!("rank {rank} for layer {path} [{inputs}, {outputs}]: at most {least}"))
    }
}

/// Numbers uniform in ±`bound`, [n, ..shape]: for each of `n` adapters a function of the seed and its own number alone. In
/// the type and on the device of the map's parameters.
pub(super) fn random(map: &LinearMap, n: usize, shape: [usize; 2], bound: f64, seed: Seed) -> Tensor {
    let like = kind(map);
    let adapter = |i: usize| {
        let mut stream = seed.fold(i as u64).stream();
        (0..shape[0] * shape[1]).map(move |_| ((2.0 * stream.random::<f64>() - 1.0) * bound) as f32)
    };
    let values = match like.1.computes() {
        true => (0..n).flat_map(adapter).collect(),
        // A plan does not wait for numbers that nobody reads.
        false => vec![0.0; n * shape[0] * shape[1]],
    };
    filled(like, values, [n, shape[0], shape[1]])
}

/// Zeros in a storage of their own, of the type and on the device of the map's parameters.
pub(super) fn zeros(map: &LinearMap, shape: [usize; 3]) -> Tensor {
    filled(kind(map), vec![0.0; shape.iter().product()], shape)
}

fn filled((dtype, device): (DType, Device), values: Vec<f32>, shape: [usize; 3]) -> Tensor {
    tagged(Tag::Weights, || Tensor::new(&values, shape, &device).cast(dtype))
}
