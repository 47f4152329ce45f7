//! Low rank: matrices taken apart, and maps made of their factors.

mod adapt;
mod bank;
mod dense;
mod dora;
mod dropout;
mod factored;
mod factorize;
mod lora;
mod merge;
mod moments;
mod names;
mod plus;
mod resize;
mod start;
pub mod svd;

pub use adapt::{AdapterConfig, adapt};
pub use bank::{Bank, bank, select};
pub use dropout::with_dropout;
pub use factored::Factored;
pub use factorize::{Method, Replaced, Sketch, Weighting, factorize};
pub use lora::Lora;
pub use merge::{Keep, bake, merge, unmerge};
pub use moments::{Moments, moments};
pub use names::{ALL_LINEAR, each};
pub use plus::LoraPlus;
pub use start::Start;
