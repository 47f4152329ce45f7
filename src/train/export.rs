//! What a run leaves for other programs: a model in Hugging Face's layout, or an adapter as PEFT keeps it.

use super::subject::specials;
use super::{Adapter, Checkpoint, Config, Trained};
use crate::data::{Specials, Vocabulary};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::{self, Files, hub};
use crate::lowrank::{Initial, Keep, bake, merge};
use crate::nn::Model;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Files of a tokenizer, and what goes with it.
const TOKENIZER: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// Files of a tokenizer, of a folder or one alone, to go beside a model that has it.
pub fn tokenizer_files(folder: &Path) -> Result<Files> {
    #[cfg(feature = "hub")]
    if folder.is_file() {
        let name = crate::data::Tokenizer::file_name(folder)?;
        return Ok(Files::from([(name.to_string(), io::read(folder)?)]));
    }
    let there = TOKENIZER.into_iter().filter(|name| folder.join(name).is_file());
    there.map(|name| Ok((name.to_string(), io::read(&folder.join(name))?))).collect()
}

impl Trained {
    /// Writes what the run learnt, as it was best on validation, into the run's folder: `adapter` if adapters were trained
    /// beside a model of files, else `model`, into which adapters are merged. What an earlier call wrote is replaced. Gives
    /// the folder.
    pub fn export(self) -> Result<PathBuf> {
        let config = self.report.config.clone();
        let out = config.out.clone().ok_or_else(|| Error::Config("out: the run has no folder".into()))?;
        let mut model = self.model;
        let best = Checkpoint::open(&out)?;
        best.restore(&mut model)?;
        match (&config.model, config.adapter) {
            (Some(base), adapter) if adapter != Adapter::None => {
                let folder = anew(&out, "adapter")?;
                save_adapter(&model, &config, base, best.initial(&Device::cpu())?, &folder)?;
                Ok(folder)
            }
            (base, adapter) => {
                if adapter != Adapter::None {
                    merge(&mut model, Keep::Nothing, true)?;
                    bake(&mut model);
                }
                let files = match (base.as_ref().or(config.tokenizer.as_ref()), &self.vocabulary) {
                    (Some(folder), _) => tokenizer_files(folder)?,
                    (None, Some(vocabulary)) => own_tokenizer(vocabulary, specials(config.arch)),
                    (None, None) => Files::new(),
                };
                let folder = anew(&out, "model")?;
                hub::save(&model, &folder, &files)?;
                Ok(folder)
            }
        }
    }
}

/// A vocabulary as other programs read it, and that it goes with no class of its own there.
fn own_tokenizer(vocabulary: &Vocabulary, specials: Option<&Specials>) -> Files {
    let mut class = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    for (role, name) in specials.iter().flat_map(|specials| specials.roles()) {
        class[role] = name.into();
    }
    let files = [("tokenizer.json", vocabulary.to_hugging_face(specials)), ("tokenizer_config.json", class)];
    files.map(|(name, text)| (name.into(), serde_json::to_vec_pretty(&text).expect("plain data"))).into()
}

#[cfg(feature = "hub")]
fn save_adapter(model: &Model, config: &Config, base: &Path, initial: Initial, folder: &Path) -> Result<()> {
    let base_model = Some(base.display().to_string());
    let about = io::peft::About { base_model, rank_stabilised: config.rank_stabilised, initial };
    io::peft::save(model, &about, folder)
}

#[cfg(not(feature = "hub"))]
fn save_adapter(_: &Model, _: &Config, _: &Path, _: Initial, _: &Path) -> Result<()> {
    unreachable!("without the feature hub no run begins with a model of files")
}

/// A folder that is not there.
fn anew(out: &Path, name: &str) -> Result<PathBuf> {
    let folder = out.join(name);
    if folder.exists() {
        io::remove_folder(&folder)?;
    }
    Ok(folder)
}
