//! Low rank: optimizers in subspaces, adapters, matrices taken apart and maps made of their factors.

mod bank;
mod dense;
mod factored;
mod factorize;
mod hadamard;
mod moments;
mod names;
mod optimizers;
mod projection;
mod select;
mod subspace;
pub mod svd;

pub use bank::{Bank, bank};
pub use factored::Factored;
pub use factorize::{Method, Replaced, Sketch, Weighting, factorize};
pub use hadamard::{Hadamard, hadamard};
pub use moments::{Moments, moments};
pub use names::ALL_LINEAR;
pub use optimizers::{Subspaces, apollo, apollo_mini, compressed_adam, flora, galore};
pub use projection::{Basis, Projection};
pub use select::select;
pub use subspace::{InSubspace, Lift, Transfer};
