//! What the lines of a data set are.

use super::lines::{Lines, Rows, broken};
use crate::data::Message;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::Path;

/// The form of a data set's pieces, which its first line decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `messages`: a conversation, by the chat template.
    Chat,
    /// `prompt` and `completion`, one after the other with nothing between.
    Completion,
    /// `text`.
    Text,
    /// A file of plain text, cut into windows.
    Plain,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Form::Chat => "messages",
            Form::Completion => "prompt and completion",
            Form::Text => "text",
            Form::Plain => "plain text",
        })
    }
}

/// One piece, before it is made tokens.
pub enum Piece {
    Chat(Vec<Message>),
    Completion(String, String),
    Text(String),
}

/// The fields of a line that count. Others are passed over, except `tools`: without them a conversation is another one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    completion: Option<String>,
    text: Option<String>,
    tools: Option<IgnoredAny>,
    adapter: Option<String>,
}

impl Fields {
    fn form(&self) -> Option<Form> {
        match self {
            Fields { messages: Some(_), .. } => Some(Form::Chat),
            Fields { prompt: Some(_), completion: Some(_), .. } => Some(Form::Completion),
            Fields { text: Some(_), .. } => Some(Form::Text),
            _ => None,
        }
    }

    fn piece(self, form: Form) -> Result<Piece, String> {
        let Fields { messages, prompt, completion, text, tools, .. } = self;
        if tools.is_some() {
            return Err("has tools, which are not supported; leave them out, or give it as text".into());
        }
        let piece = match form {
            Form::Chat => messages.map(Piece::Chat),
            Form::Completion => {
                prompt.zip(completion).map(|(prompt, completion)| Piece::Completion(prompt, completion))
            }
            Form::Text | Form::Plain => text.map(Piece::Text),
        };
        piece.ok_or_else(|| format!("has no {form}, as the first line has"))
    }
}

/// A line that counts.
pub struct Line {
    pub number: usize,
    /// The adapter that it is to be read by, if it names one.
    pub adapter: Option<String>,
    pub piece: Piece,
}

/// The pieces of a file of lines, and their form.
pub struct Pieces {
    pub form: Form,
    pub all: Box<dyn Iterator<Item = Result<Line>>>,
}

/// Reads `.jsonl`, `.tsv` or `.csv`.
pub fn pieces(path: &Path) -> Result<Pieces> {
    let lines: Box<dyn Iterator<Item = Result<(usize, Fields)>>> = match extension(path) {
        "jsonl" => Box::new(objects(path)?),
        _ => Box::new(rows(path)?),
    };
    let mut lines = lines.peekable();
    let form = match lines.peek() {
        None => return Err(Error::Data { path: path.into(), problem: "has no lines".into() }),
        Some(Ok((number, first))) => first
            .form()
            .ok_or_else(|| broken(path, *number, "has neither messages, nor prompt and completion, nor text"))?,
        // The error is what the reading gives first.
        Some(Err(_)) => Form::Text,
    };
    let path = path.to_owned();
    let piece = move |line: Result<(usize, Fields)>| {
        let (number, mut fields) = line?;
        let adapter = fields.adapter.take();
        let piece = fields.piece(form).map_err(|problem| broken(&path, number, problem))?;
        Ok(Line { number, adapter, piece })
    };
    Ok(Pieces { form, all: Box::new(lines.map(piece)) })
}

pub fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn objects(path: &Path) -> Result<impl Iterator<Item = Result<(usize, Fields)>> + use<>> {
    let lines = Lines::open(path)?;
    let path = path.to_owned();
    Ok(lines.map(move |line| {
        let (number, line) = line?;
        let fields = serde_json::from_str(&line).map_err(|error| {
            // The parser counts lines of its own, of which there is one.
            let problem = error.to_string();
            let problem = problem.split(" at line").next().unwrap_or_default();
            broken(&path, number, format!("is no object of the kind expected, at column {}: {problem}", error.column()))
        })?;
        Ok((number, fields))
    }))
}

fn rows(path: &Path) -> Result<impl Iterator<Item = Result<(usize, Fields)>> + use<>> {
    let mut rows = Rows::open(path)?;
    let header = rows.next().transpose()?.map_or(Vec::new(), |(_, header)| header);
    let path = path.to_owned();
    Ok(rows.map(move |row| {
        let (number, row) = row?;
        same_width(&path, number, row.len(), header.len())?;
        let mut fields = Fields::default();
        for (name, cell) in header.iter().zip(row) {
            match name.as_str() {
                "prompt" => fields.prompt = Some(cell),
                "completion" => fields.completion = Some(cell),
                "text" => fields.text = Some(cell),
                "adapter" => fields.adapter = Some(cell),
                _ => {}
            }
        }
        Ok((number, fields))
    }))
}

/// Checks that a row has as many columns as the first.
pub fn same_width(path: &Path, line: usize, columns: usize, expected: usize) -> Result<()> {
    match columns == expected {
        true => Ok(()),
        false => Err(broken(path, line, format!("has {columns} columns, the first line {expected}"))),
    }
}
