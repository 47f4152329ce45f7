//! Classes in a `config.json`.

use super::read::File;
use super::rope::refused;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// Classes that are read, far beyond what exists.
const MOST: usize = 1 << 16;

impl File {
    /// Names of the classes, if the file is one of a model that classifies.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        let classes = self.architectures.iter().flatten();
        if !classes.into_iter().any(|class| class.ends_with("ForSequenceClassification")) {
            return Ok(None);
        }
        if let Some(other) = self.problem_type.as_deref().filter(|kind| *kind != "single_label_classification") {
            return refused(&format!("problem_type {other}: only single_label_classification is supported"));
        }
        let names = self.id2label.clone().unwrap_or_default();
        let count = if names.is_empty() { self.num_labels.unwrap_or(2) } else { names.len() };
        if !(2..=MOST).contains(&count) {
            return refused(&format!("{count} labels: 2 to {MOST} are supported"));
        }
        let name = |number: usize| match names.get(&number.to_string()) {
            Some(Value::String(name)) => Ok(name.clone()),
            None if names.is_empty() => Ok(format!("LABEL_{number}")),
            _ => refused(&format!("id2label has no name for {number}, one of {count}")),
        };
        (0..count).map(name).collect::<Result<_>>().map(Some)
    }
}

/// What a file says of classes.
pub fn written(labels: &[String]) -> Value {
    let names: Map<String, Value> = labels.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
    let numbers: Map<String, Value> = labels.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
    json!({
        "num_labels": labels.len(),
        "id2label": names,
        "label2id": numbers,
        "problem_type": "single_label_classification",
    })
}
