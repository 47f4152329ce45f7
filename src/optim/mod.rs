//! Optimizers: a chain of transforms that turn a gradient into an update, and what decides how much of it to take.

mod adafactor;
mod adam;
mod adam_8bit;
mod dynamic;
mod gpu;
mod gradients;
mod momentum;
mod schedule;
mod sketch;
mod transform;
mod turn;

pub use adafactor::{ClipRms, Factored, Mean, ScaleByWeight, adafactor};
pub use adam::Adam;
pub use adam_8bit::Adam8bit;
pub use gpu::{Found, Numbers};
pub use gradients::{Gradients, Held};
pub use momentum::Momentum;
pub use schedule::Schedule;
pub use sketch::Sketch;
pub use transform::{At, Chain, ChangeBasis, Now, Slot, Transform};
pub use turn::Turn;

use crate::device::observe::{self, Stage};
use crate::device::{Array, Device, Tag, tagged};
use crate::dtype::Element;
use crate::element;
use crate::error::{Error, Result};
use crate::module::{Module, Path};
use crate::ops::project::{Entries, Random};
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Whether the parameter at this path, of this shape, belongs to a group.
pub type Takes = Box<dyn Fn(&str, &Shape) -> bool + Send + Sync>;

/// Which parameters an optimizer treats how.
pub struct Group {
    /// Whether the parameter at this path, of this shape, belongs here; the first group that takes it has it.
    pub takes: Takes,
    /// Factor on the learning rate.
    pub rate: f64,
    /// Decoupled weight decay: each step also takes `learning rate × decay × weight` (Loshchilov & Hutter 2019).
    pub decay: f64,
}

impl Group {
    /// Parameters of at least two dimensions with `decay`, the rest without: the usual pair of groups.
    pub fn decay_matrices(decay: f64) -> Vec<Group> {
        let matrices: Group = Group { takes: Box::new(|_, shape| shape.len() >= 2), rate: 1.0, decay };
        vec![matrices, Group { takes: Box::new(|_, _| true), rate: 1.0, decay: 0.0 }]
    }
}

/// A transform with state for every parameter.
pub struct Optimizer {
    transform: Box<dyn Transform>,
    /// Which parameters another transform is for, and it.
    exception: Option<(Takes, Box<dyn Transform>)>,
    groups: Vec<Group>,
    seed: Seed,
    accumulation: Option<Accumulation>,
    state: BTreeMap<String, State>,
}

/// How gradients of matrices are compressed while they are added up over micro-batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accumulation {
    /// Kind of random projection.
    pub entries: Entries,
    /// Its rank; matrices with a smaller side below it are added up as they are.
    pub rank: usize,
}

/// What is kept of one parameter.
struct State {
    names: Vec<&'static str>,
    arrays: Vec<Array>,
    /// The parameter's own.
    seed: Seed,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Norm of all gradients together, before clipping. NaN on the null device, which has no numbers.
    pub norm: f64,
    /// Whether weights were changed; they are not when the norm is not finite.
    pub taken: bool,
}

impl Optimizer {
    /// An optimizer without state yet.
    pub fn new(transform: impl Transform + 'static, groups: Vec<Group>) -> Optimizer {
        let (transform, state) = (Box::new(transform), BTreeMap::new());
        Optimizer { transform, exception: None, groups, seed: Seed(0), accumulation: None, state }
    }

    /// The same, but with another transform for the parameters that `takes` takes. If both correct running means for
    /// their start at zero, they have to have the same decays.
    pub fn except(self, takes: Takes, transform: impl Transform + 'static) -> Optimizer {
        let before = self.transform.decays().zip(transform.decays());
        assert!(
            before.is_none_or(|(a, b)| a == b),
            "transforms of one optimizer that correct means have the same decays"
        );
        Optimizer { exception: Some((takes, Box::new(transform))), ..self }
    }

    /// What is for this parameter.
    fn transform(&self, path: &str, shape: &Shape) -> &dyn Transform {
        match &self.exception {
            Some((takes, transform)) if takes(path, shape) => &**transform,
            _ => &*self.transform,
        }
    }

    fn transforms(&self) -> impl Iterator<Item = &dyn Transform> {
        std::iter::once(&*self.transform).chain(self.exception.iter().map(|(_, transform)| &**transform))
    }

    /// The same with what all its randomness is a function of.
    pub fn seeded(self, seed: Seed) -> Optimizer {
        Optimizer { seed, ..self }
    }

    /// The same with gradients added up as sketches, each step with projections of its own.
    pub fn accumulating(self, accumulation: Option<Accumulation>) -> Optimizer {
        Optimizer { accumulation, ..self }
    }

    /// An empty sum of gradients for step `step`, which compresses what this optimizer wants compressed.
    pub fn gradients(&self, model: &dyn Module, step: u64) -> Gradients {
        let Some(Accumulation { entries, rank }) = self.accumulation else { return Gradients::new() };
        let mut leaves = BTreeMap::new();
        model.visit(&Path::root(), &mut |path, parameter| {
            let shape = *parameter.tensor().shape();
            if parameter.trains() && shape.len() == 2 && shape[0].min(shape[1]) >= rank {
                let seed = self.seed.named(&path.to_string()).named("accumulation").fold(step);
                leaves.insert(parameter.id(), (Random { entries, rank, seed }, shape));
            }
        });
        Gradients::compressed(leaves)
    }

    /// Refuses settings that cannot work for a parameter, naming it.
    pub fn check(&self, model: &dyn Module) -> Result<()> {
        let mut found = Ok(());
        model.visit(&Path::root(), &mut |path, parameter| {
            if let (Ok(()), true) = (&found, parameter.trains()) {
                let (path, spec) = (path.to_string(), parameter.tensor().spec());
                found = self.transform(&path, &spec.shape).check(&spec).map_err(|problem| (path, problem));
            }
        });
        found.map_err(|(path, problem)| Error::Config(format!("{path}: {problem}")))
    }

    /// Allocates the state of every parameter that trains.
    pub fn prepare(&mut self, model: &dyn Module) {
        model.visit(&Path::root(), &mut |path, parameter| {
            let path = path.to_string();
            if parameter.trains() && !self.state.contains_key(&path) {
                let spec = parameter.tensor().spec();
                let slots = self.transform(&path, &spec.shape).state(&spec);
                let fresh = State::zero(&slots, self.seed.named(&path), parameter.tensor().device());
                self.state.insert(path, fresh);
            }
        });
    }

    /// Fits the state to parameters whose shape changed, such as those of adapters of another rank: in those that grew it
    /// stays, and what is new begins at zero or where the transform [says](Transform::grows_at_mean); in those that shrank,
    /// and where it is stored in eight bits, it begins anew.
    pub fn resize(&mut self, model: &dyn Module) {
        model.visit(&Path::root(), &mut |path, parameter| {
            let (path, spec) = (path.to_string(), parameter.tensor().spec());
            let transform = self.transform(&path, &spec.shape);
            let (slots, at_mean) = (transform.state(&spec), transform.grows_at_mean());
            let Some(state) = self.state.get_mut(&path) else { return };
            if state.arrays.iter().map(Array::spec).ne(slots.iter().map(|(_, spec)| *spec)) {
                state.fit(&slots, at_mean, parameter.tensor().device());
            }
        });
    }

    /// State by parameter path and name of the slot: what a checkpoint has to hold.
    pub fn state(&self) -> impl Iterator<Item = (String, &Array)> {
        let named = |(path, state): (_, &State)| -> Vec<String> {
            state.names.iter().map(|name| format!("{path}.{name}")).collect()
        };
        self.state.iter().flat_map(move |(path, state)| named((path, state)).into_iter().zip(&state.arrays))
    }

    /// The same, to restore it.
    pub fn state_mut(&mut self) -> impl Iterator<Item = (String, &mut Array)> {
        self.state.iter_mut().flat_map(|(path, state)| {
            let names: Vec<String> = state.names.iter().map(|name| format!("{path}.{name}")).collect();
            names.into_iter().zip(&mut state.arrays)
        })
    }

    /// What kind of step this is: recorded ones serve others of the same era.
    pub fn era(&self, step: u64) -> u64 {
        let eras = || self.transforms().map(|transform| transform.era(step)).max().unwrap_or_default();
        if self.accumulation.is_some() { step } else { eras() }
    }

    /// One step with finished gradients, whose storages are used up. `step` counts from 0. A norm beyond `clip`
    /// scales all gradients down to it; a norm that is not finite leaves weights and state as they were.
    pub fn step(
        &mut self,
        model: &mut dyn Module,
        gradients: Gradients,
        step: u64,
        rate: f64,
        clip: Option<f64>,
    ) -> Stepped {
        self.prepare(model);
        if let Some(device) = gradients.device().filter(Device::is_gpu) {
            let mut numbers = Numbers::new(step, &device);
            numbers.give(rate, clip);
            self.record(model, gradients, None, &mut numbers, step);
            // What went wrong on the device comes out when the weights are read.
            let lost = |_| Stepped { norm: f64::NAN, taken: false };
            return numbers.read().map_or_else(lost, |found| found.stepped);
        }
        let norm = gradients.norm();
        if norm.is_infinite() || (norm.is_nan() && gradients.computes()) {
            return Stepped { norm, taken: false };
        }
        let factor = clip.filter(|&clip| norm > clip).map_or(1.0, |clip| clip / norm);
        self.launch(model, gradients, rate, Now { step, factor, numbers: None });
        Stepped { norm, taken: true }
    }

    /// Records one step for a GPU, which decides by itself whether it is taken; a `loss` that is not finite speaks
    /// against it too. The same commands serve every step of `step`'s era that `numbers` are set for.
    pub fn record(
        &mut self,
        model: &mut dyn Module,
        gradients: Gradients,
        loss: Option<&Array>,
        numbers: &mut Numbers,
        step: u64,
    ) {
        self.prepare(model);
        let decays = self.transforms().find_map(Transform::decays).unwrap_or([0.5; 2]);
        numbers.judge(&gradients, decays, loss);
        self.launch(model, gradients, 1.0, Now { step, factor: 1.0, numbers: Some(numbers) });
    }

    fn launch(&mut self, model: &mut dyn Module, gradients: Gradients, rate: f64, now: Now<'_>) {
        let Optimizer { transform, exception, groups, state, .. } = self;
        let is_other = |path: &str, shape: &Shape| exception.as_ref().is_some_and(|(takes, _)| takes(path, shape));
        let mut turns = turns(model, gradients, state, groups, rate, is_other);
        let kernels = |turns: &mut [Vec<Turn<'_>>; 2]| {
            transform.step(&now, &mut turns[0]);
            if let Some((_, other)) = exception {
                other.step(&now, &mut turns[1]);
            }
        };
        observe::launch("optimizer", Stage::Update, &mut turns, kernels, |turns| {
            turns.iter().flatten().map(|turn| &*turn.weight).collect()
        });
    }
}

/// Every parameter that has a gradient, with what its step needs; those that are `other` come second.
fn turns<'a>(
    model: &'a mut dyn Module,
    gradients: Gradients,
    state: &'a mut BTreeMap<String, State>,
    groups: &[Group],
    rate: f64,
    is_other: impl Fn(&str, &Shape) -> bool,
) -> [Vec<Turn<'a>>; 2] {
    let mut gradients = gradients.into_map();
    let mut state: BTreeMap<&str, &mut State> = state.iter_mut().map(|(path, state)| (&**path, state)).collect();
    let mut turns = [Vec::new(), Vec::new()];
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if let Some(gradient) = gradients.remove(&parameter.id()) {
            let path = path.to_string();
            let shape = *parameter.tensor().shape();
            let group = groups.iter().find(|group| (group.takes)(&path, &shape));
            let (scale, decay) = group.map_or((1.0, 0.0), |group| (group.rate, group.decay));
            let state = state.remove(&*path).expect("prepared before");
            turns[usize::from(is_other(&path, &shape))].push(Turn {
                weight: parameter.value_mut(),
                gradient: Some(gradient),
                seed: state.seed,
                state: &mut state.arrays,
                rate: rate * scale,
                decay,
            });
        }
    });
    turns
}

impl State {
    fn zero(slots: &[Slot], seed: Seed, device: &Device) -> State {
        let zero = |(_, spec): &Slot| {
            let mut array = tagged(Tag::Optimizer, || device.alloc(*spec));
            if device.computes() {
                element!(spec.dtype, T => array.fill(<T as Element>::from_f64(0.0)));
            }
            array
        };
        let names = slots.iter().map(|(name, _)| *name).collect();
        State { names, arrays: slots.iter().map(zero).collect(), seed }
    }

    /// Becomes that of a parameter of another shape.
    fn fit(&mut self, slots: &[Slot], at_mean: &[&str], device: &Device) {
        let old = std::mem::replace(self, State::zero(slots, self.seed, device));
        // Where codes lie depends on all sizes.
        if slots.iter().any(|(_, spec)| !spec.dtype.computes()) {
            return;
        }
        let named = old.names.into_iter().zip(old.arrays);
        for (name, old) in named {
            if let Some(i) = self.names.iter().position(|new| *new == name) {
                grow(&mut self.arrays[i], old, at_mean.contains(&name));
            }
        }
    }
}

/// Puts `old` into the corner of `new`, which is zero, if it has room there; the rest becomes its mean if wanted.
fn grow(new: &mut Array, old: Array, at_mean: bool) {
    let (from, to) = (*old.shape(), *new.shape());
    let fits = from.len() == to.len() && from.iter().zip(&to[..]).all(|(from, to)| from <= to);
    if !fits || old.dtype() != new.dtype() {
        return;
    }
    let old = Tensor::from_array(old);
    let rest = if at_mean && old.count() > 0 { old.mean_all() } else { old.constant_like(0.0) };
    let extended = |x: Tensor, axis: usize| match to[axis] - x.shape()[axis] {
        0 => x,
        more => Tensor::concat(&[&x, &rest.broadcast_to(x.shape().with(axis, more))], axis as isize),
    };
    *new = tagged(Tag::Optimizer, || (0..to.len()).fold(old, extended).contiguous().into_array());
}
