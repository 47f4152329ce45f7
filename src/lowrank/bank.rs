//! One low-rank adapter per example of a batch: many adapters trained or applied together over one base.

use super::names;
use crate::device::{Device, Tag, tagged};
use crate::error::{Error, Result};
use crate::module::{LinearMap, Map, Module, Parameter, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use rand::RngExt;

/// A base map and a bank of adapters for it (Hu et al., 2106.09685): example e of a batch is multiplied by
/// `W + (alpha / rank) A[id_e] B[id_e]`, with the ids that [`select`] chose. Products with the factors read them where
/// they lie and are added to the base's; gradients are those of each adapter.
#[derive(Clone, Debug)]
pub struct Bank {
    /// The map that all share; its paths stay what they were.
    pub base: LinearMap,
    /// A, [adapters, in, rank], at `lora_A`.
    pub lora_a: Parameter,
    /// B, [adapters, rank, out], at `lora_B`.
    pub lora_b: Parameter,
    /// alpha / rank.
    pub scale: f64,
    /// Which adapter each example has, `[batch]` (u32).
    ids: Option<Tensor>,
}

impl Module for Bank {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.base.visit(path, see);
        self.lora_a.visit(&path.join(FACTORS[0]), see);
        self.lora_b.visit(&path.join(FACTORS[1]), see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.base.visit_mut(path, see);
        self.lora_a.visit_mut(&path.join(FACTORS[0]), see);
        self.lora_b.visit_mut(&path.join(FACTORS[1]), see);
    }
}

impl Map for Bank {
    fn sizes(&self) -> [usize; 2] {
        self.base.sizes()
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (a, b) = (self.lora_a.tensor(), self.lora_b.tensor());
        self.base.apply(x, bias).add_adapters(x, a, b, self.ids(x), self.scale)
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        let [a, b] = [&self.lora_a, &self.lora_b].map(|factor| factor.tensor().t());
        self.base.apply_transposed(x).add_adapters(x, &b, &a, self.ids(x), self.scale)
    }

    fn rows(&self, _: &Tensor) -> Tensor {
        panic!("a bank of adapters is for products: leave this embedding out of the layers that get one")
    }

    fn rows_between(&self, _: usize, _: usize) -> Tensor {
        panic!("a bank of adapters is for products: leave this embedding out of the layers that get one")
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

impl Bank {
    /// Adapters with these factors, A [adapters, in, rank] and B [adapters, rank, out].
    #[track_caller]
    pub fn new(base: LinearMap, a: Tensor, b: Tensor, scale: f64) -> Bank {
        let [inputs, outputs] = base.sizes();
        let (n, rank) = (a.shape()[0], a.shape().last_size());
        let fits = a.shape()[..] == [n, inputs, rank] && b.shape()[..] == [n, rank, outputs];
        assert!(fits, "factors {:?} and {:?} for a map [{inputs}, {outputs}]", a.shape(), b.shape());
        Bank { base, lora_a: Parameter::new(a), lora_b: Parameter::new(b), scale, ids: None }
    }

    /// Number of adapters.
    pub fn adapters(&self) -> usize {
        self.lora_a.tensor().shape()[0]
    }

    /// Copies of A [in, rank] and B [rank, out] of one adapter.
    #[track_caller]
    pub fn adapter(&self, i: usize) -> [Tensor; 2] {
        [&self.lora_a, &self.lora_b].map(|factor| {
            let value = factor.tensor().detach().index(0, i);
            tagged(Tag::Weights, || Tensor::from_array(value.array().to_owned()))
        })
    }

    fn ids(&self, x: &Tensor) -> &Tensor {
        let ids = self.ids.as_ref().expect("no adapters are selected: see lowrank::select");
        let (batch, chosen) = (x.shape()[0], ids.count());
        assert!(batch == chosen, "{chosen} adapters are selected for a batch of {batch}: see lowrank::select");
        ids
    }
}

/// Names of the factors below a layer's path.
const FACTORS: [&str; 2] = ["lora_A", "lora_B"];

/// Gives every layer that is meant a [`Bank`] of `n` adapters of this rank, and freezes all other parameters. Returns the
/// layers' paths.
///
/// A layer is meant by its path, by the end of it (`c_attn`), or by [`ALL_LINEAR`](super::ALL_LINEAR). Each adapter
/// starts as LoRA does, A uniform in ±1/√in and B zero: a function of the seed, the path and its own number alone. The
/// factor on A B is `alpha / rank`. A name without a layer, a rank of 0 or above a layer's smaller side, a layer that has
/// a bank already: errors, and nothing is changed.
pub fn bank(
    model: &mut impl Module,
    names: &[&str],
    n: usize,
    rank: usize,
    alpha: f64,
    seed: Seed,
) -> Result<Vec<String>> {
    if n == 0 || rank == 0 {
        return Err(Error::Config(format!("{n} adapters of rank {rank}: both have to be at least 1")));
    }
    let chosen = names::chosen(model, names)?;
    let mut problem = None;
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if chosen.contains(&path) && problem.is_none() {
            problem = refusal(&path, map, rank);
        }
    });
    if let Some(problem) = problem {
        return Err(Error::Config(problem));
    }
    // Adapters of layers that had theirs before go on training.
    let adapts = |path: &Path| FACTORS.iter().any(|name| path.to_string().ends_with(name));
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if !adapts(path) {
            parameter.freeze();
        }
    });
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if chosen.contains(&path) {
            let [a, b] = fresh(map, n, rank, seed.named(&path));
            *map = LinearMap::new(Bank::new(map.clone(), a, b, alpha / rank as f64));
        }
    });
    Ok(chosen)
}

/// Why a layer cannot have a bank, if it cannot.
fn refusal(path: &str, map: &LinearMap, rank: usize) -> Option<String> {
    let [inputs, outputs] = map.sizes();
    let least = inputs.min(outputs);
    if map.get::<Bank>().is_some() {
        return Some(format!("layer {path} has a bank of adapters already"));
    }
    (rank > least).then(|| format!("rank {rank} for layer {path} [{inputs}, {outputs}]: at most {least}"))
}

/// A and B at their start, beside the map's own parameters.
fn fresh(map: &LinearMap, n: usize, rank: usize, seed: Seed) -> [Tensor; 2] {
    let like = map.parameters().remove(0).1.tensor().detach();
    let [inputs, outputs] = map.sizes();
    let size = inputs * rank;
    let bound = 1.0 / (inputs as f64).sqrt();
    let adapter = |i: usize| {
        let mut stream = seed.fold(i as u64).stream();
        (0..size).map(move |_| ((2.0 * stream.random::<f64>() - 1.0) * bound) as f32)
    };
    let a = match like.device().computes() {
        true => (0..n).flat_map(adapter).collect(),
        // A plan does not wait for numbers that nobody reads.
        false => vec![0.0; n * size],
    };
    tagged(Tag::Weights, || {
        let put = |values: &[f32], shape: [usize; 3]| Tensor::new(values, shape, like.device()).cast(like.dtype());
        [put(&a, [n, inputs, rank]), put(&vec![0.0; n * rank * outputs], [n, rank, outputs])]
    })
}

/// Chooses the adapter of each example of the next batches, in all banks of a model. The ids are copied to the device
/// once. An id beyond a layer's adapters, and a model without banks, are errors; then nothing is changed.
pub fn select(model: &mut impl Module, ids: &[u32]) -> Result<()> {
    let (mut device, mut problem): (Option<Device>, Option<String>) = (None, None);
    names::each(model, |path, bank: &mut Bank| {
        device.get_or_insert_with(|| bank.lora_a.tensor().device().clone());
        let n = bank.adapters();
        if let Some(e) = ids.iter().position(|&id| id as usize >= n)
            && problem.is_none()
        {
            problem = Some(format!("adapter {} of example {e}: layer {path} has {n}, counted from 0", ids[e]));
        }
    });
    let Some(device) = device else {
        return Err(Error::Config("the model has no banks of adapters: lowrank::bank makes them".into()));
    };
    if let Some(problem) = problem {
        return Err(Error::Config(problem));
    }
    let ids = Tensor::new(ids, [ids.len()], &device);
    names::each(model, |_, bank: &mut Bank| bank.ids = Some(ids.clone()));
    Ok(())
}
