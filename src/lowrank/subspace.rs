//! Optimizers whose state lives in a subspace of a matrix's smaller side.

use super::projection::{Basis, Projection, sides};
use crate::device::{Array, Spec};
use crate::ops::project::smaller_first;
use crate::optim::{At, Slot, Transform};
use crate::shape::Shape;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Any transform on compressed state: the gradient G [m, n] (m ≤ n; else its transpose) goes down to P G [rank, n], the
/// `inner` transform makes an update of that, and the `lift` makes a full update of this one. Parameters that are not
/// matrices, and matrices whose smaller side is below the rank, are left to `inner` as they are.
pub struct InSubspace {
    /// How subspaces are chosen.
    pub projection: Projection,
    /// Dimension of the subspaces.
    pub rank: usize,
    /// Steps from one subspace to the next (the papers' κ or T).
    pub resample: u64,
    /// What happens to the state when the subspace changes.
    pub transfer: Transfer,
    /// Works on compressed gradients.
    pub inner: Box<dyn Transform>,
    /// From a compressed update to a full one.
    pub lift: Lift,
    /// Factor on lifted updates.
    pub scale: f64,
    /// An update of a compressed parameter may be this many times as long as the last one at most (Fira's limiter, Chen
    /// et al. 2024, as APOLLO has it). State: 1 float.
    pub limit: Option<f64>,
}

/// What happens to compressed state when the subspace changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// Moved by Q = P_new P_oldᵀ, as if lifted and brought down again (Flora). With random P it makes it longer, by
    /// √(size/rank) on average.
    Transfer,
    /// Moved by √(rank/size) Q, which keeps its length on average; by Q itself where rows of P are orthonormal.
    Scaled,
    /// Begins again at zero.
    Reset,
    /// Its numbers stay, and mean something else from now on (GaLore, APOLLO).
    Keep,
}

impl Transfer {
    /// Whether state is moved by a product.
    fn moves(self) -> bool {
        matches!(self, Transfer::Transfer | Transfer::Scaled)
    }
}

/// From a compressed update to a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lift {
    /// Pᵀ u.
    Up,
    /// For a running mean of gradients: the new gradient's share is taken as it is, only what is remembered is lifted
    /// (Flora).
    FreshAndUp,
    /// For a running mean too: the gradient, and of its part within the subspace the direction of the mean instead, with
    /// the length that the part has. What lies outside stays as it is, so that low ranks decode no noise; rank 0 would
    /// be no momentum. Transfers of the mean are of little use to it: see EXPERIMENTS.md.
    Within,
    /// The gradient, each column scaled as the compressed update scaled the compressed gradient's (APOLLO).
    Columns,
    /// The gradient, scaled as a whole in the same way (APOLLO-Mini).
    Whole,
}

/// Keeps quotients of norms finite, as in APOLLO's published code.
const EPSILON: f64 = 1e-8;

impl InSubspace {
    /// Whether a parameter of this shape is compressed.
    pub fn compresses(&self, shape: &Shape) -> bool {
        sides(shape).is_some_and(|[small, _]| small >= self.rank)
    }

    fn gain(&self, size: usize) -> f64 {
        self.projection.gain(self.rank, size)
    }

    /// The subspace of step `step`, for a gradient whose smaller side is `size`; `kept` is the slot of its basis.
    fn basis(&self, at: &At<'_>, step: u64, size: usize, kept: Option<&Array>) -> Basis {
        let seed = at.seed.named("subspace").fold(step / self.resample);
        match (self.projection.random(self.rank, seed), kept) {
            (Some(random), _) => Basis::Random(random, size),
            (None, kept) => Basis::Kept(Tensor::from_array(kept.expect("a kept basis has a slot").clone())),
        }
    }

    /// The subspace that the step works in, chosen anew every `resample` steps.
    fn current(&self, at: &At<'_>, g: &Tensor, own: &mut [Array], inner: &mut [Array]) -> Basis {
        let (step, size) = (at.now.step, g.shape()[0]);
        if !step.is_multiple_of(self.resample) {
            return self.basis(at, step, size, own.first());
        }
        let moves = step > 0 && self.transfer.moves();
        let old = moves.then(|| match self.basis(at, step - 1, size, own.first()) {
            // A GPU writes the new basis over the old one.
            Basis::Kept(p) => Basis::Kept(Tensor::from_array(p.array().to_owned())),
            seed => seed,
        });
        let new = match own.first_mut() {
            None => self.basis(at, step, size, None),
            Some(slot) => {
                let seed = at.seed.named("subspace").fold(step / self.resample);
                // A gradient that has no decomposition is not finite, and then no step is taken.
                if let Ok(basis) = self.projection.basis(g, self.rank, seed) {
                    at.store(slot, basis);
                }
                Basis::Kept(Tensor::from_array(slot.clone()))
            }
        };
        if let Some(old) = old {
            let shrink = if self.transfer == Transfer::Scaled { self.gain(size).sqrt().recip() } else { 1.0 };
            let moves = self.inner.moves().expect("state that is to be moved can be");
            moves.change_basis(at, inner, &(new.overlap(&old, g) * shrink));
        }
        if step > 0 && self.transfer == Transfer::Reset {
            for slot in inner {
                let zeros = Tensor::from_array(slot.clone()).zeros_like();
                at.store(slot, zeros.contiguous());
            }
        }
        new
    }

    /// What is remembered of gradients, lifted from the subspace that it is in before the step, and the new one's share.
    fn fresh(&self, at: &At<'_>, g: &Tensor, own: &[Array], inner: &[Array]) -> Tensor {
        let [decay, share] = self.inner.mean().expect("fresh and up is for a running mean");
        let before = at.now.step.saturating_sub(1);
        let basis = self.basis(at, before, g.shape()[0], own.first());
        let remembered = Tensor::from_array(inner[0].clone()) * decay;
        g * share + basis.up(&remembered)
    }

    fn lifted(&self, basis: &Basis, g: &Tensor, before: Option<Tensor>, update: &Tensor) -> Tensor {
        let quotient =
            |axes: &[isize]| norm(update, axes) / (norm(before.as_ref().expect("kept for its norms"), axes) + EPSILON);
        match self.lift {
            Lift::Up => basis.up(update),
            Lift::Columns => g * quotient(&[0]),
            Lift::Whole => g * quotient(&[0, 1]),
            Lift::Within => {
                let before = before.as_ref().expect("kept for its length");
                let directed = update * (norm(before, &[0, 1]) / (norm(update, &[0, 1]) + EPSILON));
                g + basis.up(&((directed - before) * (1.0 / self.gain(g.shape()[0]))))
            }
            Lift::FreshAndUp => unreachable!("made before the state changes"),
        }
    }

    fn compressed(&self, at: &At<'_>, state: &mut [Array], gradient: Array) -> Tensor {
        let full = Tensor::from_array(at.scaled(gradient));
        let g = smaller_first(&full);
        let (own, inner) = state.split_at_mut(usize::from(!self.projection.is_seed()));
        let (norm, inner) = inner.split_at_mut(usize::from(self.limit.is_some()));
        let fresh = (self.lift == Lift::FreshAndUp).then(|| self.fresh(at, &g, own, inner));
        let basis = self.current(at, &g, own, inner);
        let down = basis.down(&g).contiguous();
        let compares = matches!(self.lift, Lift::Columns | Lift::Whole | Lift::Within);
        let before = compares.then(|| down.clone());
        let down = if compares { down.array().to_owned() } else { down.into_array() };
        let update = Tensor::from_array(self.inner.update(&at.after(), inner, down));
        let lifted = fresh.unwrap_or_else(|| self.lifted(&basis, &g, before, &update));
        let scaled = if self.scale == 1.0 { lifted } else { lifted * self.scale };
        let scaled = match (self.limit, norm.first_mut()) {
            (Some(limit), Some(norm)) => limited(at, scaled, norm, limit),
            _ => scaled,
        };
        if full.shape() == g.shape() { scaled } else { scaled.t() }
    }
}

/// Euclidean norm over these axes, which stay with size 1.
fn norm(x: &Tensor, axes: &[isize]) -> Tensor {
    (x * x).sum_keep(axes).sqrt()
}

/// The update, made shorter if it is more than `limit` times as long as the last, whose length is in `norm`; the first
/// is as long as it is.
fn limited(at: &At<'_>, update: Tensor, norm: &mut Array, limit: f64) -> Tensor {
    let last = Tensor::from_array(norm.clone());
    let most = &last * limit;
    let length = update.dot(&update).sqrt();
    // The first has nothing to be compared with.
    let most = last.greater(&last.zeros_like()).select(&most, &length);
    let scale = length.greater(&most).select(&(&most / &length), &length.ones_like());
    let now = &length * &scale;
    drop((last, most));
    at.store(norm, now);
    update * scale
}

impl Transform for InSubspace {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        let Some([small, large]) = sides(&parameter.shape).filter(|_| self.compresses(&parameter.shape)) else {
            return self.inner.state(parameter);
        };
        let spec = |rows, columns| Spec::new(parameter.dtype, [rows, columns]);
        let basis = (!self.projection.is_seed()).then(|| ("basis", spec(self.rank, small)));
        let norm = self.limit.map(|_| ("norm", Spec::new(parameter.dtype, [])));
        basis.into_iter().chain(norm).chain(self.inner.state(&spec(self.rank, large))).collect()
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], gradient: Array) -> Array {
        if !self.compresses(gradient.shape()) {
            return self.inner.update(at, state, gradient);
        }
        self.compressed(at, state, gradient).contiguous().into_array()
    }

    fn decays(&self) -> Option<[f64; 2]> {
        self.inner.decays()
    }

    fn era(&self, step: u64) -> u64 {
        2 * (step / self.resample) + u64::from(step.is_multiple_of(self.resample))
    }

    fn check(&self, parameter: &Spec) -> Result<(), String> {
        if !self.compresses(&parameter.shape) {
            return self.inner.check(parameter);
        }
        if matches!(self.lift, Lift::FreshAndUp | Lift::Within) && self.inner.mean().is_none() {
            return Err("this lift is for a running mean, which the inner transform is not".into());
        }
        if self.transfer.moves() && self.inner.moves().is_none() {
            return Err("state of the inner transform cannot be moved to another subspace: reset or keep it".into());
        }
        let (Some([small, _]), Some([decay, _])) = (sides(&parameter.shape), self.inner.mean()) else { return Ok(()) };
        if self.transfer != Transfer::Transfer {
            return Ok(());
        }
        let growth = self.gain(small).sqrt();
        let kept = decay.powf(self.resample as f64) * growth;
        if kept <= 0.5 {
            return Ok(());
        }
        let least = ((2.0 * growth).ln() / -decay.ln()).ceil();
        Err(format!(
            "a transfer every {} steps would let momentum {decay} of rank {} grow without bound in a matrix of {:?}: \
             resample every {least} steps at least, or transfer it scaled",
            self.resample, self.rank, parameter.shape
        ))
    }
}
