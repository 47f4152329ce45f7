//! What a token stands for.

use super::Specials;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

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

    /// The same as a `tokenizer.json`, which the `tokenizers` library of Hugging Face reads: one word for each
    /// character, or one for each byte by its stand-in; special tokens before them, if there are to be some.
    pub fn to_hugging_face(&self, specials: Option<&Specials>) -> Value {
        let first = specials.map_or(0, |specials| specials.names.len());
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let special = specials.iter().flat_map(|specials| specials.names).map(str::to_string).zip(0..);
        let (before, decoder, model) = match self {
            Vocabulary::Characters(characters) => {
                let words = special.chain(characters.iter().map(char::to_string).zip(first..));
                let words: BTreeMap<String, usize> = words.collect();
                let one_each = json!({"Regex": "[\\s\\S]"});
                let unknown = specials.map_or("<unk>", |specials| specials.unknown);
                (
                    json!({"type": "Split", "pattern": one_each, "behavior": "Isolated", "invert": false}),
                    json!({"type": "Fuse"}),
                    json!({"type": "WordLevel", "vocab": words, "unk_token": unknown}),
                )
            }
            Vocabulary::Bytes => {
                let words = special.chain((0..=255).map(|byte| stand_in(byte).to_string()).zip(first..));
                let words: BTreeMap<String, usize> = words.collect();
                (byte_level.clone(), byte_level, json!({"type": "BPE", "vocab": words, "merges": []}))
            }
        };
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": before,
            "added_tokens": specials.map_or_else(Vec::new, Specials::added),
            "post_processor": specials.map(Specials::frame), "decoder": decoder, "model": model,
        })
    }
}

/// The character that byte-level tokenizers write for a byte (Radford et al. 2019): itself if it is printable in
/// Latin-1, else the next one free from U+0100 on.
fn stand_in(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).expect("a character of Latin Extended-A")
}
