//! Data sets for fine-tuning: files of texts as examples, see [`Dataset`].
//!
//! Choices:
//! * An example is what the tokenizer makes of the whole text at once, so that a prompt and its completion are cut into
//!   tokens as they are when they stand together. With `mask_prompt`, what a prompt alone is cut into is not learnt; a
//!   token that reaches over its end is. Of a conversation the assistant's last message is learnt then; what is after it
//!   is cut off, and a conversation without one is left out.
//! * In front of a text stands [`Tokenizer::begins`], behind it EOS, unless that is one of its last two tokens, as where
//!   a chat template writes it with a line's end behind. In front of a conversation stands what the template writes.
//! * What is longer than `max_length` is cut at its end, and counted. What has no target that counts then is left out,
//!   and counted.
//! * A plain text is one stream of tokens, cut by [`windows`] and without EOS. It is made tokens at once, since no place
//!   to cut it is safe for every tokenizer; that takes some 150 bytes of memory for each byte while it is read. Of other
//!   files one line at a time is held.
//! * A file alone gives its last tenth, at least one example, for validation.

mod form;
mod framed;
mod labelled;
mod labelled_data;
mod lines;
mod parts;

use super::{Example, Message, Tokenizer, windows};
use crate::error::{Error, Result};
use form::{Line, Piece, extension, pieces};
use parts::{Parts, held_back};
use std::path::Path;

pub use form::Form;
pub use labelled::{Columns, Labelled, LabelledSet};
pub use labelled_data::LabelledData;

/// How a data set is made examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The longest example, in tokens, of which a model reads all but the last.
    pub max_length: usize,
    /// Whether only completions, and last answers of the assistant, are learnt.
    pub mask_prompt: bool,
}

/// The examples of one file.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Examples, in the order of the file.
    pub examples: Vec<Example>,
    /// Of each example the adapter that it is to be read by, where its line names one as `adapter`.
    pub adapters: Vec<Option<String>>,
    /// What its lines were.
    pub form: Form,
    /// How many examples of the file were longer than `max_length` and are cut.
    pub truncated: usize,
    /// How many lines of the file have no target that counts and are left out.
    pub left_out: usize,
}

/// What a model is fine-tuned on.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Examples to learn from.
    pub train: Examples,
    /// Examples held back, never learnt from. What was cut or left out of a single file is counted in `train`.
    pub validation: Examples,
    /// Examples for the end, if the folder has a file for them.
    pub test: Option<Examples>,
    /// How many of the training file's examples were held back for validation; none if there was a file for it.
    pub held_back: Option<usize>,
}

impl Dataset {
    /// Reads a file, or a folder with `train`, perhaps `valid` (or `validation`, or `dev`) and `test`, each `.jsonl`,
    /// `.txt`, `.tsv` or `.csv`. Tables have a header with the names that lines of JSON have.
    pub fn open(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Dataset> {
        Dataset::read(path, |file| Examples::read(file, tokenizer, reading))
    }

    fn read(path: &Path, read: impl Fn(&Path) -> Result<Examples>) -> Result<Dataset> {
        let parts = Parts::of(path)?;
        let test = parts.test.as_deref().map(&read).transpose()?;
        let validation = parts.validation.as_deref().map(&read).transpose()?;
        let train = read(&parts.train)?;
        match validation {
            Some(validation) => Ok(Dataset { train, validation, test, held_back: None }),
            None => Ok(Dataset { test, ..train.hold_back(&parts.train)? }),
        }
    }
}

impl Examples {
    /// Reads one file. An error names the file and the line.
    pub fn read(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Examples> {
        if reading.max_length < 2 {
            return Err(Error::Config(format!("max_length is {}, and must be at least 2", reading.max_length)));
        }
        parts::known(path)?;
        match extension(path) {
            "txt" => plain(path, tokenizer, reading)?,
            _ => pieced(path, tokenizer, reading)?,
        }
        .not_empty(path)
    }

    fn not_empty(self, path: &Path) -> Result<Examples> {
        if self.examples.is_empty() {
            let problem = format!("nothing to learn: {} examples have no target that counts", self.left_out);
            return Err(Error::Data { path: path.into(), problem });
        }
        Ok(self)
    }

    /// Holds the last tenth back, at least one.
    fn hold_back(mut self, path: &Path) -> Result<Dataset> {
        let rest = held_back(&mut self.examples, path)?;
        let held_back = Some(rest.len());
        let adapters = self.adapters.split_off(self.examples.len());
        let validation = Examples { examples: rest, adapters, form: self.form, truncated: 0, left_out: 0 };
        Ok(Dataset { train: self, validation, test: None, held_back })
    }
}

fn plain(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Examples> {
    let tokens = tokenizer.encode(&lines::whole(path)?)?;
    let examples = windows(&tokens, tokenizer.begins(), reading.max_length);
    Ok(Examples { adapters: vec![None; examples.len()], examples, form: Form::Plain, truncated: 0, left_out: 0 })
}

fn pieced(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Examples> {
    let pieces = pieces(path)?;
    let (examples, adapters) = (Vec::new(), Vec::new());
    let mut read = Examples { examples, adapters, form: pieces.form, truncated: 0, left_out: 0 };
    for line in pieces.all {
        let Line { number, adapter, piece } = line?;
        let example = example(piece, tokenizer, reading.mask_prompt);
        let mut example = example.map_err(|error| lines::broken(path, number, error))?;
        let truncated = example.ids.len() > reading.max_length;
        example.ids.truncate(reading.max_length);
        match example.counted() {
            0 => read.left_out += 1,
            _ => {
                read.truncated += truncated as usize;
                example.ids.shrink_to_fit();
                read.examples.push(example);
                read.adapters.push(adapter);
            }
        }
    }
    Ok(read)
}

fn example(piece: Piece, tokenizer: &Tokenizer, mask_prompt: bool) -> Result<Example> {
    let begins = tokenizer.begins();
    let (prompt, text, begins) = match piece {
        Piece::Text(text) => (None, text, begins),
        Piece::Completion(prompt, completion) => {
            let text = prompt.clone() + &completion;
            (Some(prompt).filter(|_| mask_prompt), text, begins)
        }
        Piece::Chat(messages) if !mask_prompt => (None, tokenizer.chat(&messages, false)?, None),
        Piece::Chat(messages) => match answered(&messages, tokenizer)? {
            Some((prompt, text)) => (Some(prompt), text, None),
            None => return Ok(Example::whole(Vec::new())),
        },
    };
    let mut ids = tokenizer.encode(&text)?;
    let masked = match prompt {
        Some(prompt) => tokenizer.encode(&prompt)?.iter().zip(&ids).take_while(|(a, b)| a == b).count(),
        None => 0,
    };
    // Chat templates write EOS themselves, and perhaps a line's end behind it.
    let ended = ids[masked..].iter().rev().take(2).any(|&id| Some(id) == tokenizer.eos());
    ids.extend(tokenizer.eos().filter(|_| !ended));
    ids.splice(0..0, begins);
    Ok(Example { ids, learnt_from: (masked + begins.is_some() as usize).max(1) })
}

/// What the model reads before the assistant's last message, and all up to its end; none if it says nothing.
fn answered(messages: &[Message], tokenizer: &Tokenizer) -> Result<Option<(String, String)>> {
    let Some(last) = messages.iter().rposition(|message| message.role == "assistant") else { return Ok(None) };
    let prompt = match last {
        0 => String::new(),
        _ => tokenizer.chat(&messages[..last], true)?,
    };
    Ok(Some((prompt, tokenizer.chat(&messages[..=last], false)?)))
}
