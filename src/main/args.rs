//! Flags, and how they override a configuration file.

/// Gives a configuration's fields the values of the flags of the same names that were given.
macro_rules! set {
    ($flags:ident, $config:ident: $($field:ident),*) => {$(
        if let Some(value) = &$flags.$field {
            $config.$field = value.clone().into();
        }
    )*};
}

mod common;
mod finetune;
mod ranks;
mod unheard;

pub use finetune::Finetune;
pub use ranks::{Kind, Ranks};

use crate::base::{Adapter as AdapterFolder, Base};
use crate::factorise::Parameters;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use common::Common;
use eckart::Result;
use eckart::lowrank::{Lift, Projection, Transfer};
use eckart::nn::Arch;
use eckart::rank::Rule;
use eckart::train::{Adapter as Adapters, Config, Method};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};
use std::path::PathBuf;
use unheard::{Reader, refuse};

/// Trains small transformers, with memory planned before the run.
#[derive(Parser)]
#[command(name = "eckart", version, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train a small GPT, Llama, BERT or RoBERTa on a text
    Train(Train),
    /// Fine-tune a model in Hugging Face's layout: an adapter that PEFT reads, or a whole model
    Finetune(Box<Finetune>),
    /// Say which rank each layer should have under a budget, and why
    Allocate(Box<Allocate>),
    /// Say how curved a model's loss is: traces by layer, largest eigenvalues, spectral density
    Curvature(Curvature),
    /// Say what a model, perhaps with an adapter, makes of text that it did not learn from: loss and perplexity, or of a
    /// classifier loss, accuracy, F1 and Matthews' correlation
    Eval(Eval),
    /// Make an adapter a part of its model
    Merge(Merge),
    /// Put products of two thin matrices in the place of a model's layers
    Factorise(Factorise),
    /// Look into an adapter's folder
    Adapter(Adapter),
    /// Say how much memory a run will need, without allocating it
    Plan(Plan),
    /// Write the curve of memory over rank, for every method
    Memory(Memory),
    /// Write text with a trained model
    Generate(Generate),
    /// Compare every op on a device with double precision on the host
    Check(Check),
    /// List the devices there are, and the one that auto takes
    Devices(Devices),
}

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    pub settings: Settings,
    /// Go on from the newest checkpoint in the run's folder, with the settings it has
    #[arg(long)]
    pub resume: bool,
    /// Print report.json at the end, and nothing else, to stdout
    #[arg(long)]
    pub json: bool,
    /// Print where the time went, kernel by kernel
    #[arg(long)]
    pub profile: bool,
}

#[derive(Args)]
#[command(mut_arg("out", |out| out.value_name("FILE").help("File to write what was found to, for finetune --ranks")))]
pub struct Allocate {
    #[command(flatten)]
    pub run: Finetune,
    /// Draw ranks and gains by layer
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Args)]
pub struct Curvature {
    /// Folder of the model: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A file or folder of examples
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Most tokens of an example
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_length: usize,
    /// Examples in a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count::<usize>())]
    pub batch: usize,
    /// Batches to look at
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count::<u64>())]
    pub sample: u64,
    /// Most samples of a layer's trace; fewer where its error is 5 % before
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count::<u64>())]
    pub samples: u64,
    /// Eigenvalues, the largest in magnitude
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub eigenvalues: usize,
    /// Steps of Lanczos, for eigenvalues and for each probe of the density
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = count::<usize>())]
    pub steps: usize,
    /// Probes of the density
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count::<u64>())]
    pub probes: u64,
    /// What probes are functions of
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// auto, cpu, gpu or a device's name
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,
    /// Draw the spectral density
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print all of it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub every: Every,
    /// Plan every method, those of low rank at each of the ranks
    #[arg(long)]
    pub all_methods: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which methods to plan, and for what.
#[derive(Args)]
pub struct Every {
    /// Ranks to plan methods of low rank at
    #[arg(long, value_name = "R,...", value_delimiter = ',', default_values_t = [1, 8, 64])]
    pub ranks: Vec<usize>,
    /// Sizes of the model from a Hugging Face config.json, instead of from flags
    #[arg(long, value_name = "CONFIG.json")]
    pub model: Option<PathBuf>,
}

#[derive(Args)]
pub struct Memory {
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub every: Every,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("writer").required(true).args(["checkpoint", "model"])))]
pub struct Generate {
    /// A checkpoint, or the folder of a run: then the best on validation
    #[arg(long, value_name = "DIR", conflicts_with_all = ["adapter", "with", "chat"])]
    pub checkpoint: Option<PathBuf>,
    /// Folder of a model in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Folder of an adapter for it; more than one are added up, those with names are chosen among
    #[arg(long, value_name = "[NAME=]DIR", requires = "model")]
    pub adapter: Vec<AdapterFolder>,
    /// The named adapter that the prompt of the same place is answered by, or __base__; one alone is for all prompts, and
    /// several answer one prompt each. As the adapters are given, unless said otherwise
    #[arg(long, value_name = "NAME", requires = "adapter")]
    pub with: Vec<String>,
    /// The prompt is a message to answer, in the model's chat template
    #[arg(long, requires = "model", requires = "prompt")]
    pub chat: bool,
    /// auto, cpu, gpu or a device's name
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: String,
    /// Text to go on from; several are written together
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Tokens to write
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub tokens: usize,
    /// Divides the logits; 0 takes the likeliest token always
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw among this many likeliest tokens
    #[arg(long, value_name = "N", value_parser = count::<usize>())]
    pub top_k: Option<usize>,
    /// What all draws are a function of
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    pub base: Base,
    /// A file: jsonl, txt, tsv or csv; or a folder with test.jsonl or valid.jsonl
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Most tokens of an example or a window, its first one included
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_length: usize,
    /// Examples in a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count::<usize>())]
    pub batch: usize,
    /// Count completions and last answers alone
    #[arg(long)]
    pub mask_prompt: bool,
    /// Columns of a table for a classifier, text,label or text,text,label; found by usual names without it
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// Share of tokens hidden from an encoder; 0.15 without it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub mlm_probability: Option<f64>,
    /// What hiding tokens from an encoder is a function of
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// auto, cpu, gpu or a device's name
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    pub base: Base,
    /// Multiply factors out, for programs that know none
    #[arg(long)]
    pub dense: bool,
    /// Folder to write, which must not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Args)]
pub struct Factorise {
    #[command(flatten)]
    pub base: Base,
    #[command(flatten)]
    pub budget: Budget,
    /// Layers that are meant: all-linear, names between commas, or a regular expression for whole paths
    #[arg(long, value_name = "NAMES", default_value = "all-linear")]
    pub targets: String,
    /// Be nearest where the layers' inputs lie that this gives: a file of jsonl, txt, tsv or csv, or a folder
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Most tokens of a window of it
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_length: usize,
    /// Windows in a batch of it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count::<usize>())]
    pub batch: usize,
    /// Most batches of it
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count::<usize>())]
    pub batches: usize,
    /// auto, cpu, gpu or a device's name
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: String,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
    /// Folder to write, which must not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// How ranks are chosen.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("ranks").required(true)))]
pub struct Budget {
    /// Rank of every layer
    #[arg(long, value_name = "R", group = "ranks")]
    pub rank: Option<usize>,
    /// The least rank of each layer that keeps this part of its square, in (0, 1]
    #[arg(long, value_name = "X", group = "ranks", allow_negative_numbers = true)]
    pub energy: Option<f64>,
    /// Parameters that all these layers are to have together, such as 200k, or a part of those that they have, such as 0.5;
    /// rank by rank what keeps most for its cost
    #[arg(long, value_name = "P", group = "ranks", allow_negative_numbers = true)]
    pub budget: Option<Parameters>,
    /// Share the budget out by squares of singular values as they are, and not by what part of their layer's they have
    #[arg(long, conflicts_with_all = ["rank", "energy"])]
    pub absolute: bool,
}

#[derive(Args)]
pub struct Adapter {
    #[command(subcommand)]
    pub look: Look,
}

#[derive(Subcommand)]
pub enum Look {
    /// Layers, ranks, and how large what they add is
    Show {
        /// The adapter's folder
        adapter: PathBuf,
    },
    /// All that is wrong with an adapter, for a model if one is given
    Check {
        /// The adapter's folder
        adapter: PathBuf,
        /// Folder of the model that it is for
        #[arg(long, value_name = "DIR")]
        model: Option<PathBuf>,
    },
    /// The nearest adapter of a smaller rank
    Shrink {
        /// The adapter's folder
        adapter: PathBuf,
        /// Rank of every layer
        #[arg(long, value_name = "R")]
        rank: Option<usize>,
        /// The least rank of each layer that keeps this part of the square of what it adds, in (0, 1]
        #[arg(long, value_name = "X")]
        energy: Option<f64>,
        /// Parameters of all layers together, such as 200k, or a part of those that there are, such as 0.5, shared out by
        /// what each rank keeps of the square
        #[arg(long, value_name = "P")]
        budget: Option<Parameters>,
        /// How they are shared out: greedy, closed-form[:slow|power|exponential], uniform or published
        #[arg(long, value_parser = ranks::rule, default_value = "greedy", requires = "budget")]
        rule: Rule,
        /// Folder to write, which must not exist yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// An adapter of the library loralib, in safetensors, as PEFT has them
    Convert {
        /// The file
        file: PathBuf,
        /// Alpha that it was trained with, which the file does not say
        #[arg(long, value_name = "X")]
        alpha: f64,
        /// Folder to write, which must not exist yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Args)]
pub struct Check {
    /// auto, cpu, gpu or a device's name
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Devices {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// Settings that have flags; a configuration file has these and more.
#[derive(Args)]
pub struct Settings {
    #[command(flatten)]
    common: Common,
    /// Text to learn; without it, this program's own source and documents
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Tokens are those of a published tokenizer, a folder, a tokenizer.json or a vocab.txt, instead of characters or bytes
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Tokens in a window
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// gpt2, llama, or of encoders, which learn by hidden tokens, bert or roberta
    #[arg(long, value_parser = word::<Arch>)]
    arch: Option<Arch>,
    /// Blocks
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Query heads
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Size of the residual stream
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// adamw, adamw8bit, sgd, adafactor, flora, apollo, apollo-mini, galore or compressed-adam
    #[arg(long, value_parser = word::<Method>)]
    optimizer: Option<Method>,
    /// What is trained: none for the whole model, lora, lora+ or dora
    #[arg(long, value_parser = word::<Adapters>)]
    adapter: Option<Adapters>,
    /// Learning rate of embeddings' adapters under lora+
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    embedding_lr: Option<f64>,
    /// Steps from one subspace to the next
    #[arg(long, value_name = "K")]
    resample: Option<u64>,
    /// How subspaces are chosen: rademacher, walsh, gaussian, orthonormal or svd
    #[arg(long, value_parser = word::<Projection>)]
    projection: Option<Projection>,
    /// What becomes of compressed state when the subspace changes: transfer, scaled, reset or keep
    #[arg(long, value_parser = word::<Transfer>)]
    momentum_transfer: Option<Transfer>,
    /// How flora makes its update: within or fresh-and-up
    #[arg(long, value_parser = word::<Lift>)]
    lift: Option<Lift>,
    /// Probability that dropout zeroes an element
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dropout: Option<f64>,
    /// Share of tokens that an encoder learns to foretell
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    mlm_probability: Option<f64>,
}

/// At least 1.
fn count<T: TryFrom<u64>>() -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(1..)
}

/// A name as configuration files write it.
fn word<T: DeserializeOwned>(text: &str) -> std::result::Result<T, WordError> {
    T::deserialize(StrDeserializer::new(text))
}

impl Settings {
    /// File and flags together; a run to be resumed has its settings from its checkpoint, unless a file is given.
    pub fn config(&self, resume: bool) -> Result<Config> {
        let mut config = self.common.begun(resume, Config::default())?;
        self.apply(&mut config);
        self.common.heard(&config)?;
        let given = [
            ("--embedding-lr", self.embedding_lr.is_some(), Reader::LoraPlus),
            ("--resample", self.resample.is_some(), Reader::Subspaces),
            ("--projection", self.projection.is_some(), Reader::Projections),
            ("--momentum-transfer", self.momentum_transfer.is_some(), Reader::Subspaces),
            ("--lift", self.lift.is_some(), Reader::Flora),
        ];
        refuse(&given, &config)?;
        Ok(config)
    }

    fn apply(&self, config: &mut Config) {
        self.common.apply(config);
        set!(self, config: data, tokenizer, context, arch, layers, heads, width, optimizer, adapter, embedding_lr, resample);
        set!(self, config: projection, momentum_transfer, lift, dropout, mlm_probability);
    }
}
