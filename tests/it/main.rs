//! What the whole crate promises, one file for each theme.

mod checker;
#[cfg(feature = "cli")]
mod cli;
mod data;
mod flip;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod gpu_matmul;
mod hessian;
#[cfg(feature = "cli")]
mod kill;
mod large;
mod ledger;
mod methods;
mod ops;
mod plan;
mod refusals;
mod resume;
mod second_order;
mod style;
mod tiny;
mod torch;
mod views;
