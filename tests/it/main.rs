//! What the whole crate promises, one file for each theme.

mod flip;
mod hessian;
mod ledger;
mod ops;
mod second_order;
mod style;
mod torch;
mod views;
