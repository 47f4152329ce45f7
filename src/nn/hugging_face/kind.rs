//! The classes that are known.

use crate::error::{Error, Result};

/// Classes with what they have of their own.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Gpt2,
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Bert,
    Roberta,
}

impl Kind {
    const ALL: [(&str, Kind); 7] = [
        ("gpt2", Kind::Gpt2),
        ("llama", Kind::Llama),
        ("mistral", Kind::Mistral),
        ("qwen2", Kind::Qwen2),
        ("qwen3", Kind::Qwen3),
        ("bert", Kind::Bert),
        ("roberta", Kind::Roberta),
    ];

    pub fn named(name: &str) -> Result<Kind> {
        let known = Kind::ALL.map(|(name, _)| name).join(", ");
        let found = Kind::ALL.iter().find(|(one, _)| *one == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| Error::Config(format!("model_type {name} is not supported: {known} are")))
    }
}
