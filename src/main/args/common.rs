//! Flags that every command which trains or plans has.

use super::unheard::{Reader, refuse};
use crate::aliases::translated;
use clap::Args;
use eckart::train::{AdapterStart, Config, Size, latest, previous};
use eckart::{Error, Result};
use std::path::{Path, PathBuf};
use yaml_serde::{Mapping, Value};

#[derive(Args)]
pub struct Common {
    /// Settings in YAML, mlx-lm's names understood; flags override them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the run; without it, the next number below `runs`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// auto, cpu, gpu or a device's name
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Most memory that may be held, such as 8GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Optimizer steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Windows or examples in a micro-batch
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Micro-batches in a step
    #[arg(long, value_name = "N")]
    accumulate: Option<u64>,
    /// Rank of adapters, or of an optimizer's subspaces
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Factor on adapters, divided by their rank, or by its root where ranks differ by layer
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// What adapters begin as: uniform, gaussian, zero-a, pissa, pissa:ITERATIONS or lora-ga
    #[arg(long, value_name = "WORD")]
    start: Option<AdapterStart>,
    /// Micro-batches whose gradient lora-ga begins with
    #[arg(long, value_name = "N")]
    start_batches: Option<u64>,
    /// How many times as fast as A the B of lora+ learns
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lora_plus_ratio: Option<f64>,
    /// Highest learning rate
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Keep less for backward and compute it again: less memory, more time
    #[arg(long)]
    recompute: bool,
    /// What all randomness is a function of
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Steps from one validation to the next
    #[arg(long, value_name = "N")]
    eval_every: Option<u64>,
    /// Steps from one checkpoint to the next
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
}

impl Common {
    /// What a run begins with before flags: a file, what the run in `out` or the latest one has if it is to be resumed, or
    /// what is usual.
    pub fn begun(&self, resume: bool, usual: Config) -> Result<Config> {
        match (&self.config, resume, &self.out) {
            (Some(path), ..) => read(path, usual),
            (None, false, _) => Ok(usual),
            (None, true, Some(out)) => previous(out),
            (None, true, None) => previous(&latest()?),
        }
    }

    /// Flags override what is there.
    pub fn apply(&self, config: &mut Config) {
        set!(self, config: out, device, memory, steps, batch, accumulate, rank, alpha, lora_plus_ratio, lr, seed);
        set!(self, config: start, start_batches, eval_every, save_every);
        config.recompute |= self.recompute;
    }

    /// An error for a flag that a run of this configuration would not read.
    pub fn heard(&self, config: &Config) -> Result<()> {
        let given = [
            ("--rank", self.rank.is_some(), Reader::Ranks),
            ("--alpha", self.alpha.is_some(), Reader::Adapters),
            ("--start-batches", self.start_batches.is_some(), Reader::LoraGa),
            ("--lora-plus-ratio", self.lora_plus_ratio.is_some(), Reader::LoraPlus),
        ];
        refuse(&given, config)
    }
}

fn read(path: &Path, usual: Config) -> Result<Config> {
    let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
    let problem = |problem: String| Error::Data { path: path.into(), problem };
    let file: Mapping = yaml_serde::from_str(&text).map_err(|error| problem(error.to_string()))?;
    let given = translated(file).map_err(|error| problem(error.to_string()))?;
    // What the file does not say is as usual.
    let usual = yaml_serde::to_value(usual).map_err(|error| problem(error.to_string()))?;
    let usual = usual.as_mapping().cloned().expect("a configuration is a mapping");
    let with = |given: Mapping| {
        let mut all = usual.clone();
        all.extend(given);
        yaml_serde::from_value::<Config>(Value::Mapping(all)).map_err(|error| error.to_string())
    };
    // Errors of values do not say whose they are.
    let alone = |(key, value): (&Value, &Value)| {
        let error = with([(key.clone(), value.clone())].into_iter().collect()).err()?;
        let key = key.as_str().filter(|key| !error.contains(*key))?;
        Some(format!("{key}: {error}"))
    };
    with(given.clone()).map_err(|error| problem(given.iter().find_map(alone).unwrap_or(error)))
}
