//! A model of files, its tokenizer, and adapters put on it.

use clap::Args;
use eckart::data::Tokenizer;
use eckart::io::{hub, peft};
use eckart::lowrank::{Keep, bake, merge};
use eckart::nn::{Model, ModelConfig};
use eckart::{Device, Error, Result, Seed};
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
    /// Sizes, with the longest context that there can be up to `most` tokens, and the classes of an adapter's classifier.
    pub fn sizes(&self, most: usize) -> Result<ModelConfig> {
        let mut sizes = hub::read_config(&self.model, most)?;
        for folder in &self.adapter {
            sizes.labels = peft::open(folder)?.classes().or(sizes.labels);
        }
        Ok(sizes)
    }

    /// A model of these sizes with all adapters merged in. A head that its files lack has to be in one of them.
    pub fn open(&self, sizes: &ModelConfig, device: &Device) -> Result<Model> {
        let (mut model, mut fresh) = hub::load_with_head(&self.model, sizes, Seed(0), device)?;
        for folder in &self.adapter {
            let placed = peft::open(folder)?.put_on(&mut model)?;
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
