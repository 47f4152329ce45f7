//! Which rank goes where: what each layer gains by rank, and how a budget is shared out.
//!
//! Sensitivities and gain curves say how much a rank-r update of a layer can win; an allocation spends a budget of
//! parameters or bytes on what wins most. Models are seen by the paths of their layers alone, data only as functions that
//! give a loss.

mod allocate;
mod curve;
mod estimate;
mod factors;
mod hutchinson;
mod known;
mod lanczos;
mod losses;
mod online;
mod operator;
mod search;
mod shift;
mod spectrum;
mod survey;
mod tails;
mod taps;
mod traces;

pub use allocate::{Allocation, Bounds, Rule, allocate};
pub use curve::Curve;
pub use estimate::Estimate;
pub use factors::factor_ranks;
pub use hutchinson::{hutch_plus_plus, hutchinson};
pub use known::{of_adapters, of_change};
pub use lanczos::{Density, Eigenvalue, density, eigenvalues};
pub use losses::{Losses, draw_targets};
pub use online::{Candidate, candidates};
pub use operator::{Hessian, Symmetric, Vector};
pub use search::{Proposals, rungs};
pub use survey::{Sensitivity, Survey, Surveyed};
pub use tails::Tail;
pub use traces::Traces;
