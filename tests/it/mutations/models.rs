//! Models in Hugging Face's layout: sizes, weights in one file or in shards, factors.

use super::damage::Random;
use super::{Files, Kind, put};
use crate::hub;
use eckart::io::hub::open;
use eckart::lowrank::factorize;
use eckart::nn::Model;
use eckart::{Device, Module};
use std::collections::BTreeMap;
use std::path::Path;

const CONTEXT: Option<usize> = Some(8);

/// A folder's files, sizes first and then what says where weights are.
fn files(folder: &Path) -> Files {
    let wanted = |name: &str| name.starts_with("model") || name == "config.json";
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| wanted(name)).collect();
    names.sort_by_key(|name| (name.ends_with("safetensors"), name.clone()));
    names.into_iter().map(|name| (name.clone(), std::fs::read(folder.join(&name)).unwrap())).collect()
}

/// A model of which some layers are factors.
fn factored() -> Files {
    let home = tempfile::tempdir().unwrap();
    let mut model = open(&hub::folder("llama"), None, &Device::cpu()).unwrap();
    let ranks = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"].map(|path| (path.to_string(), 2));
    factorize(&mut model, &BTreeMap::from(ranks), &Default::default()).unwrap();
    let path = home.path().join("factored");
    eckart::io::hub::save(&model, &path, &Default::default()).unwrap();
    files(&path)
}

/// Values of all parameters.
fn values(model: &Model) -> Vec<f32> {
    model.parameters().iter().flat_map(|(_, parameter)| parameter.tensor().to_vec::<f32>().unwrap()).collect()
}

/// A model's shards with other numbers, where no index of another folder may lead.
pub fn leave_outside(home: &Path) {
    let mut shards = files(&hub::folder("llama-sharded"));
    for (_, contents) in shards.iter_mut().filter(|(name, _)| name.ends_with("safetensors")) {
        let table = 8 + u64::from_le_bytes(contents[..8].try_into().unwrap()) as usize;
        contents[table..].fill(0x42);
    }
    let first = shards.iter().find(|(name, _)| name.ends_with("safetensors")).unwrap().1.clone();
    shards.push(("model.safetensors".into(), first));
    put(&home.join("outside"), &shards);
}

/// Whole folders, of which any file is damaged.
pub struct Folder(Vec<Files>);

impl Folder {
    pub fn new() -> Folder {
        let originals = ["gpt2", "llama", "qwen3"].map(|name| files(&hub::folder(name)));
        Folder(originals.into_iter().chain([factored()]).collect())
    }
}

impl Kind for Folder {
    fn files(&self, random: &mut Random) -> (Files, usize) {
        let files = self.0[random.below(self.0.len())].clone();
        let all = files.len();
        (files, all)
    }

    /// The tables of contents, with all that sizes lead to.
    fn open(&mut self, folder: &Path) -> eckart::Result<()> {
        open(folder, CONTEXT, &Device::null()).map(drop)
    }

    fn try_out(&mut self, folder: &Path) {
        open(folder, CONTEXT, &Device::cpu()).unwrap();
    }
}

/// An index, which is damaged alone.
pub struct Index {
    files: Files,
    values: Vec<f32>,
}

impl Index {
    pub fn new() -> Index {
        let mut files = files(&hub::folder("llama-sharded"));
        files.sort_by_key(|(name, _)| !name.ends_with("index.json"));
        let model = open(&hub::folder("llama-sharded"), CONTEXT, &Device::cpu()).unwrap();
        Index { files, values: values(&model) }
    }
}

impl Kind for Index {
    fn files(&self, _: &mut Random) -> (Files, usize) {
        (self.files.clone(), 1)
    }

    fn open(&mut self, folder: &Path) -> eckart::Result<()> {
        open(folder, CONTEXT, &Device::null()).map(drop)
    }

    /// What is read is the folder's own, whatever the index says.
    fn try_out(&mut self, folder: &Path) {
        let model = open(folder, CONTEXT, &Device::cpu()).unwrap();
        assert!(values(&model) == self.values, "numbers from elsewhere");
    }
}
