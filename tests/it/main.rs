//! What the whole crate promises, one file for each theme.

mod cli;
mod data;
mod flip;
mod hessian;
mod kill;
mod ledger;
mod ops;
mod plan;
mod resume;
mod second_order;
mod style;
mod tiny;
mod torch;
mod views;
