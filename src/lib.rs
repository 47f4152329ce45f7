#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
// The documentation asks of every type whether it may be sent between threads, and those behind a GPU are deep.
#![recursion_limit = "256"]

pub mod autograd;
pub mod data;
pub mod device;
pub mod dtype;
pub mod error;
pub mod io;
pub mod lowrank;
pub mod module;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod rank;
pub mod rng;
pub mod scalar;
pub mod shape;
pub mod tensor;
pub mod train;

pub use autograd::check;
pub use device::{Array, Bytes, Device, Spec, Tag};
pub use dtype::DType;
pub use error::{Error, Result};
pub use module::{LinearMap, Module, Parameter};
pub use rng::Seed;
pub use shape::Shape;
pub use tensor::Tensor;
