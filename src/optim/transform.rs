//! From gradient to update: what optimizers are composed of.

use super::{Numbers, Turn};
use crate::device::{Array, Spec, Tag, cpu, tagged};
use crate::float;
use crate::rng::Seed;
use crate::scalar::{Float, Real};
use crate::tensor::Tensor;

/// An array of a parameter's state: its name in checkpoints, its type and shape.
pub type Slot = (&'static str, Spec);

/// Turns a parameter's gradient into its update, with state of its own.
///
/// `update` may be written in tensor operations, which run on any device; what changes from step to step then has to
/// come from [`At`], and state has to be written by [`At::store`], so that a GPU can replay the step.
pub trait Transform: Send + Sync {
    /// The state of a parameter; it starts at zero.
    fn state(&self, parameter: &Spec) -> Vec<Slot>;

    /// The update for a gradient, which may be written over it.
    fn update(&self, at: &At<'_>, state: &mut [Array], gradient: Array) -> Array;

    /// Decays of the two running means whose start at zero is corrected for, if there are any.
    fn decays(&self) -> Option<[f64; 2]> {
        None
    }

    /// What kind of step this is: a recorded step is replayed only for steps of the same era. `step` counts from 0.
    fn era(&self, _step: u64) -> u64 {
        0
    }

    /// If the update is `decay` times the only slot plus `share` times the gradient, and is what the slot then holds:
    /// `[decay, share]`.
    fn mean(&self) -> Option<[f64; 2]> {
        None
    }

    /// Slots of a parameter's state whose new elements, where a parameter has grown, begin at the mean of the old ones; those
    /// of all others at zero.
    fn grows_at_mean(&self) -> &'static [&'static str] {
        &[]
    }

    /// What is wrong with this transform for such a parameter, if anything.
    fn check(&self, _parameter: &Spec) -> Result<(), String> {
        Ok(())
    }

    /// How state that lies in a subspace moves to another one, if it can.
    fn moves(&self) -> Option<&dyn ChangeBasis> {
        None
    }

    /// The step of all parameters: each in turn by its update. A transform with a kernel that goes over weight,
    /// gradient and state at once overrides it.
    fn step(&self, now: &Now<'_>, turns: &mut [Turn<'_>]) {
        for turn in turns {
            let gradient = turn.gradient();
            let update = self.update(&now.at(turn.weight, turn.seed), turn.state, gradient);
            now.subtract(turn, &update);
        }
    }
}

/// What a transform can do whose state may lie in a subspace.
pub trait ChangeBasis {
    /// Moves state that belongs to a subspace of dimension r into another one: `q` is [r, r].
    fn change_basis(&self, at: &At<'_>, state: &mut [Array], q: &Tensor);
}

/// A step, as all parameters see it.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    /// Steps taken before this one; on a GPU, before the first of those that the recorded commands serve.
    pub step: u64,
    /// What gradients are multiplied by, on the host: the clip's factor.
    pub factor: f64,
    /// On a GPU, where it finds what changes from step to step.
    pub numbers: Option<&'a Numbers>,
}

impl<'a> Now<'a> {
    /// As one parameter sees it.
    pub fn at<'b>(&self, weight: &'b Array, seed: Seed) -> At<'b>
    where
        'a: 'b,
    {
        At { now: *self, seed, weight, first: true }
    }

    /// `w −= rate (u + decay w)`.
    pub fn subtract(&self, turn: &mut Turn<'_>, update: &Array) {
        match self.numbers {
            Some(numbers) => numbers.subtract(turn.weight, update, turn.rate, turn.decay),
            None => subtract(turn.weight, update, turn.rate, turn.decay),
        }
    }
}

/// A step, as one parameter sees it.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The step.
    pub now: Now<'a>,
    /// A seed of the parameter's own: a function of the run's seed and the parameter's path.
    pub seed: Seed,
    /// The parameter's value before the step.
    pub weight: &'a Array,
    /// Whether the gradient is still to be multiplied by the clip's factor.
    pub(super) first: bool,
}

impl At<'_> {
    /// The same for a transform that works on what another has made.
    pub fn after(&self) -> Self {
        At { first: false, ..*self }
    }

    /// Factor on the gradient that is known on the host.
    pub(super) fn factor(&self) -> f64 {
        if self.first { self.now.factor } else { 1.0 }
    }

    /// The gradient times the clip's factor, in place.
    pub fn scaled(&self, mut gradient: Array) -> Array {
        match self.now.numbers {
            Some(numbers) if self.first => numbers.scale(&mut gradient),
            _ if self.factor() != 1.0 => scale(&mut gradient, self.factor()),
            _ => {}
        }
        gradient
    }

    /// Steps taken, this one included: a scalar of the weight's type.
    pub fn time(&self) -> Tensor {
        match self.now.numbers {
            Some(numbers) => numbers.time(),
            None => {
                let spec = Spec::new(self.weight.dtype(), []);
                tagged(Tag::Workspace, || Tensor::full(self.now.step as f64 + 1.0, spec, self.weight.device()))
            }
        }
    }

    /// Puts a new value into a slot of the state, if the step is taken.
    pub fn store(&self, slot: &mut Array, value: Tensor) {
        assert_eq!(slot.spec(), value.spec(), "a slot keeps its type and shape");
        if let Some(numbers) = self.now.numbers {
            return numbers.store(slot, &value.contiguous().into_array());
        }
        let value = value.into_array();
        *slot = if value.owned() { value } else { tagged(Tag::Optimizer, || value.to_owned()) };
        slot.retag(Tag::Optimizer);
    }
}

fn scale(gradient: &mut Array, factor: f64) {
    if gradient.device().computes() {
        float!(gradient.dtype(), T => {
            let factor = <T as Real>::of(factor);
            cpu::rows(gradient.slice_mut::<T>(), 1, |_, g| g.iter_mut().for_each(|g| *g *= factor));
        });
    }
}

/// `w -= rate (u + decay w)`.
fn subtract(weight: &mut Array, update: &Array, rate: f64, decay: f64) {
    if weight.device().computes() {
        float!(weight.dtype(), T => subtract_as::<T>(weight, update, rate, decay));
    }
}

fn subtract_as<T: Float>(weight: &mut Array, update: &Array, rate: f64, decay: f64) {
    let (keep, rate) = (<T as Real>::of(1.0 - rate * decay), <T as Real>::of(rate));
    let update = update.slice::<T>();
    cpu::rows(weight.slice_mut::<T>(), 1, |first, w| {
        let u = &update[first..first + w.len()];
        cpu::simd(
            #[inline(always)]
            || {
                for (w, u) in w.iter_mut().zip(u) {
                    *w = *w * keep - rate * *u;
                }
            },
        );
    });
}

/// Transforms one after the other, each working on what the last one made.
pub struct Chain(pub Vec<Box<dyn Transform>>);

impl Transform for Chain {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        self.0.iter().flat_map(|transform| transform.state(parameter)).collect()
    }

    fn update(&self, at: &At<'_>, mut state: &mut [Array], gradient: Array) -> Array {
        let spec = gradient.spec();
        let (mut update, mut at) = (gradient, *at);
        for transform in &self.0 {
            let (own, rest) = state.split_at_mut(transform.state(&spec).len());
            update = transform.update(&at, own, update);
            state = rest;
            at = at.after();
        }
        update
    }

    fn decays(&self) -> Option<[f64; 2]> {
        self.0.iter().find_map(|transform| transform.decays())
    }

    fn era(&self, step: u64) -> u64 {
        self.0.iter().map(|transform| transform.era(step)).max().unwrap_or_default()
    }

    fn check(&self, parameter: &Spec) -> Result<(), String> {
        self.0.iter().try_for_each(|transform| transform.check(parameter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::optim::Momentum;

    /// Each link has its own part of the state, and the factor scales the gradient once.
    #[test]
    fn a_chain_works_on_what_the_last_link_made() {
        let device = Device::cpu();
        let one = |x: f64| device.upload(&[x], [1].into());
        let chain = Chain(vec![Box::new(Momentum { beta: 0.5 }), Box::new(Momentum { beta: 0.25 })]);
        assert_eq!(chain.state(&one(0.0).spec()).len(), 2);
        let (mut state, weight) = ([one(0.0), one(0.0)], one(0.0));
        let at = At { now: Now { step: 0, factor: 2.0, numbers: None }, seed: Seed(0), weight: &weight, first: true };
        let mut step = |gradient: f64| chain.update(&at, &mut state, one(gradient)).slice::<f64>()[0];
        assert_eq!(step(1.0), 2.0); // first link 2, second 2
        assert_eq!(step(1.0), 3.5); // first link 1 + 2, second 0.5 + 3
    }
}
