//! Files of lines and of tables, read piece by piece: no more is held than the longest line.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Take};
use std::path::{Path, PathBuf};

/// An error at a line, counted from 1.
pub fn broken(path: &Path, line: usize, problem: impl std::fmt::Display) -> Error {
    Error::Data { path: path.into(), problem: format!("line {line}: {problem}") }
}

/// A file that ends where it ended when it was opened. What is no file, such as a pipe, is refused: it may never end.
pub fn open(path: &Path) -> Result<BufReader<Take<File>>> {
    let data = std::fs::metadata(path).map_err(Error::file(path))?;
    if !data.is_file() {
        return Err(Error::Data { path: path.into(), problem: "is not a file".into() });
    }
    Ok(BufReader::new(File::open(path).map_err(Error::file(path))?.take(data.len())))
}

/// All of a file of text, without a mark of its encoding.
pub fn whole(path: &Path) -> Result<String> {
    let mut text = Vec::new();
    open(path)?.read_to_end(&mut text).map_err(Error::file(path))?;
    let text = String::from_utf8(text).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        broken(path, 1 + sound.iter().filter(|byte| **byte == b'\n').count(), "is not UTF-8")
    })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

/// Lines with their numbers, without their ends; empty ones are left out.
pub struct Lines {
    path: PathBuf,
    file: BufReader<Take<File>>,
    number: usize,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Lines> {
        Ok(Lines { path: path.into(), file: open(path)?, number: 0 })
    }

    fn read(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        if self.file.read_until(b'\n', &mut line).map_err(Error::file(&self.path))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.ends_with(b"\n") {
            line.pop();
            line.pop_if(|byte| *byte == b'\r');
        }
        let mut line = String::from_utf8(line).map_err(|_| broken(&self.path, self.number, "is not UTF-8"))?;
        if self.number == 1 && line.starts_with('\u{FEFF}') {
            line.remove(0);
        }
        Ok(Some(line))
    }
}

impl Iterator for Lines {
    type Item = Result<(usize, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read() {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => return Some(Ok((self.number, line))),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Rows of a table: `.tsv` is cut at every tab, whatever else is in a line, `.csv` has quotes as in RFC 4180. Lines of
/// `.jsonl` are rows below the keys of the first.
pub enum Rows {
    Objects(Objects),
    Tabs(Lines),
    Commas(PathBuf, Box<csv::StringRecordsIntoIter<BufReader<Take<File>>>>),
}

impl Rows {
    pub fn open(path: &Path) -> Result<Rows> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tsv") => return Ok(Rows::Tabs(Lines::open(path)?)),
            Some("jsonl") => return Ok(Rows::Objects(Objects { lines: Lines::open(path)?, keys: None, next: None })),
            _ => {}
        }
        let rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(open(path)?);
        Ok(Rows::Commas(path.into(), Box::new(rows.into_records())))
    }
}

impl Iterator for Rows {
    type Item = Result<(usize, Vec<String>)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Rows::Objects(objects) => objects.next(),
            Rows::Tabs(lines) => {
                let row = lines.next()?;
                Some(row.map(|(number, line)| (number, line.split('\t').map(str::to_owned).collect())))
            }
            Rows::Commas(path, rows) => Some(match rows.next()? {
                Ok(row) => Ok((line_of(row.position()), row.iter().map(str::to_owned).collect())),
                Err(error) => Err(broken(path, line_of(error.position()), "is not UTF-8 or cannot be read")),
            }),
        }
    }
}

/// Objects as rows of what they have under the first one's keys: texts, or numbers as they are written.
pub struct Objects {
    lines: Lines,
    keys: Option<Vec<String>>,
    /// The first object, when its keys have been given.
    next: Option<(usize, Map<String, Value>)>,
}

impl Objects {
    fn next(&mut self) -> Option<Result<(usize, Vec<String>)>> {
        let (number, object) = match self.next.take() {
            Some(first) => first,
            None => match self.read()? {
                Ok(object) => object,
                Err(error) => return Some(Err(error)),
            },
        };
        let Some(keys) = &self.keys else {
            let keys: Vec<String> = object.keys().cloned().collect();
            (self.keys, self.next) = (Some(keys.clone()), Some((number, object)));
            return Some(Ok((number, keys)));
        };
        let cell = |key: &String| match object.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(_) => Ok(String::new()),
            None => Err(broken(&self.lines.path, number, format!("has no {key:?}, which the first line has"))),
        };
        Some(keys.iter().map(cell).collect::<Result<_>>().map(|cells| (number, cells)))
    }

    fn read(&mut self) -> Option<Result<(usize, Map<String, Value>)>> {
        Some(self.lines.next()?.and_then(|(number, line)| match serde_json::from_str(&line) {
            Ok(object) => Ok((number, object)),
            Err(error) => Err(broken(&self.lines.path, number, format!("is no object: {error}"))),
        }))
    }
}

fn line_of(position: Option<&csv::Position>) -> usize {
    position.map_or(0, |position| position.line() as usize)
}
