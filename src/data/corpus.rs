//! A text, cut into what is learnt and what is held back.

use super::Vocabulary;
use crate::error::{Error, Result};
use std::path::Path;

/// One token or example in this many is held back for validation: the last tenth.
pub(super) const HELD_BACK: usize = 10;

/// A text as tokens.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// What the tokens stand for.
    pub vocabulary: Vocabulary,
    /// Tokens to learn from.
    pub train: Vec<u32>,
    /// The last tenth, never learnt from.
    pub validation: Vec<u32>,
}

impl Corpus {
    /// Cuts up a text, by character or by byte; `origin` names it in errors.
    pub fn new(text: &[u8], origin: &Path) -> Result<Corpus> {
        if text.is_empty() {
            return Err(Error::Data { path: origin.into(), problem: "the text is empty".into() });
        }
        let vocabulary = Vocabulary::of(text);
        let [train, validation] = cut(vocabulary.encode(text)?);
        Ok(Corpus { vocabulary, train, validation })
    }

    /// Checks that both parts are [long enough](long_enough).
    pub fn check(&self, context: usize, origin: &Path) -> Result<()> {
        long_enough([&self.train, &self.validation], context, origin)
    }
}

/// Tokens to learn from, and the last tenth, held back.
pub fn cut(mut tokens: Vec<u32>) -> [Vec<u32>; 2] {
    let validation = tokens.split_off(tokens.len() - tokens.len() / HELD_BACK);
    [tokens, validation]
}

/// Checks that both parts hold a window of `context` tokens and the one after it; says what to do if not.
pub fn long_enough(parts: [&[u32]; 2], context: usize, origin: &Path) -> Result<()> {
    let shortest = parts[0].len().min(parts[1].len());
    if shortest > context {
        return Ok(());
    }
    let tokens = parts[0].len() + parts[1].len();
    let way_out = match shortest {
        0 | 1 => format!("give it a text of at least {} tokens", 2 * HELD_BACK),
        _ => format!("take a longer text, or a context of at most {}", shortest - 1),
    };
    let problem = format!(
        "too short: {tokens} tokens, {shortest} of them held back for validation, where a context of {context} \
         needs {}; {way_out}",
        context + 1
    );
    Err(Error::Data { path: origin.into(), problem })
}
