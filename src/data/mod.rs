//! Text as tokens, and which tokens each step sees: all of it functions of content, seed and step.

mod batches;
mod corpus;
mod vocabulary;

pub use batches::{Batch, IGNORED, training_batch, validation_batches};
pub use corpus::Corpus;
pub use vocabulary::Vocabulary;

/// This crate's own documents and source, as they were when it was built.
pub const EMBEDDED: &str = include_str!(concat!(env!("OUT_DIR"), "/corpus.txt"));
