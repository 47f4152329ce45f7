//! Low rank: matrices taken apart, and maps made of their factors.

mod dense;
pub mod svd;
