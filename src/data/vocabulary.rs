//! What a token stands for.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// A text of at most this many distinct characters is learnt by character.
const MOST_CHARACTERS: usize = 256;

/// Between text and tokens. It goes into every checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// One token for each of these characters, in ascending order.
    Characters(Vec<char>),
    /// One token for each value of a byte.
    Bytes,
}

impl Vocabulary {
    /// Characters if `bytes` is UTF-8 text with few enough of them, else bytes.
    pub fn of(bytes: &[u8]) -> Vocabulary {
        let Ok(text) = std::str::from_utf8(bytes) else { return Vocabulary::Bytes };
        let distinct: std::collections::BTreeSet<char> = text.chars().collect();
        match distinct.len() <= MOST_CHARACTERS {
            true => Vocabulary::Characters(distinct.into_iter().collect()),
            false => Vocabulary::Bytes,
        }
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        match self {
            Vocabulary::Characters(characters) => characters.len(),
            Vocabulary::Bytes => 256,
        }
    }

    /// The tokens of a text; an error names the character that has none.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>> {
        let Vocabulary::Characters(characters) = self else {
            return Ok(text.iter().map(|&byte| byte as u32).collect());
        };
        let text = std::str::from_utf8(text).map_err(|_| Error::Config("the text is not UTF-8".into()))?;
        let token = |c: char| match characters.binary_search(&c) {
            Ok(token) => Ok(token as u32),
            Err(_) => {
                let problem = format!("{c:?} is not among the {} characters this model knows", characters.len());
                Err(Error::Config(problem))
            }
        };
        text.chars().map(token).collect()
    }

    /// The text of tokens; what does not make a character becomes U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        match self {
            Vocabulary::Characters(characters) => {
                tokens.iter().map(|&token| characters.get(token as usize).copied().unwrap_or('\u{FFFD}')).collect()
            }
            Vocabulary::Bytes => {
                let bytes: Vec<u8> = tokens.iter().map(|&token| token as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }
}
