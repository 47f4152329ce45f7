//! Low rank: matrices taken apart, and maps made of their factors.

mod adapt;
mod dense;
mod dora;
mod lora;
mod merge;
mod names;
mod plus;
mod resize;
mod start;
pub mod svd;

pub use adapt::{AdapterConfig, adapt};
pub use lora::Lora;
pub use merge::{Keep, bake, merge, unmerge};
pub use names::{ALL_LINEAR, each};
pub use plus::LoraPlus;
pub use start::Start;
