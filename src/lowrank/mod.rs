//! Low rank: matrices taken apart, and maps made of their factors.

mod bank;
mod dense;
mod factored;
mod factorize;
mod hadamard;
mod moments;
mod names;
mod select;
pub mod svd;

pub use bank::{Bank, bank};
pub use factored::Factored;
pub use factorize::{Method, Replaced, Sketch, Weighting, factorize};
pub use hadamard::{Hadamard, hadamard};
pub use moments::{Moments, moments};
pub use names::ALL_LINEAR;
pub use select::select;
