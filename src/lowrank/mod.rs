//! Low rank: matrices taken apart, and maps made of their factors.

mod bank;
mod dense;
mod factored;
mod factorize;
mod moments;
mod names;
pub mod svd;

pub use bank::{Bank, bank, select};
pub use factored::Factored;
pub use factorize::{Method, Replaced, Sketch, Weighting, factorize};
pub use moments::{Moments, moments};
pub use names::ALL_LINEAR;
