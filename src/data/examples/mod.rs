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
mod labelled;
mod lines;

use super::{Example, Message, Tokenizer, windows};
use crate::error::{Error, Result};
use form::{Line, Piece, extension, pieces};
use std::path::{Path, PathBuf};

pub use form::Form;
pub use labelled::{Columns, Labelled, LabelledSet};

/// One example in this many is held back for validation where there is no file for it.
const HELD_BACK: usize = 10;
/// Kinds of files, by their names' ends.
const KINDS: [&str; 4] = ["jsonl", "txt", "tsv", "csv"];

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
        let read = |path: PathBuf| Examples::read(&path, tokenizer, reading);
        if !path.is_dir() {
            return read(path.into())?.hold_back(path);
        }
        let Some(train) = part(path, &["train"])? else {
            let problem = "has no train.jsonl, train.txt, train.tsv or train.csv".into();
            return Err(Error::Data { path: path.into(), problem });
        };
        let test = part(path, &["test"])?.map(read).transpose()?;
        let validation = part(path, &["valid", "validation", "dev"])?.map(read).transpose()?;
        let origin = train.clone();
        let train = read(train)?;
        match validation {
            Some(validation) => Ok(Dataset { train, validation, test, held_back: None }),
            None => Ok(Dataset { test, ..train.hold_back(&origin)? }),
        }
    }
}

impl Examples {
    /// Reads one file. An error names the file and the line.
    pub fn read(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Examples> {
        if reading.max_length < 2 {
            return Err(Error::Config(format!("max_length is {}, and must be at least 2", reading.max_length)));
        }
        let found = match extension(path) {
            "txt" => plain(path, tokenizer, reading)?,
            kind if KINDS.contains(&kind) => pieced(path, tokenizer, reading)?,
            _ => {
                let problem = "is none of .jsonl, .txt, .tsv and .csv".into();
                return Err(Error::Data { path: path.into(), problem });
            }
        };
        if found.examples.is_empty() {
            let problem = format!("nothing to learn: {} examples have no target that counts", found.left_out);
            return Err(Error::Data { path: path.into(), problem });
        }
        Ok(found)
    }

    /// Holds the last tenth back, at least one.
    fn hold_back(mut self, path: &Path) -> Result<Dataset> {
        let held_back = (self.examples.len() / HELD_BACK).max(1);
        if self.examples.len() < 2 {
            let problem =
                "has one example, and one is needed for validation: give it more, or a folder with valid.jsonl";
            return Err(Error::Data { path: path.into(), problem: problem.into() });
        }
        let rest = self.examples.split_off(self.examples.len() - held_back);
        let adapters = self.adapters.split_off(self.examples.len());
        let validation = Examples { examples: rest, adapters, form: self.form, truncated: 0, left_out: 0 };
        Ok(Dataset { train: self, validation, test: None, held_back: Some(held_back) })
    }
}

/// The one file of a folder with one of these names.
fn part(folder: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    let paths = names.iter().flat_map(|name| KINDS.map(|kind| folder.join(format!("{name}.{kind}"))));
    let found: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    match &found[..] {
        [one, other, ..] => {
            let problem = format!("has both {} and {}: which one is meant?", name(one), name(other));
            Err(Error::Data { path: folder.into(), problem })
        }
        _ => Ok(found.into_iter().next()),
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn plain(path: &Path, tokenizer: &Tokenizer, reading: Reading) -> Result<Examples> {
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut lines::open(path)?, &mut text).map_err(Error::file(path))?;
    let text = String::from_utf8(text).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        lines::broken(path, 1 + sound.iter().filter(|byte| **byte == b'\n').count(), "is not UTF-8")
    })?;
    let tokens = tokenizer.encode(text.strip_prefix('\u{FEFF}').unwrap_or(&text))?;
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
