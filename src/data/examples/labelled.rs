//! Texts with labels, for classification.

use super::form::same_width;
use super::lines::{Rows, broken};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Which columns of a table are what: names in its header, or, where all of them are numbers, places counted from 0 in a
/// table without a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The text, or the first of two.
    pub first: String,
    /// The second text, if there is one.
    pub second: Option<String>,
    /// The label.
    pub label: String,
}

/// A text, or a pair of them, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Tokens, with the special ones that the tokenizer's kind of model expects around them.
    pub ids: Vec<u32>,
    /// Where the second segment begins, if there are two and this kind of model tells them apart.
    pub second: Option<usize>,
    /// Number of the label among [`LabelledSet::names`].
    pub label: usize,
}

/// The labelled texts of a table.
#[derive(Clone, Debug)]
pub struct LabelledSet {
    /// Texts in the order of the file.
    pub examples: Vec<Labelled>,
    /// The labels' names: those given, else ascending if all are numbers, else in the order in which they appear.
    pub names: Vec<String>,
    /// How many texts, or pairs, were longer than `max_length` and are cut.
    pub truncated: usize,
}

impl LabelledSet {
    /// Reads a `.tsv` or `.csv`, or a `.jsonl` as a table below its first line's keys. Without `columns`, names that are usual
    /// for texts and labels are looked for in the header. With `names`, those of the training data for instance, another
    /// label is an error, which names the line.
    pub fn read<'a>(
        path: &Path,
        tokenizer: &Tokenizer,
        columns: impl Into<Option<&'a Columns>>,
        max_length: usize,
        names: Option<&[String]>,
    ) -> Result<LabelledSet> {
        let columns = columns.into();
        let mut rows = Rows::open(path)?.peekable();
        let width = match rows.peek() {
            Some(Ok((_, first))) => first.len(),
            Some(Err(_)) => 0,
            None => return Err(Error::Data { path: path.into(), problem: "has no lines".into() }),
        };
        let places = match columns.and_then(Columns::numbered) {
            Some(places) => places,
            None => {
                let header = rows.next().transpose()?.map_or(Vec::new(), |(_, header)| header);
                let columns = columns.cloned().map_or_else(|| Columns::guessed(path, &header), Ok)?;
                columns.named(path, &header)?
            }
        };
        let mut labels = Labels::new(names);
        let mut set = LabelledSet { examples: Vec::new(), names: Vec::new(), truncated: 0 };
        for row in rows {
            let (line, row) = row?;
            same_width(path, line, row.len(), width)?;
            let cell = |place: usize| {
                row.get(place).map(String::as_str).ok_or_else(|| {
                    broken(path, line, format!("has {width} columns, and column {place} is asked for, counted from 0"))
                })
            };
            let second = places.second.map(cell).transpose()?;
            let framed = tokenizer.framed(cell(places.first)?, second, max_length)?;
            if framed.ids.is_empty() {
                return Err(broken(path, line, "has an empty text, of which this tokenizer makes no token"));
            }
            let label = labels.number(cell(places.label)?).map_err(|problem| broken(path, line, problem))?;
            set.truncated += framed.truncated as usize;
            set.examples.push(Labelled { ids: framed.ids, second: framed.second, label });
        }
        set.names = labels.finish(&mut set.examples);
        match set.examples.is_empty() {
            true => Err(Error::Data { path: path.into(), problem: "has no lines but its header".into() }),
            false => Ok(set),
        }
    }
}

/// Places of columns, counted from 0.
struct Places {
    first: usize,
    second: Option<usize>,
    label: usize,
}

/// Names of columns with two texts, with one, and with a label, as data sets have them.
const PAIRS: [[&str; 2]; 6] = [
    ["sentence1", "sentence2"],
    ["question1", "question2"],
    ["question", "sentence"],
    ["premise", "hypothesis"],
    ["#1 String", "#2 String"],
    ["text", "text2"],
];
const SINGLE: [&str; 2] = ["sentence", "text"];
const LABELS: [&str; 4] = ["label", "is_duplicate", "gold_label", "Quality"];

impl Columns {
    /// From two names, text and label, or three, two texts and a label.
    pub fn of(names: &[String]) -> Result<Columns> {
        match names {
            [first, label] => Ok(Columns { first: first.clone(), second: None, label: label.clone() }),
            [first, second, label] => {
                Ok(Columns { first: first.clone(), second: Some(second.clone()), label: label.clone() })
            }
            _ => Err(Error::Config("columns: give text,label or text,text,label".into())),
        }
    }

    /// Those of a header that have usual names.
    fn guessed(path: &Path, header: &[String]) -> Result<Columns> {
        let has = |name: &&str| header.iter().any(|column| column == name);
        let pair = PAIRS.iter().find(|pair| pair.iter().all(has));
        let single = SINGLE.iter().copied().find(has);
        let texts = pair.map(|[first, second]| (*first, Some(*second))).or(single.map(|first| (first, None)));
        let label = LABELS.iter().copied().find(has);
        match (texts, label) {
            (Some((first, second)), Some(label)) => {
                Ok(Columns { first: first.into(), second: second.map(Into::into), label: label.into() })
            }
            _ => {
                let advice = "name the columns of text and label, or number them from 0 where there is no header";
                let there = listed(header);
                Err(broken(path, 1, format!("has no columns with usual names: {advice}; it has {there}")))
            }
        }
    }

    fn numbered(&self) -> Option<Places> {
        let second = self.second.as_ref().map(|name| name.parse()).transpose().ok()?;
        Some(Places { first: self.first.parse().ok()?, second, label: self.label.parse().ok()? })
    }

    fn named(&self, path: &Path, header: &[String]) -> Result<Places> {
        let place = |name: &String| {
            header
                .iter()
                .position(|column| column == name)
                .ok_or_else(|| broken(path, 1, format!("has no column {name:?}; it has {}", listed(header))))
        };
        let second = self.second.as_ref().map(place).transpose()?;
        Ok(Places { first: place(&self.first)?, second, label: place(&self.label)? })
    }
}

/// Names in one line, as far as there is room.
fn listed(names: &[String]) -> String {
    names.join(", ").chars().take(200).flat_map(char::escape_debug).collect()
}

/// Names of labels, numbered as they appear.
struct Labels {
    given: bool,
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Labels {
    fn new(given: Option<&[String]>) -> Labels {
        let names = given.unwrap_or_default().to_vec();
        let numbers = names.iter().cloned().enumerate().map(|(number, name)| (name, number)).collect();
        Labels { given: given.is_some(), names, numbers }
    }

    fn number(&mut self, name: &str) -> Result<usize, String> {
        if let Some(&number) = self.numbers.get(name) {
            return Ok(number);
        }
        if self.given {
            return Err(format!("the label is {name:?}, which is none of {}", listed(&self.names)));
        }
        self.numbers.insert(name.to_owned(), self.names.len());
        self.names.push(name.to_owned());
        Ok(self.names.len() - 1)
    }

    /// The names in their final order, and the examples' labels with them.
    fn finish(self, examples: &mut [Labelled]) -> Vec<String> {
        let values: Option<Vec<f64>> = self.names.iter().map(|name| number(name)).collect();
        let Some(values) = values.filter(|_| !self.given) else { return self.names };
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, &old)| place[old] = new);
        examples.iter_mut().for_each(|example| example.label = place[example.label]);
        order.iter().map(|&old| self.names[old].clone()).collect()
    }
}

fn number(name: &str) -> Option<f64> {
    name.parse().ok().filter(|value: &f64| value.is_finite())
}
