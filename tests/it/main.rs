//! What the whole crate promises, one file for each theme.

#[cfg(feature = "cli")]
mod cli;
mod data;
mod flip;
mod hessian;
mod kill;
mod large;
mod ledger;
mod ops;
mod plan;
mod refusals;
mod resume;
mod second_order;
mod style;
#[cfg(feature = "cli")]
mod tiny;
mod torch;
mod views;
