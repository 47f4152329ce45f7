//! What the whole crate promises, one file for each theme.

mod flip;
mod ledger;
mod ops;
mod second_order;
mod style;
mod views;
