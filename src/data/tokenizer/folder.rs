//! The files beside a tokenizer.

use crate::error::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Settings are small; a larger file is something else.
const LARGEST: u64 = 16 << 20;

/// A published folder and the settings in it, or one file without any.
pub struct Folder {
    path: PathBuf,
    /// The name that the one file has in a folder.
    alone: Option<&'static str>,
    /// `tokenizer_config.json`, then `special_tokens_map.json`: what names special tokens.
    pub names: [Value; 2],
    /// `generation_config.json`, then `config.json`: what numbers them.
    pub numbers: [Value; 2],
}

impl Folder {
    /// Reads the settings; those that are not there are `null`.
    pub fn open(path: &Path) -> Result<Folder> {
        if path.is_file() {
            let alone = Some(Folder::name_of(path)?);
            return Ok(Folder { path: path.into(), alone, names: Default::default(), numbers: Default::default() });
        }
        let read = |name: &str| settings(&path.join(name));
        let names = [read("tokenizer_config.json")?, read("special_tokens_map.json")?];
        let numbers = [read("generation_config.json")?, read("config.json")?];
        Ok(Folder { path: path.into(), alone: None, names, numbers })
    }

    /// What a tokenizer's one file is called in a folder.
    pub fn name_of(path: &Path) -> Result<&'static str> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok("tokenizer.json"),
            Some("txt") => Ok("vocab.txt"),
            _ => {
                let problem = "is no tokenizer: give a folder, a tokenizer.json or a vocab.txt";
                Err(Error::Data { path: path.into(), problem: problem.into() })
            }
        }
    }

    /// The path of a file, if it is there.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        match self.alone {
            Some(alone) => (alone == name).then(|| self.path.clone()),
            None => Some(self.path.join(name)).filter(|path| path.is_file()),
        }
    }

    /// An error about the folder as a whole.
    pub fn broken(&self, problem: impl Into<String>) -> Error {
        Error::Data { path: self.path.clone(), problem: problem.into() }
    }

    /// The chat template's source: the file of its own before the one in the configuration, `default` of several.
    pub fn chat_template(&self) -> Result<Option<String>> {
        if let Some(path) = self.file("chat_template.jinja") {
            return text(&path).map(Some);
        }
        match &self.names[0]["chat_template"] {
            Value::Null => Ok(None),
            Value::String(source) => Ok(Some(source.clone())),
            several => default_of(several).map(Some).ok_or_else(|| {
                self.broken(
                    "tokenizer_config.json: chat_template is neither text nor a list with one named \"default\"",
                )
            }),
        }
    }
}

fn default_of(several: &Value) -> Option<String> {
    let default = several.as_array()?.iter().find(|one| one["name"] == "default")?;
    default["template"].as_str().map(str::to_owned)
}

/// A small text file.
pub fn text(path: &Path) -> Result<String> {
    let length = std::fs::metadata(path).map_err(Error::file(path))?.len();
    if length > LARGEST {
        let problem = format!("has {length} bytes, more than the {LARGEST} that settings may have");
        return Err(Error::Data { path: path.into(), problem });
    }
    let bytes = std::fs::read(path).map_err(Error::file(path))?;
    String::from_utf8(bytes).map_err(|_| Error::Data { path: path.into(), problem: "is not UTF-8".into() })
}

fn settings(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text(path)?)
        .map_err(|error| Error::Data { path: path.into(), problem: format!("is not JSON: {error}") })
}
