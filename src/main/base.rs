//! A model of files, its tokenizer, and adapters put on it.

use clap::Args;
use eckart::data::Tokenizer;
use eckart::io::{hub, peft};
use eckart::lowrank::{Keep, bake, merge};
use eckart::nn::{Model, ModelConfig};
use eckart::{Device, Error, Result, Seed};
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Args)]
pub struct Base {
    /// Folder of the model: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of an adapter: adapter_config.json, adapter_model.safetensors; more than one are added up. With names, eval
    /// reads each line of jsonl by the one that it names under "adapter"
    #[arg(long, value_name = "[NAME=]DIR")]
    pub adapter: Vec<Adapter>,
}

/// An adapter's folder, and perhaps a name: then it is chosen by that, and else a part of the model.
#[derive(Clone, Debug)]
pub struct Adapter {
    name: Option<String>,
    folder: PathBuf,
}

impl FromStr for Adapter {
    type Err = String;

    /// `DIR` or `NAME=DIR`; a folder with = in its own name is given with a slash before that.
    fn from_str(text: &str) -> Result<Adapter, String> {
        match text.split_once('=') {
            Some((name, _)) if name.is_empty() || name == BASE => Err(format!("{text:?}: {name:?} names no adapter")),
            Some((name, folder)) if !name.contains(['/', '\\']) => {
                Ok(Adapter { name: Some(name.into()), folder: folder.into() })
            }
            _ => Ok(Adapter { name: None, folder: text.into() }),
        }
    }
}

/// What PEFT calls the model without an adapter.
pub const BASE: &str = "__base__";

/// What an example or a prompt can choose among: named adapters, and behind them the model itself.
pub struct Choice(Vec<String>);

impl Choice {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of adapters, in the order in which they were given.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The number of an adapter, or of the model itself.
    pub fn number(&self, name: &str) -> Result<u32> {
        let found = self.0.iter().position(|one| one == name);
        let number = found.or((name == BASE).then_some(self.0.len())).ok_or_else(|| {
            let there = self.0.join(", ");
            Error::Config(format!("there is no adapter {name:?}: give --adapter {name}=DIR, beside {there} and {BASE}"))
        })?;
        Ok(number as u32)
    }

    pub fn name(&self, number: u32) -> &str {
        self.0.get(number as usize).map_or(BASE, String::as_str)
    }
}

impl Base {
    /// Sizes, with the longest context that there can be up to `most` tokens, and the classes of an adapter's classifier.
    pub fn sizes(&self, most: usize) -> Result<ModelConfig> {
        let mut sizes = hub::read_config(&self.model, most)?;
        if let Some(name) = self.adapter.iter().find_map(|adapter| adapter.name.as_ref()) {
            let of = |problem| {
                Error::Config(format!("adapter {name}=…: adapters are chosen by name for models that write; {problem}"))
            };
            sizes.check_writes().map_err(of)?;
        }
        for adapter in self.adapter.iter().filter(|adapter| adapter.name.is_none()) {
            sizes.labels = peft::open(&adapter.folder)?.classes(sizes.labels.as_deref());
        }
        Ok(sizes)
    }

    /// A model of these sizes with all adapters merged in, which must have no names. A head that its files lack has to be in
    /// one of them.
    pub fn open(&self, sizes: &ModelConfig, device: &Device) -> Result<Model> {
        if let Some(name) = self.adapter.iter().find_map(|adapter| adapter.name.as_ref()) {
            return Err(Error::Config(format!(
                "adapter {name}=…: there is nothing to choose by name here: give DIR alone"
            )));
        }
        self.merged(sizes, device)
    }

    /// The same with those that have names to choose among.
    pub fn open_to_choose(&self, sizes: &ModelConfig, device: &Device) -> Result<(Model, Choice)> {
        let named = || self.adapter.iter().filter(|adapter| adapter.name.is_some());
        let names: Vec<String> = named().filter_map(|adapter| adapter.name.clone()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(Error::Config(format!("adapter {}=…: two have this name", twice.1)));
        }
        let mut model = self.merged(sizes, device)?;
        if !names.is_empty() {
            let adapters = named().map(|adapter| peft::open(&adapter.folder)).collect::<Result<Vec<_>>>()?;
            let choices: Vec<_> = adapters.iter().map(Some).chain([None]).collect();
            peft::bank(&mut model, &choices)?;
        }
        Ok((model, Choice(names)))
    }

    fn merged(&self, sizes: &ModelConfig, device: &Device) -> Result<Model> {
        let (mut model, mut fresh) = hub::load_with_head(&self.model, sizes, Seed(0), device)?;
        for adapter in self.adapter.iter().filter(|adapter| adapter.name.is_none()) {
            let placed = peft::open(&adapter.folder)?.put_on(&mut model)?;
            fresh.retain(|path| !placed.whole.contains(path));
            merge(&mut model, Keep::Nothing, true)?;
            bake(&mut model);
        }
        if !fresh.is_empty() {
            let problem = format!("lacks {}, and no adapter has it", fresh.join(", "));
            return Err(Error::Data { path: self.model.clone(), problem });
        }
        Ok(model)
    }

    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::open(&self.model)
    }
}
