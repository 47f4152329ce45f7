//! A run's checkpoints: folders `step-00000200` (with `-0003` where three micro-batches of the next step are held) and
//! `best-00000200`, which has the model alone.
//! Of the model, what trains: the rest is made anew from the configuration, and where adapters took a part of it when they
//! began, from the folder `start` with their first factors.

use super::growth::fit;
use super::state::{FORMAT, Progress, State};
use crate::device::{Array, Device, Tag, tagged};
use crate::error::{Error, Result};
use crate::io::{Arrays, Files, decode, encode, read_folder, remove_folder, restore_trained, write_folder};
use crate::lowrank::Initial;
use crate::module::{Module, Path as ModulePath};
use crate::nn::Model;
use crate::optim::{Gradients, Optimizer};
use crate::tensor::Tensor;
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const STEP: &str = "step-";
const BEST: &str = "best-";
const DAMAGED: &str = "damaged-";
const START: &str = "start";
const INITIAL: &str = "initial.safetensors";

/// A checkpoint that was read and holds together.
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: State,
    files: Files,
}

impl Checkpoint {
    /// Reads a checkpoint: from its own folder, or from a run's, where the best on validation is taken if there is
    /// one and the newest if not.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        for folder in [path.to_path_buf(), path.join("checkpoint")] {
            if let Some(folder) = folders(&folder, BEST).pop().or_else(|| folders(&folder, STEP).pop()) {
                return Checkpoint::read(folder);
            }
        }
        match path.is_dir() {
            true => Checkpoint::read(path.into()),
            false => Err(Error::Checkpoint { path: path.into(), problem: "there is no such folder".into() }),
        }
    }

    /// Reads and checks one checkpoint's folder.
    pub fn read(path: PathBuf) -> Result<Checkpoint> {
        let files = read_folder(&path)?;
        let broken = |problem: String| Error::Checkpoint { path: path.clone(), problem };
        let state = files.get(STATE).ok_or_else(|| broken(format!("{STATE} is missing")))?;
        let state: State = serde_json::from_slice(state).map_err(|e| broken(format!("{STATE}: {e}")))?;
        if state.format != FORMAT {
            return Err(broken(format!("it has format {}, this program reads {FORMAT}", state.format)));
        }
        Ok(Checkpoint { path, state, files })
    }

    fn arrays(&self, name: &str, device: &Device) -> Result<Arrays> {
        let path = self.path.join(name);
        match self.files.get(name) {
            Some(bytes) => decode(bytes, &path, device),
            None => Err(Error::Checkpoint { path: self.path.clone(), problem: format!("{name} is missing") }),
        }
    }

    /// The model: what does not train as the run began with it, the rest as it was saved.
    pub fn model(&self, device: &Device) -> Result<Model> {
        let initial = self.initial(device)?;
        let mut model = self.state.config.begun(initial, &self.state.names(), device)?;
        self.restore(&mut model)?;
        Ok(model)
    }

    /// First factors of adapters, if they took a part of the base.
    pub fn initial(&self, device: &Device) -> Result<Initial> {
        let mut initial = Initial::new();
        if !self.state.config.start.moves_base() {
            return Ok(initial);
        }
        let path = self.path.with_file_name(START);
        let broken = |problem: String| Error::Checkpoint { path: path.clone(), problem };
        let files = read_folder(&path)?;
        let bytes = files.get(INITIAL).ok_or_else(|| broken(format!("{INITIAL} is missing")))?;
        let mut arrays = tagged(Tag::Weights, || decode(bytes, &path.join(INITIAL), device))?;
        let [ends_a, ends_b] = FACTORS.map(|name| format!(".{name}"));
        let paths: Vec<String> =
            arrays.keys().filter_map(|name| name.strip_suffix(&ends_a).map(str::to_owned)).collect();
        for path in paths {
            let mut factor = |end: &str| arrays.remove(&format!("{path}{end}")).map(Tensor::from_array);
            let pair = factor(&ends_a).zip(factor(&ends_b));
            let pair = pair.ok_or_else(|| broken(format!("{INITIAL}: {path} has one factor")))?;
            initial.insert(path, pair.into());
        }
        Ok(initial)
    }

    /// Gives what trains of such a model the values that were saved.
    pub fn restore(&self, model: &mut Model) -> Result<()> {
        fit(model, &self.state.ranks);
        let arrays = self.arrays(MODEL, &model.device())?;
        restore_trained(model, arrays, &self.path.join(MODEL))
    }

    /// The optimizer of `model`, and the gradients it holds inside an accumulation window.
    pub fn optimizer(&self, model: &mut Model) -> Result<(Optimizer, Gradients)> {
        let mut arrays = tagged(Tag::Optimizer, || self.arrays(OPTIMIZER, &model.device()))?;
        let broken = |name: &str| {
            let problem = format!("{OPTIMIZER}: {name} is missing or of another shape");
            Error::Checkpoint { path: self.path.clone(), problem }
        };
        let mut optimizer = self.state.config.optimizer(model)?;
        optimizer.prepare(model);
        for (name, slot) in optimizer.state_mut() {
            let found = arrays.remove(&state_name(&name)).filter(|found| found.spec() == slot.spec());
            *slot = found.ok_or_else(|| broken(&name))?;
        }
        let mut gradients = optimizer.gradients(model, self.state.progress.taken);
        for (name, parameter) in model.parameters() {
            if let Some(gradient) = arrays.remove(&gradient_name(&name)) {
                let fits = gradient.spec() == gradients.spec(parameter.id(), &parameter.tensor().spec());
                gradients.insert(parameter.id(), fits.then_some(gradient).ok_or_else(|| broken(&name))?);
            }
        }
        Ok((optimizer, gradients))
    }
}

/// What first factors are called, behind the path of their layer.
const FACTORS: [&str; 2] = ["lora_A", "lora_B"];

fn state_name(slot: &str) -> String {
    format!("state.{slot}")
}

fn gradient_name(path: &str) -> String {
    format!("gradient.{path}")
}

/// A run's folder of checkpoints.
pub struct Store {
    root: PathBuf,
    keep: usize,
}

/// The newest checkpoint that holds together, and what was wrong with newer ones.
pub struct Newest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// One line for each newer checkpoint that is damaged.
    pub skipped: Vec<String>,
}

impl Store {
    /// Checkpoints below `root`, of which the last `keep` and the best stay.
    pub fn new(root: PathBuf, keep: usize) -> Store {
        Store { root, keep }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a run has left checkpoints here.
    pub fn is_used(&self) -> bool {
        !folders(&self.root, STEP).is_empty()
    }

    /// Writes first factors of adapters that took a part of the base, before a run's first checkpoint; what a run that came
    /// no further left is replaced.
    pub fn save_start(&self, initial: &Initial) -> Result<()> {
        let path = self.root.join(START);
        if path.exists() {
            remove_folder(&path)?;
        }
        if initial.is_empty() {
            return Ok(());
        }
        let named = initial.iter().flat_map(|(path, factors)| {
            FACTORS.iter().zip(factors).map(move |(name, factor)| (format!("{path}.{name}"), factor.array()))
        });
        write_folder(&path, &Files::from([(INITIAL.into(), encode(named)?)]))
    }

    /// The newest checkpoint that holds together, of at most `step` steps.
    pub fn newest(&self, step: u64) -> Result<Newest> {
        let mut skipped = Vec::new();
        for path in folders(&self.root, STEP).into_iter().rev() {
            match Checkpoint::read(path) {
                Ok(checkpoint) if checkpoint.state.progress.step > step => {}
                Ok(checkpoint) => return Ok(Newest { checkpoint, skipped }),
                Err(error) => skipped.push(error.to_string()),
            }
        }
        let problem = match skipped.first() {
            Some(newest) => format!("none can be read; {newest}"),
            None => "nothing to resume: no checkpoint was written here".into(),
        };
        Err(Error::Checkpoint { path: self.root.clone(), problem })
    }

    /// Takes checkpoints newer than `path`, which were found damaged, out of the sequence, but keeps them.
    pub fn set_damaged_aside(&self, path: &Path) -> Result<()> {
        for newer in folders(&self.root, STEP).into_iter().filter(|other| other.as_path() > path) {
            let name = newer.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let aside = self.root.join(format!("{DAMAGED}{name}"));
            if aside.exists() {
                remove_folder(&aside)?;
            }
            fs::rename(&newer, &aside).map_err(Error::file(newer))?;
        }
        Ok(())
    }

    /// Writes a checkpoint of everything and removes the oldest beyond those to keep. What a run writes at one step
    /// is a function of its configuration, so a checkpoint that exists already is left alone.
    pub fn save(&self, state: &State, model: &Model, optimizer: &Optimizer, held: &Gradients) -> Result<PathBuf> {
        let path = self.root.join(step_name(&state.progress));
        if !path.exists() {
            let mut files = model_files(state, model)?;
            files.insert(OPTIMIZER.into(), encode(optimizer_arrays(model, optimizer, held))?);
            write_folder(&path, &files)?;
        }
        let all = folders(&self.root, STEP);
        all[..all.len().saturating_sub(self.keep)].iter().try_for_each(|old| remove_folder(old))?;
        Ok(path)
    }

    /// Writes the model as the best so far, then removes the one that was.
    pub fn save_best(&self, state: &State, model: &Model) -> Result<()> {
        let path = self.root.join(format!("{BEST}{:08}", state.progress.step));
        if Checkpoint::read(path.clone()).is_err() {
            if path.exists() {
                remove_folder(&path)?;
            }
            write_folder(&path, &model_files(state, model)?)?;
        }
        folders(&self.root, BEST).into_iter().filter(|other| *other != path).try_for_each(|old| remove_folder(&old))
    }
}

fn step_name(progress: &Progress) -> String {
    match progress.micro_step {
        0 => format!("{STEP}{:08}", progress.step),
        held => format!("{STEP}{:08}-{held:04}", progress.step),
    }
}

fn model_files(state: &State, model: &Model) -> Result<Files> {
    // What is frozen is a function of the configuration.
    let parameters: Vec<_> = model.parameters().into_iter().filter(|(_, parameter)| parameter.trains()).collect();
    let arrays = parameters.iter().map(|(name, parameter)| (name.clone(), parameter.tensor().array()));
    let state = serde_json::to_vec_pretty(state).expect("a state is plain data");
    Ok(Files::from([(MODEL.into(), encode(arrays)?), (STATE.into(), state)]))
}

fn optimizer_arrays<'a>(model: &Model, optimizer: &'a Optimizer, held: &'a Gradients) -> Vec<(String, &'a Array)> {
    let mut arrays: Vec<(String, &Array)> = optimizer.state().map(|(name, array)| (state_name(&name), array)).collect();
    model.visit(&ModulePath::root(), &mut |path, parameter| {
        if let Some(gradient) = held.get(parameter.id()) {
            arrays.push((gradient_name(&path.to_string()), gradient));
        }
    });
    arrays
}

/// Folders in `root` whose names begin so, oldest first: steps have leading zeros.
fn folders(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(named).collect();
    found.sort();
    found
}
