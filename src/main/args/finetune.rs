//! Flags of `finetune`.

use super::common::Common;
use super::unheard::{Reader, refuse};
use super::word;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use eckart::ops::quantised::Format;
use eckart::train::{Adapter, Config, Method, Ranks, Task};
use eckart::{Error, Result};
use std::path::PathBuf;

/// What is trained of a model, and how.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Way {
    /// Adapters beside frozen weights
    Lora,
    /// The same, with a higher learning rate for B
    #[value(name = "lora+")]
    LoraPlus,
    /// Adapters, and lengths of outputs
    Dora,
    /// All weights, with compressed momentum
    Flora,
    /// All weights, columns of the gradient scaled by compressed Adam
    Apollo,
    /// All weights, Adam in the span of leading singular vectors
    Galore,
    /// All weights, AdamW
    Full,
}

impl Way {
    fn set(self, config: &mut Config) {
        (config.adapter, config.optimizer) = match self {
            Way::Lora => (Adapter::Lora, None),
            Way::LoraPlus => (Adapter::LoraPlus, None),
            Way::Dora => (Adapter::Dora, None),
            Way::Flora => (Adapter::None, Some(Method::Flora)),
            Way::Apollo => (Adapter::None, Some(Method::Apollo)),
            Way::Galore => (Adapter::None, Some(Method::Galore)),
            Way::Full => (Adapter::None, Some(Method::Adamw)),
        };
    }
}

/// Types of frozen weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Bits {
    /// 32 bits, as they are computed with
    F32,
    /// 16 bits
    F16,
    /// 16 bits, with the range of 32
    Bf16,
    /// 8 bits, and a scale for each output
    Int8,
    /// 4 bits, and a scale for every 64 (QLoRA)
    Nf4,
}

impl Bits {
    fn format(self) -> Option<Format> {
        match self {
            Bits::F32 => None,
            Bits::F16 => Some(Format::F16),
            Bits::Bf16 => Some(Format::BF16),
            Bits::Int8 => Some(Format::Int8),
            Bits::Nf4 => Some(Format::Nf4),
        }
    }
}

#[derive(Args)]
pub struct Finetune {
    #[command(flatten)]
    common: Common,
    /// Folder of the model: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR", required_unless_present_any = ["config", "resume"])]
    model: Option<PathBuf>,
    /// Folder with train.jsonl and valid.jsonl, or one file: jsonl, txt, tsv or csv
    #[arg(long, value_name = "PATH", required_unless_present_any = ["config", "resume"])]
    data: Option<PathBuf>,
    /// What it learns: lm, a language, or classify, for the classes in a table
    #[arg(long, value_parser = word::<Task>)]
    task: Option<Task>,
    /// Columns of a table to classify, text,label or text,text,label; found by usual names without it
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// What is trained, and how; lora unless said otherwise
    #[arg(long)]
    method: Option<Way>,
    #[command(flatten)]
    pub ranks: super::Ranks,
    /// Ranks that `allocate` has written
    #[arg(long = "ranks", value_name = "FILE", conflicts_with_all = ["budget", "targets"])]
    ranks_file: Option<PathBuf>,
    /// Spend the budget while the run goes on: adapters begin at --min and grow where it is predicted to win most
    #[arg(long, requires = "budget", conflicts_with_all = ["sensitivity", "rule", "max", "sample"])]
    pub online: bool,
    /// Try so many ways to share the budget out, most of them in short runs, and take the one that validates best
    #[arg(long, value_name = "TRIALS", requires = "budget", conflicts_with = "online", value_parser = super::count::<usize>())]
    pub search: Option<usize>,
    /// Judge trials by so many folds of what is learnt, two or more, instead of what is held back
    #[arg(long, value_name = "K", requires = "search", value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    pub folds: Option<usize>,
    /// How frozen weights are stored beside adapters
    #[arg(long)]
    base: Option<Bits>,
    /// Divide it by the rank's root instead
    #[arg(long)]
    rank_stabilised: bool,
    /// Layers that get adapters: all-linear, names between commas, or a regular expression for whole paths
    #[arg(long, value_name = "NAMES")]
    targets: Option<String>,
    /// Probability that training drops an element of what an adapter is given
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    adapter_dropout: Option<f64>,
    /// Most tokens of an example; longer ones are cut off, and counted
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Learn completions and last answers alone
    #[arg(long)]
    mask_prompt: bool,
    /// Share of tokens that an encoder learns to foretell
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    mlm_probability: Option<f64>,
    /// Put examples one after the other into full windows instead of filling up
    #[arg(long)]
    pack: bool,
    /// Decoupled decay of weights
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Steps from one line of metrics.jsonl to the next
    #[arg(long, value_name = "N")]
    report_every: Option<u64>,
    /// Stop when so many validations in a row were no better than the best
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// Go on from the newest checkpoint in the run's folder, with the settings it has
    #[arg(long)]
    pub resume: bool,
    /// Print report.json at the end, and nothing else, to stdout
    #[arg(long)]
    pub json: bool,
}

impl Finetune {
    /// File and flags together; a run to be resumed has its settings from its checkpoint, unless a file is given.
    pub fn settings(&self) -> Result<Config> {
        let mut config = self.common.begun(self.resume, Config::fine_tuning())?;
        self.apply(&mut config);
        self.common.heard(&config)?;
        let given = [
            ("--targets", self.targets.is_some(), Reader::Adapters),
            ("--adapter-dropout", self.adapter_dropout.is_some(), Reader::Adapters),
            ("--rank-stabilised", self.rank_stabilised, Reader::Adapters),
            ("--ranks", self.ranks_file.is_some(), Reader::Adapters),
        ];
        refuse(&given, &config)?;
        if let Some(path) = &self.ranks_file {
            let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
            let problem = |error: serde_json::Error| Error::Data { path: path.clone(), problem: error.to_string() };
            config = serde_json::from_str::<Ranks>(&text).map_err(problem)?.apply(&config);
        }
        match config.model {
            Some(_) => Ok(config),
            None => Err(Error::Config("model: give the folder of the model to begin with".into())),
        }
    }

    fn apply(&self, config: &mut Config) {
        self.common.apply(config);
        set!(self, config: model, data, task, columns, adapter_dropout, weight_decay, report_every, patience);
        set!(self, config: mlm_probability);
        if let Some(way) = self.method {
            way.set(config);
        }
        if let Some(bits) = self.base {
            config.base = bits.format();
        }
        if let Some(length) = self.max_length {
            config.context = length;
        }
        if let Some(targets) = &self.targets {
            config.adapter_targets = targets.split(',').map(|name| name.trim().into()).collect();
        }
        config.rank_stabilised |= self.rank_stabilised;
        config.mask_prompt |= self.mask_prompt;
        config.pack |= self.pack;
    }
}
