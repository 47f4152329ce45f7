//! A model of files, its tokenizer, and adapters put on it.

use clap::Args;
use eckart::data::Tokenizer;
use eckart::io::{hub, peft};
use eckart::lowrank::{Keep, bake, merge};
use eckart::nn::{Model, ModelConfig};
use eckart::{Device, Result};
use std::path::PathBuf;

#[derive(Args)]
pub struct Base {
    /// Folder of the model: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of an adapter: adapter_config.json, adapter_model.safetensors; more than one are added up
    #[arg(long, value_name = "DIR")]
    pub adapter: Vec<PathBuf>,
}

impl Base {
    /// Sizes, with the longest context that there can be up to `most` tokens.
    pub fn sizes(&self, most: usize) -> Result<ModelConfig> {
        hub::read_config(&self.model, most)
    }

    /// A model of these sizes with all adapters merged in.
    pub fn open(&self, sizes: &ModelConfig, device: &Device) -> Result<Model> {
        let mut model = hub::load(&self.model, sizes, device)?;
        for folder in &self.adapter {
            peft::open(folder)?.put_on(&mut model)?;
            merge(&mut model, Keep::Nothing, true)?;
            bake(&mut model);
        }
        Ok(model)
    }

    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::open(&self.model)
    }
}
