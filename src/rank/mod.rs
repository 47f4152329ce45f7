//! Which rank goes where: what each layer gains by rank, and how a budget is shared out.
//!
//! Sensitivities and gain curves say how much a rank-r update of a layer can win; an allocation spends a budget of
//! parameters or bytes on what wins most. Models are seen by the paths of their layers alone, data only as functions that
//! give a loss.

mod allocate;
mod curve;
mod factors;
mod tails;

pub use allocate::{Allocation, Bounds, Rule, allocate};
pub use curve::Curve;
pub use factors::factor_ranks;
pub use tails::Tail;
