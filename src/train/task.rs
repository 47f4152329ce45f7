//! What a model of files is fine-tuned for.

use serde::{Deserialize, Serialize};

/// What is learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A language: by the next token, or in an encoder by hidden ones.
    #[default]
    Lm,
    /// Which of some classes a text, or a pair of texts, belongs to.
    Classify,
}
