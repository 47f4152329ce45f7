//! Text as tokens, and which tokens each step sees: all of it functions of content, seed and step.
//!
//! A [`Corpus`] is one text by characters or bytes, learnt from scratch. [`Batches`] are examples in shuffled epochs,
//! for fine-tuning; with the feature `hub` they are read from data sets (`Dataset`) by the tokenizer of a published
//! model (`Tokenizer`). For encoders tokens are hidden ([`Masking`]), and texts with labels are `Texts`.

mod batches;
#[cfg(feature = "hub")]
mod chat;
mod corpus;
mod epochs;
mod example;
#[cfg(feature = "hub")]
mod examples;
mod masking;
mod order;
mod specials;
#[cfg(feature = "hub")]
mod texts;
#[cfg(feature = "hub")]
mod tokenizer;
mod vocabulary;

pub use batches::{Batch, IGNORED, training_batch, validation_batches};
#[cfg(feature = "hub")]
pub use chat::Message;
pub use corpus::{Corpus, cut, long_enough};
pub use epochs::{Batches, Layout};
pub use example::{Example, windows};
#[cfg(feature = "hub")]
pub use examples::{Columns, Dataset, Examples, Form, Labelled, LabelledData, LabelledSet, Reading};
pub use masking::{Framing, MASKED, Masking, masked};
pub use order::{Buckets, permutation};
pub use specials::Specials;
#[cfg(feature = "hub")]
pub use texts::{Goal, Texts};
#[cfg(feature = "hub")]
pub use tokenizer::{Framed, Pieces, Tokenizer};
pub use vocabulary::Vocabulary;

/// This crate's own documents and source, as they were when it was built.
pub const EMBEDDED: &str = include_str!(concat!(env!("OUT_DIR"), "/corpus.txt"));
