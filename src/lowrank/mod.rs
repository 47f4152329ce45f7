//! Low rank: optimizers in subspaces, adapters, matrices taken apart and maps made of their factors.

mod adapt;
mod bank;
mod dense;
mod dora;
mod dropout;
mod factored;
mod factorize;
mod hadamard;
mod lora;
mod merge;
mod moments;
mod names;
mod optimizers;
mod plus;
mod projection;
mod resize;
mod select;
mod start;
mod subspace;
pub mod svd;

pub use adapt::{AdapterConfig, adapt};
pub use bank::{Bank, bank};
pub use dropout::with_dropout;
pub use factored::Factored;
pub use factorize::{Method, Replaced, Sketch, Weighting, factorize};
pub use hadamard::{Hadamard, hadamard};
pub use lora::Lora;
pub use merge::{Keep, bake, merge, unmerge};
pub use moments::{Moments, moments};
pub use names::{ALL, ALL_LINEAR, chosen, each, others};
pub use optimizers::{Subspaces, apollo, apollo_mini, compressed_adam, flora, galore};
pub use plus::LoraPlus;
pub use projection::{Basis, Projection};
pub use select::select;
pub use start::Start;
pub use subspace::{InSubspace, Lift, Transfer};
