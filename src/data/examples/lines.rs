//! Files of lines and of tables, read piece by piece: no more is held than the longest line.

use crate::error::{Error, Result};
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

/// Rows of a table: `.tsv` is cut at every tab, whatever else is in a line, `.csv` has quotes as in RFC 4180.
pub enum Rows {
    Tabs(Lines),
    Commas(PathBuf, Box<csv::StringRecordsIntoIter<BufReader<Take<File>>>>),
}

impl Rows {
    pub fn open(path: &Path) -> Result<Rows> {
        if path.extension().is_some_and(|extension| extension == "tsv") {
            return Ok(Rows::Tabs(Lines::open(path)?));
        }
        let rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(open(path)?);
        Ok(Rows::Commas(path.into(), Box::new(rows.into_records())))
    }
}

impl Iterator for Rows {
    type Item = Result<(usize, Vec<String>)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
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

fn line_of(position: Option<&csv::Position>) -> usize {
    position.map_or(0, |position| position.line() as usize)
}
