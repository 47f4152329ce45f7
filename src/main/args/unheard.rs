//! Flags that what is to be trained does not read: given, they are refused rather than ignored.

use eckart::train::{Adapter, AdapterStart, Config, Method};
use eckart::{Error, Result};

/// A flag, whether it was given, and who reads it.
pub type Given = (&'static str, bool, Reader);

/// What reads a flag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reader {
    Adapters,
    LoraPlus,
    LoraGa,
    /// Optimizers whose state lives in subspaces.
    Subspaces,
    /// The same, and gradients that are added up as sketches.
    Projections,
    /// Adapters and subspaces that have a rank.
    Ranks,
    Flora,
}

impl Reader {
    /// Whether a run of this configuration has it.
    fn is_in(self, config: &Config) -> bool {
        let adapters = config.adapter != Adapter::None;
        let subspaces = config.method().is_low_rank();
        let sketches = config.compress_accumulation == Some(true);
        match self {
            Reader::Adapters => adapters,
            Reader::LoraPlus => config.adapter == Adapter::LoraPlus,
            Reader::LoraGa => adapters && config.start == AdapterStart::LoraGa,
            Reader::Subspaces => subspaces,
            Reader::Projections => subspaces || sketches,
            Reader::Ranks => adapters || sketches || subspaces && config.method() != Method::ApolloMini,
            Reader::Flora => config.method() == Method::Flora,
        }
    }

    fn named(self) -> &'static str {
        match self {
            Reader::Adapters => "adapters, and this method trains all weights",
            Reader::LoraPlus => "lora+",
            Reader::LoraGa => "adapters with --start lora-ga",
            Reader::Subspaces | Reader::Projections => {
                "optimizers with subspaces: flora, apollo, apollo-mini, galore, compressed-adam"
            }
            Reader::Ranks => "adapters, and for flora, apollo, galore, compressed-adam",
            Reader::Flora => "flora",
        }
    }
}

/// An error that names the first flag which a run of this configuration would not read.
pub fn refuse(flags: &[Given], config: &Config) -> Result<()> {
    match flags.iter().find(|(_, given, reader)| *given && !reader.is_in(config)) {
        Some((flag, _, reader)) => Err(Error::Config(format!("{flag} is for {}", reader.named()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_is_in_some_run_and_not_in_another() {
        let with = |adapter, optimizer| Config { adapter, optimizer: Some(optimizer), ..Config::default() };
        let (full, flora) = (with(Adapter::None, Method::Adamw), with(Adapter::None, Method::Flora));
        let (mini, galore) = (with(Adapter::None, Method::ApolloMini), with(Adapter::None, Method::Galore));
        let (lora, plus) = (with(Adapter::Lora, Method::Adamw), with(Adapter::LoraPlus, Method::Adamw));
        let steepest = Config { start: AdapterStart::LoraGa, ..lora.clone() };
        let sketched = Config { compress_accumulation: Some(true), ..full.clone() };
        let runs = [full, flora, mini, galore, lora, plus, steepest, sketched];
        let has = |reader: Reader| runs.each_ref().map(|run| reader.is_in(run) as u8);
        assert_eq!(has(Reader::Adapters), [0, 0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(has(Reader::LoraPlus), [0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(has(Reader::LoraGa), [0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(has(Reader::Subspaces), [0, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(has(Reader::Projections), [0, 1, 1, 1, 0, 0, 0, 1]);
        assert_eq!(has(Reader::Ranks), [0, 1, 0, 1, 1, 1, 1, 1]);
        assert_eq!(has(Reader::Flora), [0, 1, 0, 0, 0, 0, 0, 0]);
    }
}
