//! What a run is about: what it learns from, what the tokens stand for, and the model it begins with.

use super::{Config, Source};
use crate::data::{Corpus, EMBEDDED, Vocabulary};
use crate::error::{Error, Result};
use crate::io::{self, hub};
use crate::nn::ModelConfig;
use std::path::Path;

/// What a configuration names, read and checked.
pub struct Subject {
    /// What is learnt from.
    pub source: Box<dyn Source>,
    /// What tokens stand for, unless the model's folder says it.
    pub vocabulary: Option<Vocabulary>,
    /// Of what is learnt, in hexadecimal.
    pub fingerprint: String,
}

/// Reads what a resolved configuration names; a text has to suffice for the context.
pub fn subject(config: &Config) -> Result<Subject> {
    if let Some(folder) = &config.model {
        return lessons(config, folder);
    }
    let (text, origin) = match &config.data {
        Some(path) => (io::read(path)?, path.as_path()),
        None => (EMBEDDED.as_bytes().to_vec(), Path::new("the built-in text")),
    };
    let corpus = Corpus::new(&text, origin)?;
    corpus.check(config.context, origin)?;
    let (vocabulary, fingerprint) = (Some(corpus.vocabulary.clone()), format!("{:016x}", io::checksum(&text)));
    Ok(Subject { source: Box::new(corpus), vocabulary, fingerprint })
}

#[cfg(feature = "hub")]
fn lessons(config: &Config, folder: &Path) -> Result<Subject> {
    let Some(data) = &config.data else {
        return Err(Error::Config("data: a file or folder to learn from is needed beside a model".into()));
    };
    let tokenizer = crate::data::Tokenizer::open(folder)?;
    let vocabulary = hub::read_config(folder, config.context)?.vocabulary;
    if tokenizer.size() > vocabulary {
        let problem = format!("its tokenizer has {} tokens, the model {vocabulary}", tokenizer.size());
        return Err(Error::Data { path: folder.into(), problem });
    }
    let lessons = super::Lessons::open(config, data, &tokenizer)?;
    let fingerprint = lessons.fingerprint();
    Ok(Subject { source: Box::new(lessons), vocabulary: None, fingerprint })
}

#[cfg(not(feature = "hub"))]
fn lessons(_: &Config, _: &Path) -> Result<Subject> {
    Err(Error::Config("model: this program was built without the feature hub, which reads tokenizers".into()))
}

impl Config {
    /// Sizes of the model that such a run trains; `vocabulary` is for a new one.
    pub fn sizes(&self, vocabulary: Option<&Vocabulary>) -> Result<ModelConfig> {
        match &self.model {
            Some(folder) => {
                let sizes = hub::read_config(folder, self.context)?;
                Ok(ModelConfig { dropout: self.dropout, ..sizes })
            }
            None => match vocabulary {
                Some(vocabulary) => Ok(self.model(vocabulary.size())),
                None => Err(Error::Config("model: nothing says which model the run began with".into())),
            },
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
