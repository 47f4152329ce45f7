//! Proof of derivatives, for the ops of this crate and for a user's own.
//!
//! [`sample`] checks one op in double precision on the host: its rules against differences, against each other, and
//! against the composition it claims to equal. [`device`] then only has to compare values: an op whose rules are
//! right on the host, and whose kernels compute the same numbers, is right everywhere.
//!
//! ```
//! # use eckart::{Seed, autograd::check, ops};
//! for sample in &ops::samples()[..3] {
//!     check::sample(sample, Seed(0)).verdict().unwrap();
//! }
//! ```

mod against;
mod first;
mod layouts;
mod report;
mod second;
mod sizes;
mod subject;

pub use against::{Row, device};
pub use report::{Finding, Kind, Report};

use super::Derivative;
use crate::ops::Sample;
use crate::rng::Seed;
use subject::Subject;

/// Checks an op's derivative on a sample's operands, drawn from `seed`.
///
/// Operands that are indices, or declared constant, are exempt; so is everything but the value of an op of class
/// [`Derivative::Zero`]. An op that rounds its result to a storage type has no differences to be compared with:
/// there the rule has to be the cast back. Panics if the result is not what [`Op::infer`](crate::ops::Op::infer)
/// promised.
pub fn sample(sample: &Sample, seed: Seed) -> Report {
    let subject = Subject::new(sample, seed);
    let mut report = Report::new(sample);
    subject.keeps_promise();
    layouts::check(&subject, &mut report);
    if matches!(sample.op.derivative(), Derivative::Zero) || subject.moving.is_empty() {
        return report;
    }
    if subject.rounds() {
        first::check_cast(&subject, &mut report);
        return report;
    }
    first::check(&subject, &mut report);
    second::check(&subject, &mut report);
    report
}
