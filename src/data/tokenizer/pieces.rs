//! Text while it is generated.

use super::Tokenizer;

/// A token adds at most a few bytes to an unfinished character of at most four; more than this many tokens without a
/// complete one are no text, and are given as they are.
const MOST_HELD: usize = 8;

/// Decodes tokens one after the other and gives only complete characters. What it gives, one after the other, is
/// [`Tokenizer::decode`] of all tokens, where they are valid text.
pub struct Pieces<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens of the last piece, which decide about a space in front of the next, and those still held back.
    recent: Vec<u32>,
    /// How many of `recent` are given already.
    given: usize,
}

impl<'a> Pieces<'a> {
    /// Behind these tokens, whose text is there already.
    pub(super) fn after(tokenizer: &'a Tokenizer, tokens: &[u32]) -> Pieces<'a> {
        let recent = tokens[tokens.len().saturating_sub(MOST_HELD)..].to_vec();
        Pieces { tokenizer, given: recent.len(), recent }
    }

    /// The text that this token completes; empty while a character is unfinished.
    pub fn push(&mut self, token: u32) -> String {
        self.recent.push(token);
        let held = self.recent.len() - self.given;
        let text = self.rest();
        if (text.is_empty() || text.ends_with('\u{FFFD}')) && held <= MOST_HELD {
            return String::new();
        }
        self.recent.drain(..self.given);
        self.given = self.recent.len();
        text
    }

    /// What is still held back, with U+FFFD for what is no character.
    pub fn finish(self) -> String {
        self.rest()
    }

    fn rest(&self) -> String {
        let before = self.tokenizer.decode(&self.recent[..self.given]);
        let all = self.tokenizer.decode(&self.recent);
        // A decoder may rewrite what came before; then the new tokens are read alone.
        match all.strip_prefix(&*before) {
            Some(text) => text.to_owned(),
            None => self.tokenizer.decode(&self.recent[self.given..]),
        }
    }
}
