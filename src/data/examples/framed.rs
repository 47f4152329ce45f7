//! Texts for an encoder: each with what its tokenizer puts around one, of which everything may be hidden.

use super::form::{Line, Piece, extension, pieces};
use super::{Dataset, Examples, Form, lines, parts};
use crate::data::{Example, Framing, Tokenizer};
use crate::error::{Error, Result};
use std::path::Path;

impl Dataset {
    /// The same for an encoder: texts with what stands around one, in at most `max_length` tokens. A prompt and its completion
    /// are one text, a plain text is cut into pieces; conversations are refused, since an encoder does not answer.
    pub fn framed(path: &Path, tokenizer: &Tokenizer, max_length: usize) -> Result<Dataset> {
        let framing = tokenizer.framing()?;
        Dataset::read(path, |file| Examples::framed(file, tokenizer, &framing, max_length))
    }
}

impl Examples {
    /// Reads one file for an encoder. An error names the file and the line.
    pub fn framed(path: &Path, tokenizer: &Tokenizer, framing: &Framing, max_length: usize) -> Result<Examples> {
        if framing.room(max_length) == 0 {
            let problem = format!("max_length is {max_length}, which leaves no room for a text; take a longer one");
            return Err(Error::Config(problem));
        }
        parts::known(path)?;
        let found = match extension(path) {
            "txt" => plain(path, tokenizer, framing, max_length)?,
            _ => pieced(path, tokenizer, framing, max_length)?,
        };
        found.not_empty(path)
    }
}

fn plain(path: &Path, tokenizer: &Tokenizer, framing: &Framing, max_length: usize) -> Result<Examples> {
    let tokens = tokenizer.encode(&lines::whole(path)?)?;
    let pieces = tokens.chunks(framing.room(max_length));
    let examples: Vec<Example> = pieces.map(|piece| Example::whole(around(framing, piece))).collect();
    Ok(Examples { adapters: vec![None; examples.len()], examples, form: Form::Plain, truncated: 0, left_out: 0 })
}

fn pieced(path: &Path, tokenizer: &Tokenizer, framing: &Framing, max_length: usize) -> Result<Examples> {
    let pieces = pieces(path)?;
    let (examples, adapters) = (Vec::new(), Vec::new());
    let mut read = Examples { examples, adapters, form: pieces.form, truncated: 0, left_out: 0 };
    for piece in pieces.all {
        let Line { number: line, adapter, piece } = piece?;
        let text = match piece {
            Piece::Text(text) => text,
            Piece::Completion(prompt, completion) => prompt + &completion,
            Piece::Chat(_) => {
                let problem = "has messages, which an encoder does not answer: give it text";
                return Err(lines::broken(path, line, problem));
            }
        };
        let mut tokens = tokenizer.encode(&text).map_err(|error| lines::broken(path, line, error))?;
        let room = framing.room(max_length);
        let truncated = tokens.len() > room;
        tokens.truncate(room);
        match framing.masking.ordinary(&tokens) {
            0 => read.left_out += 1,
            _ => {
                read.truncated += truncated as usize;
                read.examples.push(Example::whole(around(framing, &tokens)));
                read.adapters.push(adapter);
            }
        }
    }
    Ok(read)
}

fn around(framing: &Framing, tokens: &[u32]) -> Vec<u32> {
    [&*framing.around[0], tokens, &framing.around[1]].concat()
}
