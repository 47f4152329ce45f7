//! Models in folders as Hugging Face has them: `config.json` beside `model.safetensors`, or beside shards with an index.
//!
//! Nothing in such a folder is trusted: sizes are compared with the files before anything is allocated by them, names
//! lead to files of the folder itself alone, and what does not fit is an error that lists all of it.

mod cast;
mod save;
mod shards;
mod weights;

pub use save::{multiply_out, save};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::lowrank::{ALL, chosen};
use crate::module::Path as ModulePath;
use crate::nn::{Arch, Model, ModelConfig};
use crate::ops::quantised::Format;
use crate::rng::Seed;
use shards::Shards;
use std::io::Read;
use std::path::Path;
use weights::Weights;

/// The file with a model's sizes.
const CONFIG: &str = "config.json";

/// Most bytes of a model's sizes. What stands for little in a text may take much when it is read.
const LONGEST: u64 = 1 << 20;

/// A table of rotary positions of this many bytes is made for any model; a larger one if the weights are as large.
const SMALL: u64 = 64 << 20;

/// Reads the sizes of the model in `folder`, with the longest context that it can have up to `most` tokens.
pub fn read_config(folder: &Path, most: usize) -> Result<ModelConfig> {
    // One token fits into every window.
    let positions = read_config_within(folder, Some(1))?.positions();
    read_config_within(folder, Some(most.min(positions)))
}

fn read_config_within(folder: &Path, context: Option<usize>) -> Result<ModelConfig> {
    let path = folder.join(CONFIG);
    let text = text(&path, LONGEST)?;
    ModelConfig::from_hugging_face_within(&text, context)
        .map_err(|error| Error::Data { path, problem: error.to_string() })
}

/// Loads the model in `folder` in single precision, for sequences of at most `context` tokens, all that it has positions
/// for if none. Each weight is read from the mapped file and goes to the device once. On a null device the files' tables
/// of contents are read and compared, the weights are not.
///
/// The files must not be changed meanwhile.
pub fn open(folder: &Path, context: Option<usize>, device: &Device) -> Result<Model> {
    load(folder, &read_config_within(folder, context)?, device)
}

/// The same for sizes that were [read](read_config) there and may say another dropout.
pub fn load(folder: &Path, config: &ModelConfig, device: &Device) -> Result<Model> {
    read(folder, config, None, device, |_, _| Ok(())).map(|(model, _)| model)
}

/// The same where the files may be for another task and lack this one's head: it is fresh then, a function of the seed. Gives
/// the paths of its parameters as well.
pub fn load_with_head(
    folder: &Path,
    config: &ModelConfig,
    seed: Seed,
    device: &Device,
) -> Result<(Model, Vec<String>)> {
    read(folder, config, Some(seed), device, |_, _| Ok(()))
}

/// The same with the weights of linear layers, all but embeddings and head, in fewer bits: each is packed as it is read, so
/// that no other form of it is ever on the device. Without a seed all of it has to be in the files. The bits are those of [`quantise`](crate::lowrank::quantise()). Layers
/// that are factors, and those that are fresh, stay as they are.
///
/// A weight that is not finite, or too large for the format, is an error that names it.
pub fn load_in(
    format: Format,
    folder: &Path,
    config: &ModelConfig,
    head: Option<Seed>,
    device: &Device,
) -> Result<(Model, Vec<String>)> {
    read(folder, config, head, device, |model, weights| weights.set_in(format, model))
}

/// The same, one linear map after the other, embeddings and head too: `see` is given the path of each when its weight is
/// there as the files have it, and may put another map in its place before the next is read.
pub fn load_by_layer(
    folder: &Path,
    config: &ModelConfig,
    head: Option<Seed>,
    device: &Device,
    see: &mut dyn FnMut(&mut Model, &str) -> Result<()>,
) -> Result<(Model, Vec<String>)> {
    read(folder, config, head, device, |model, weights| {
        for path in chosen(model, &[ALL])? {
            weights.set_map(model, &path)?;
            see(model, &path)?;
        }
        Ok(())
    })
}

/// Sets some weights as `some` does, then all others. With a seed the files may lack a head: it is fresh then, and the paths
/// of its parameters are returned.
fn read(
    folder: &Path,
    config: &ModelConfig,
    head: Option<Seed>,
    device: &Device,
    some: impl FnOnce(&mut Model, &mut Weights<'_>) -> Result<()>,
) -> Result<(Model, Vec<String>)> {
    let shards = Shards::open(folder)?;
    check_table(config, shards.length()?, folder)?;
    let named = |error: Error| Error::Data { path: folder.join(CONFIG), problem: error.to_string() };
    let mut model = Model::unset(config, device).map_err(named)?;
    let (mut weights, fresh) = Weights::of(&model, &shards, folder, head.is_some(), device)?;
    if let Some(seed) = head.filter(|_| !fresh.is_empty()) {
        model.renew_head(seed, device);
    }
    some(&mut model, &mut weights)?;
    weights.set(&ModulePath::root(), &mut model)?;
    device.wait()?;
    Ok((model, fresh))
}

/// Paths of the parameters that [`load_with_head`] makes fresh; reads no weights.
pub fn lacking(folder: &Path, config: &ModelConfig) -> Result<Vec<String>> {
    let (model, device) = (Model::unset(config, &Device::null())?, Device::null());
    Ok(Weights::of(&model, &Shards::open(folder)?, folder, true, &device)?.1)
}

/// The context is the one size that no weight of a Llama confirms.
fn check_table(config: &ModelConfig, weights: u64, folder: &Path) -> Result<()> {
    let bytes = (config.context * config.head_size() * size_of::<f32>()) as u64;
    if config.arch != Arch::Llama || bytes <= SMALL.max(weights) {
        return Ok(());
    }
    let problem = format!(
        "a table of {} positions would take {bytes} bytes, more than the weights: ask for a smaller context",
        config.context
    );
    Err(Error::Data { path: folder.join(CONFIG), problem })
}

/// An ordinary file, or a link to one: anything else may block for ever.
fn ordinary(path: &Path) -> Result<std::fs::File> {
    if !std::fs::metadata(path).map_err(Error::file(path))?.is_file() {
        return Err(Error::Data { path: path.into(), problem: "is not a file".into() });
    }
    std::fs::File::open(path).map_err(Error::file(path))
}

/// A file of at most so many bytes, as text.
fn text(path: &Path, most: u64) -> Result<String> {
    let (file, mut text) = (ordinary(path)?, String::new());
    let length = file.metadata().map_err(Error::file(path))?.len();
    if length > most {
        let problem = format!("has {length} bytes; at most {most} are read");
        return Err(Error::Data { path: path.into(), problem });
    }
    file.take(length).read_to_string(&mut text).map_err(Error::file(path))?;
    Ok(text)
}

/// Of a model's configuration and weights, in hexadecimal: any change of them changes it, as [`checksum`] has it.
///
/// [`checksum`]: crate::io::checksum
pub fn fingerprint(folder: &Path) -> Result<String> {
    let config = text(&folder.join(CONFIG), LONGEST)?;
    let mut sums = vec![super::checksum(config.as_bytes())];
    for (path, mut file) in Shards::open(folder)?.into_files() {
        let mut piece = Vec::new();
        while (&mut file).take(PIECE).read_to_end(&mut piece).map_err(Error::file(&path))? > 0 {
            sums.push(super::checksum(&piece));
            piece.clear();
        }
    }
    Ok(format!("{:016x}", super::checksum(bytemuck::cast_slice(&sums))))
}

/// Bytes of a file that are read at a time.
const PIECE: u64 = 1 << 20;
