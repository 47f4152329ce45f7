//! The published low-rank optimizers, as what they are composed of. For a matrix [m, n] with m ≤ n and rank r, state in
//! floats; a seed takes none.

use super::projection::Projection;
use super::subspace::{InSubspace, Lift, Transfer};
use crate::optim::{Adam, Chain, ClipRms, Factored, Mean, ScaleByWeight, Transform};

/// What low-rank optimizers have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subspaces {
    /// How they are chosen.
    pub projection: Projection,
    /// Their dimension.
    pub rank: usize,
    /// Steps from one to the next.
    pub resample: u64,
    /// What happens to state at a change.
    pub transfer: Transfer,
}

impl Subspaces {
    fn with(self, inner: impl Transform + 'static, lift: Lift) -> InSubspace {
        let Subspaces { projection, rank, resample, transfer } = self;
        InSubspace { projection, rank, resample, transfer, inner: Box::new(inner), lift, scale: 1.0, limit: None }
    }
}

/// Flora (Hao et al. 2024): Adafactor whose momentum is kept compressed. State: r n + m + n.
///
/// The parts stand in the order of the published PyTorch code: second moment of the full gradient, momentum of what
/// that gives, clip, scale. As published, `lift` is [`Lift::FreshAndUp`] and momentum is moved by [`Transfer::Transfer`];
/// [`Lift::Within`] with [`Transfer::Reset`] did better at every rank tried, see EXPERIMENTS.md.
pub fn flora(subspaces: Subspaces, momentum: f64, lift: Lift, scale_parameter: bool) -> Chain {
    let mut links: Vec<Box<dyn Transform>> = vec![
        Box::new(Factored::default()),
        Box::new(subspaces.with(Mean { beta: momentum }, lift)),
        Box::new(ClipRms { threshold: 1.0 }),
    ];
    if scale_parameter {
        links.push(Box::new(ScaleByWeight));
    }
    Chain(links)
}

/// GaLore (Zhao et al. 2024): Adam in the span of the gradient's leading singular vectors. State: m r + 2 n r.
pub fn galore(subspaces: Subspaces, adam: Adam, scale: f64) -> InSubspace {
    InSubspace { scale, ..subspaces.with(adam, Lift::Up) }
}

/// Adam with both moments compressed, the second moved between subspaces by LDAdam's rule. State: 2 n r.
pub fn compressed_adam(subspaces: Subspaces, adam: Adam) -> InSubspace {
    subspaces.with(adam, Lift::Up)
}

/// APOLLO (Zhu et al. 2024): the gradient with each column scaled as compressed Adam would. State: 2 n r + 1.
pub fn apollo(subspaces: Subspaces, adam: Adam, scale: f64) -> InSubspace {
    InSubspace { scale, limit: Some(GROWTH), ..subspaces.with(adam, Lift::Columns) }
}

/// APOLLO-Mini: rank 1, and one scale for the whole matrix. State: 2 n + 1.
pub fn apollo_mini(subspaces: Subspaces, adam: Adam, scale: f64) -> InSubspace {
    InSubspace { scale, limit: Some(GROWTH), ..Subspaces { rank: 1, ..subspaces }.with(adam, Lift::Whole) }
}

/// Most that an update grows from one step to the next (γ of the paper).
const GROWTH: f64 = 1.01;
