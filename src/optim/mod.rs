//! Optimizers: a chain of transforms that turn a gradient into an update, and what decides how much of it to take.

mod gpu;
mod gradients;
mod schedule;
mod transform;

pub use gpu::{Found, Numbers};
pub use gradients::Gradients;
pub use schedule::Schedule;
pub use transform::{Adam, Chain, Momentum, Transform, Turn};

use crate::autograd::LeafId;
use crate::device::observe::{self, Stage};
use crate::device::{Array, Device, Spec, Tag, tagged};
use crate::float;
use crate::module::{Module, Path};
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
    groups: Vec<Group>,
    state: BTreeMap<String, Vec<Array>>,
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
        Optimizer { transform: Box::new(transform), groups, state: BTreeMap::new() }
    }

    /// Allocates the state of every parameter that trains.
    pub fn prepare(&mut self, model: &dyn Module) {
        model.visit(&Path::root(), &mut |path, parameter| {
            if parameter.trains() {
                let fresh = || zeros(&self.transform.state(&parameter.tensor().spec()), parameter.tensor().device());
                self.state.entry(path.to_string()).or_insert_with(fresh);
            }
        });
    }

    /// Fits the state to parameters whose shape changed, such as those of adapters of another rank: in those that grew it
    /// stays, with zeros for what is new; in those that shrank it begins anew.
    pub fn resize(&mut self, model: &dyn Module) {
        model.visit(&Path::root(), &mut |path, parameter| {
            let Some(arrays) = self.state.get_mut(&path.to_string()) else { return };
            let specs = self.transform.state(&parameter.tensor().spec());
            if arrays.iter().map(Array::spec).ne(specs.iter().copied()) {
                let fresh = zeros(&specs, parameter.tensor().device());
                *arrays = fresh.into_iter().zip(arrays.drain(..)).map(|(new, old)| grown(old, new)).collect();
            }
        });
    }

    /// State by parameter path and name of the slot: what a checkpoint has to hold.
    pub fn state(&self) -> impl Iterator<Item = (String, &Array)> {
        let names = self.transform.slots();
        self.state.iter().flat_map(move |(path, arrays)| {
            let named = names.clone();
            arrays.iter().enumerate().map(move |(i, array)| (format!("{path}.{}", named[i]), array))
        })
    }

    /// The same, to restore it.
    pub fn state_mut(&mut self) -> impl Iterator<Item = (String, &mut Array)> {
        let names = self.transform.slots();
        self.state.iter_mut().flat_map(move |(path, arrays)| {
            let named = names.clone();
            arrays.iter_mut().enumerate().map(move |(i, array)| (format!("{path}.{}", named[i]), array))
        })
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
            self.record(model, gradients, None, &mut numbers);
            // What went wrong on the device comes out when the weights are read.
            let lost = |_| Stepped { norm: f64::NAN, taken: false };
            return numbers.read().map_or_else(lost, |found| found.stepped);
        }
        let norm = gradients.norm();
        if norm.is_infinite() || (norm.is_nan() && gradients.computes()) {
            return Stepped { norm, taken: false };
        }
        let factor = clip.filter(|&clip| norm > clip).map_or(1.0, |clip| clip / norm);
        let mut turns = turns(model, gradients, &mut self.state, &self.groups, rate);
        let kernels = |turns: &mut Vec<Turn<'_>>| self.transform.step(step, factor, turns);
        observe::launch("optimizer", Stage::Update, &mut turns, kernels, |turns| {
            turns.iter().map(|turn| &*turn.weight).collect()
        });
        Stepped { norm, taken: true }
    }

    /// Records one step for a GPU, which decides by itself whether it is taken; a `loss` that is not finite speaks
    /// against it too. The same commands serve every step that `numbers` are set for.
    pub fn record(
        &mut self,
        model: &mut dyn Module,
        gradients: Gradients,
        loss: Option<&Array>,
        numbers: &mut Numbers,
    ) {
        self.prepare(model);
        numbers.judge(&gradients, self.transform.decays().unwrap_or([0.5; 2]), loss);
        let mut turns = turns(model, gradients, &mut self.state, &self.groups, 1.0);
        let kernels = |turns: &mut Vec<Turn<'_>>| self.transform.record_step(numbers, turns);
        observe::launch("optimizer", Stage::Update, &mut turns, kernels, |turns| {
            turns.iter().map(|turn| &*turn.weight).collect()
        });
    }
}

/// Every parameter that has a gradient, with what its step needs.
fn turns<'a>(
    model: &'a mut dyn Module,
    gradients: Gradients,
    state: &'a mut BTreeMap<String, Vec<Array>>,
    groups: &[Group],
    rate: f64,
) -> Vec<Turn<'a>> {
    let mut gradients = gradients.into_map();
    let mut state: BTreeMap<&str, &mut Vec<Array>> = state.iter_mut().map(|(path, arrays)| (&**path, arrays)).collect();
    let mut turns = Vec::new();
    model.visit_mut(&Path::root(), &mut |path, parameter| {
        if let Some(gradient) = gradients.remove(&parameter.id()) {
            let path = path.to_string();
            let shape = *parameter.tensor().shape();
            let group = groups.iter().find(|group| (group.takes)(&path, &shape));
            let (scale, decay) = group.map_or((1.0, 0.0), |group| (group.rate, group.decay));
            let state = state.remove(&*path).expect("prepared before");
            turns.push(Turn {
                weight: parameter.value_mut(),
                gradient: Some(gradient),
                state,
                rate: rate * scale,
                decay,
            });
        }
    });
    turns
}

/// `new` with `old` in its corner, where that has room.
fn grown(old: Array, new: Array) -> Array {
    let (from, to) = (*old.shape(), *new.shape());
    if from.len() != to.len() || old.dtype() != new.dtype() || from.iter().zip(&to[..]).any(|(from, to)| from > to) {
        return new;
    }
    let pad = |x: Tensor, axis: usize| x.pad(axis as isize, 0, to[axis] - from[axis]);
    let padded = tagged(Tag::Optimizer, || (0..to.len()).fold(Tensor::from_array(old), pad).into_array());
    padded.retag(Tag::Optimizer);
    padded
}

fn zeros(specs: &[Spec], device: &Device) -> Vec<Array> {
    let zero = |spec: &Spec| {
        let mut array = tagged(Tag::Optimizer, || device.alloc(*spec));
        if device.computes() {
            float!(spec.dtype, T => array.fill(0.0 as T));
        }
        array
    };
    specs.iter().map(zero).collect()
}

/// Gradients by leaf, as the walk hands them over.
pub(crate) type ByLeaf = BTreeMap<LeafId, Array>;
