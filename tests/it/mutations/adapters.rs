//! Adapters as PEFT wrote them.

use super::damage::Random;
use super::{Files, Kind};
use crate::peft::{adapter, base, folder};
use crate::peft_files::contents;
use eckart::io::peft::{Adapter, open};
use eckart::nn::Model;
use eckart::{DType, Error};
use std::path::Path;

const NAMES: [&str; 7] =
    ["gpt2_lora", "gpt2_saved", "gpt2_exclude", "llama_dora", "llama_patterns", "llama_tied", "untied_embedding"];

/// Configurations with their tensors, and the models that they are for.
pub struct Adapters {
    models: Vec<Model>,
    files: Vec<Files>,
    which: usize,
    opened: Option<(Vec<String>, Adapter)>,
}

impl Adapters {
    pub fn new() -> Adapters {
        let models = NAMES.map(|name| base(name, DType::F32)).into();
        let file = |name: &str, file: &str| (file.to_string(), std::fs::read(folder(name).join(file)).unwrap());
        let files = |name: &str| ["adapter_config.json", "adapter_model.safetensors"].map(|one| file(name, one)).into();
        NAMES.iter().for_each(|name| assert!(adapter(name).check(None).is_empty()));
        Adapters { models, files: NAMES.iter().map(|name| files(name)).collect(), which: 0, opened: None }
    }
}

impl Kind for Adapters {
    fn files(&self, random: &mut Random) -> (Files, usize) {
        (self.files[random.below(NAMES.len())].clone(), 2)
    }

    fn open(&mut self, folder: &Path) -> eckart::Result<()> {
        let adapter = open(folder)?;
        self.opened = Some((adapter.check(None), adapter));
        Ok(())
    }

    fn try_out(&mut self, _: &Path) {
        let (faults, adapter) = self.opened.take().expect("it was opened");
        match adapter.show() {
            Ok(_) => assert!(faults.is_empty()),
            // Numbers that are finite, with products that are not.
            Err(Error::NotFinite(_)) => assert!(faults.is_empty()),
            Err(error) => assert!(!faults.is_empty(), "{error}"),
        }
        // Each of the models in turn, fitting or not.
        self.which = (self.which + 1) % NAMES.len();
        for original in [&self.models[self.which], &self.models[0]] {
            let mut model = original.clone();
            let sound = adapter.check(Some(&model)).is_empty();
            let done = adapter.put_on(&mut model);
            assert!(sound || done.is_err());
            if done.is_err() {
                assert_eq!(contents(&model), contents(original), "nothing was changed");
            }
        }
    }
}
