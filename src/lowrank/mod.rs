//! Low rank: matrices taken apart, and maps made of their factors.

mod bank;
mod dense;
mod names;
pub mod svd;

pub use bank::{Bank, bank, select};
pub use names::ALL_LINEAR;
