//! What a run is about: what it learns from, what the tokens stand for, and the model it begins with.

use super::{Config, Source};
use crate::data::{Corpus, EMBEDDED, Vocabulary};
use crate::device::Device;
use crate::error::Result;
use crate::io;
use crate::nn::{Model, ModelConfig};
use crate::rng::Seed;
use std::path::Path;

/// What a configuration names, read and checked.
pub struct Subject {
    /// What is learnt from.
    pub source: Box<dyn Source>,
    /// What tokens stand for, unless the model's folder says it.
    pub vocabulary: Option<Vocabulary>,
    /// Of the text, in hexadecimal.
    pub fingerprint: String,
}

/// Reads what a resolved configuration names; its text has to suffice for its context.
pub fn subject(config: &Config) -> Result<Subject> {
    let (text, origin) = match &config.data {
        Some(path) => (io::read(path)?, path.as_path()),
        None => (EMBEDDED.as_bytes().to_vec(), Path::new("the built-in text")),
    };
    let corpus = Corpus::new(&text, origin)?;
    corpus.check(config.context, origin)?;
    let (vocabulary, fingerprint) = (Some(corpus.vocabulary.clone()), format!("{:016x}", io::checksum(&text)));
    Ok(Subject { source: Box::new(corpus), vocabulary, fingerprint })
}

impl Config {
    /// Sizes of the model that such a run trains.
    pub fn sizes(&self, subject: &Subject) -> ModelConfig {
        self.model(subject.vocabulary.as_ref().map_or(1, Vocabulary::size))
    }

    /// The model at the run's beginning, with its adapters: a function of the resolved configuration.
    pub fn fresh(&self, vocabulary: Option<&Vocabulary>, device: &Device) -> Result<Model> {
        let sizes = self.model(vocabulary.map_or(1, Vocabulary::size));
        let mut model = Model::new(&sizes, Seed(self.seed).named("model"), device)?;
        self.adapt(&mut model)?;
        Ok(model)
    }
}
