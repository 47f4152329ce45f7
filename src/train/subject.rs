//! What a run is about: what it learns from, what tokens and classes are called, and the model it begins with.

use super::windows::Windows;
use super::{Config, Source};
use crate::data::{Corpus, EMBEDDED, MASKED, Specials, Vocabulary, long_enough};
use crate::error::{Error, Result};
use crate::io::{self, hub};
use crate::nn::{Arch, ModelConfig};
use std::path::Path;

/// What a configuration names, read and checked.
pub struct Subject {
    /// What is learnt from.
    pub source: Box<dyn Source>,
    /// What tokens and classes are called.
    pub names: Names,
    /// Of what is learnt, in hexadecimal.
    pub fingerprint: String,
    /// What there is to say of it before a run, in lines for people.
    pub notes: Vec<String>,
}

/// What tokens and classes are called, where no folder says it that the configuration names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// What tokens stand for.
    pub vocabulary: Option<Vocabulary>,
    /// Names of a classifier's classes.
    pub labels: Option<Vec<String>>,
}

/// Reads what a resolved configuration names; a text has to suffice for the context.
pub fn subject(config: &Config) -> Result<Subject> {
    if let Some(folder) = &config.model {
        return lessons(config, folder);
    }
    check_hiding(config, config.arch.is_encoder())?;
    let (text, origin) = match &config.data {
        Some(path) => (io::read(path)?, path.as_path()),
        None => (EMBEDDED.as_bytes().to_vec(), Path::new("the built-in text")),
    };
    let (windows, vocabulary, fingerprint) = match &config.tokenizer {
        Some(tokenizer) => {
            let windows = tokenized(config, tokenizer, &text, origin)?;
            let fingerprint = io::checksum(bytemuck::cast_slice(&windows.parts.concat()));
            (windows, None, fingerprint)
        }
        None => {
            let (windows, vocabulary) = spelt(config, &text, origin)?;
            (windows, Some(vocabulary), io::checksum(&text))
        }
    };
    if windows.framing.as_ref().is_some_and(|framing| framing.room(config.context) == 0) {
        return Err(Error::Config(format!("context {}: it leaves no room for a text", config.context)));
    }
    long_enough(windows.parts.each_ref().map(Vec::as_slice), config.context, origin)?;
    let names = Names { vocabulary, labels: None };
    Ok(Subject { source: Box::new(windows), names, fingerprint: format!("{fingerprint:016x}"), notes: Vec::new() })
}

/// A share of tokens to hide is for models that they are hidden from.
fn check_hiding(config: &Config, hides: bool) -> Result<()> {
    match hides || config.mlm_probability == MASKED {
        true => Ok(()),
        false => Err(Error::Config("mlm_probability: no tokens are hidden from this model".into())),
    }
}

/// A text by characters or bytes; for an encoder behind special tokens.
fn spelt(config: &Config, text: &[u8], origin: &Path) -> Result<(Windows, Vocabulary)> {
    let Corpus { vocabulary, train, validation } = Corpus::new(text, origin)?;
    let mut windows = Windows { parts: [train, validation], framing: None };
    if let Some(specials) = specials(config.arch) {
        let first = specials.names.len() as u32;
        windows.parts.iter_mut().flatten().for_each(|token| *token += first);
        windows.framing = Some(specials.framing(config.vocabulary(&vocabulary)).hiding(config.mlm_probability));
    }
    Ok((windows, vocabulary))
}

/// Special tokens of a model whose vocabulary is made from its text.
pub(super) fn specials(arch: Arch) -> Option<&'static Specials> {
    match arch {
        Arch::Bert => Some(&Specials::BERT),
        Arch::Roberta => Some(&Specials::ROBERTA),
        Arch::Gpt2 | Arch::Llama => None,
    }
}

/// A text by a published tokenizer.
#[cfg(feature = "hub")]
fn tokenized(config: &Config, tokenizer: &Path, text: &[u8], origin: &Path) -> Result<Windows> {
    let tokenizer = crate::data::Tokenizer::open(tokenizer)?;
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::Data { path: origin.into(), problem: format!("is not UTF-8: {error}") })?;
    let framing = config.arch.is_encoder().then(|| tokenizer.framing()).transpose()?;
    let framing = framing.map(|framing| framing.hiding(config.mlm_probability));
    Ok(Windows { parts: crate::data::cut(tokenizer.encode(text)?), framing })
}

#[cfg(not(feature = "hub"))]
fn tokenized(_: &Config, _: &Path, _: &[u8], _: &Path) -> Result<Windows> {
    Err(no_tokenizers())
}

#[cfg(not(feature = "hub"))]
fn no_tokenizers() -> Error {
    Error::Config("model, tokenizer: this program was built without the feature hub, which reads tokenizers".into())
}

#[cfg(feature = "hub")]
fn lessons(config: &Config, folder: &Path) -> Result<Subject> {
    use super::{Lessons, Task, TextLessons};
    let Some(data) = &config.data else {
        return Err(Error::Config("data: a file or folder to learn from is needed beside a model".into()));
    };
    let tokenizer = crate::data::Tokenizer::open(folder)?;
    let sizes = hub::read_config(folder, config.context)?;
    check_hiding(config, sizes.arch.is_encoder() && config.task == Task::Lm)?;
    if tokenizer.size() > sizes.vocabulary {
        let problem = format!("its tokenizer has {} tokens, the model {}", tokenizer.size(), sizes.vocabulary);
        return Err(Error::Data { path: folder.into(), problem });
    }
    let subject = |source: Box<dyn Source>, labels, fingerprint, notes| {
        let names = Names { vocabulary: None, labels };
        Subject { source, names, fingerprint, notes }
    };
    let mut subject = match config.task {
        Task::Lm if !sizes.arch.is_encoder() => {
            let mut lessons = Lessons::open(config, data, &tokenizer)?;
            let (notes, fingerprint) = (std::mem::take(&mut lessons.notes), lessons.fingerprint());
            subject(Box::new(lessons), None, fingerprint, notes)
        }
        task => {
            let mut lessons = match task {
                Task::Classify => TextLessons::labelled(config, data, &tokenizer, &sizes)?,
                Task::Lm => hidden(config, data, &tokenizer)?,
            };
            let (notes, labels) = (std::mem::take(&mut lessons.notes), lessons.labels.take());
            let fingerprint = lessons.fingerprint();
            subject(Box::new(lessons), labels, fingerprint, notes)
        }
    };
    subject.notes.extend(config.of_fresh_head(folder, &subject.names)?);
    Ok(subject)
}

#[cfg(feature = "hub")]
fn hidden(config: &Config, data: &Path, tokenizer: &crate::data::Tokenizer) -> Result<super::TextLessons> {
    let refused =
        |setting: &str| Err(Error::Config(format!("{setting}: an encoder learns by hidden tokens of whole texts")));
    match (config.pack, config.mask_prompt) {
        (true, _) => refused("pack"),
        (_, true) => refused("mask_prompt"),
        _ => super::TextLessons::hidden(config, data, tokenizer),
    }
}

#[cfg(not(feature = "hub"))]
fn lessons(_: &Config, _: &Path) -> Result<Subject> {
    Err(no_tokenizers())
}

impl Config {
    /// Tokens of a new model whose vocabulary is made from its text.
    fn vocabulary(&self, vocabulary: &Vocabulary) -> usize {
        vocabulary.size() + specials(self.arch).map_or(0, |specials| specials.names.len())
    }

    /// Sizes of the model that such a run trains.
    pub fn sizes(&self, names: &Names) -> Result<ModelConfig> {
        match (&self.model, &self.tokenizer, &names.vocabulary) {
            (Some(folder), ..) => {
                let mut sizes = hub::read_config(folder, self.context)?;
                if names.labels.is_some() && !sizes.arch.is_encoder() {
                    // Other programs find the end of a text by it.
                    sizes.padding = sizes.padding.map_or_else(|| padding_of(folder), |padding| Ok(Some(padding)))?;
                }
                Ok(ModelConfig { dropout: self.dropout, labels: names.labels.clone(), ..sizes })
            }
            (None, Some(tokenizer), _) => self.for_tokenizer(tokenizer),
            (None, None, Some(vocabulary)) => Ok(self.model(self.vocabulary(vocabulary))),
            (None, None, None) => Err(Error::Config("model: nothing says which model the run began with".into())),
        }
    }

    #[cfg(feature = "hub")]
    fn for_tokenizer(&self, path: &Path) -> Result<ModelConfig> {
        let tokenizer = crate::data::Tokenizer::open(path)?;
        let sizes = self.model(tokenizer.size());
        Ok(ModelConfig { padding: tokenizer.pad().or(sizes.padding), ..sizes })
    }

    #[cfg(not(feature = "hub"))]
    fn for_tokenizer(&self, _: &Path) -> Result<ModelConfig> {
        Err(no_tokenizers())
    }

    /// What there is to say of a head that the model's files lack; an error where adapters could not stand beside it.
    #[cfg(feature = "hub")]
    fn of_fresh_head(&self, folder: &Path, names: &Names) -> Result<Option<String>> {
        use super::{Adapter, Task};
        let fresh = hub::lacking(folder, &self.sizes(names)?)?;
        match fresh.is_empty() {
            true => Ok(None),
            false if self.task == Task::Lm && self.adapter != Adapter::None => {
                let advice = "take a method that trains all weights";
                let problem = format!("lacks {}, which must be learnt as a whole: {advice}", fresh.join(", "));
                Err(Error::Data { path: folder.into(), problem })
            }
            false => Ok(Some(format!("new in this model: {}", fresh.join(", ")))),
        }
    }

    /// Of the files of the model that a run begins with, in hexadecimal.
    pub(super) fn base_fingerprint(&self) -> Result<Option<String>> {
        self.model.as_deref().map(hub::fingerprint).transpose()
    }

    /// Longest sequence, in tokens, that the model can have of those wanted.
    pub(super) fn longest(&self) -> Result<usize> {
        let read = |folder: &Path| hub::read_config(folder, self.context).map(|sizes| sizes.context);
        self.model.as_deref().map_or(Ok(self.context), read)
    }
}

/// The token that fills rows up for a model of files that names none.
#[cfg(feature = "hub")]
fn padding_of(folder: &Path) -> Result<Option<u32>> {
    let tokenizer = crate::data::Tokenizer::open(folder)?;
    Ok(tokenizer.pad().or(tokenizer.eos()))
}

#[cfg(not(feature = "hub"))]
fn padding_of(_: &Path) -> Result<Option<u32>> {
    Err(no_tokenizers())
}
