//! Everything that a run is a function of.

use super::adapter::Adapter;
use super::growth::Growth;
use super::method::Method;
use super::size::Size;
use super::start::AdapterStart;
use super::task::Task;
use crate::data::MASKED;
use crate::error::{Error, Result};
use crate::lowrank::{ALL_LINEAR, Lift, Projection, Transfer};
use crate::nn::{Arch, ModelConfig};
use crate::ops::quantised::Format;
use crate::optim::Schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A run's settings; the keys of a configuration file. All have defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of a model in Hugging Face's layout to begin with; a new model of the sizes below if none.
    pub model: Option<PathBuf>,
    /// How the frozen weights of its linear layers are stored, beside adapters; in single precision if none.
    pub base: Option<Format>,
    /// What to learn: a text; for a model with a tokenizer also a file or folder of examples. The crate's own source and
    /// documents if none.
    pub data: Option<PathBuf>,
    /// A published tokenizer for a new model, a folder or a file; characters or bytes of the text are its tokens if none.
    pub tokenizer: Option<PathBuf>,
    /// What a model of files learns.
    pub task: Task,
    /// Columns of a table to classify: text and label, or two texts and a label; by their usual names if none.
    pub columns: Option<Vec<String>>,
    /// Of so many parts of the examples to learn from, the one that is held back instead of what is: `[0, 5]` for the first
    /// of five.
    pub fold: Option<[usize; 2]>,
    /// Learn completions and last answers alone, not what they answer.
    pub mask_prompt: bool,
    /// Share of a text's tokens that an encoder learns, and is tried, to foretell.
    pub mlm_probability: f64,
    /// Put examples one after the other into full windows, where each sees those before it, instead of filling up.
    pub pack: bool,
    /// Folder of the run; the next free number below `runs` if none.
    pub out: Option<PathBuf>,
    /// `auto`, or the name of a device.
    pub device: String,
    /// Most memory that may be held, such as `8GiB`; no limit if none.
    pub memory: Option<Size>,
    /// Optimizer steps.
    pub steps: u64,
    /// Windows in a micro-batch.
    pub batch: usize,
    /// Micro-batches in a step; their gradients are averaged.
    pub accumulate: u64,
    /// Tokens in a window.
    pub context: usize,
    /// Family of the model.
    pub arch: Arch,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; by family if none: all for `gpt2`, half of them for `llama`.
    pub kv_heads: Option<usize>,
    /// Size of the residual stream.
    pub width: usize,
    /// Probability that dropout zeroes an element.
    pub dropout: f64,
    /// Keep only the input of each block for backward and run the block again: less memory, more time.
    pub recompute: bool,
    /// Optimizer; `flora` for a whole model, `adamw` for adapters if none.
    pub optimizer: Option<Method>,
    /// What is trained of the model: all, or adapters beside frozen maps.
    pub adapter: Adapter,
    /// What adapters begin as: `uniform`, `gaussian`, `zero-a`, `pissa`, `pissa:ITERATIONS` or `lora-ga`.
    pub start: AdapterStart,
    /// Micro-batches whose gradient `lora-ga` begins with: the run's first.
    pub start_batches: u64,
    /// Factor on adapters, divided by their rank.
    pub alpha: f64,
    /// Divide it by the rank's root instead.
    pub rank_stabilised: bool,
    /// Adapters in the last so many blocks only; in all if none.
    pub last_layers: Option<usize>,
    /// Other ranks of adapters for some layers, by their paths or the ends of them behind a dot; 0 for no adapter.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas for some layers, named in the same way.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// How adapters grow while the run goes on, if they do.
    pub growth: Option<Growth>,
    /// Layers that get adapters: paths, or ends of them behind a dot; `all-linear` means all but embeddings and head.
    pub adapter_targets: Vec<String>,
    /// Probability that training drops an element of what an adapter is given.
    pub adapter_dropout: f64,
    /// How many times as fast as A the B of `lora+` learns.
    pub lora_plus_ratio: f64,
    /// Learning rate of embeddings' adapters under `lora+`.
    pub embedding_lr: f64,
    /// Rank of subspaces and adapters.
    pub rank: usize,
    /// Layers whose state is compressed, named like those of adapters; `all` means every matrix; by method if none.
    pub compressed_layers: Option<Vec<String>>,
    /// Steps from one subspace to the next; by method if none.
    pub resample: Option<u64>,
    /// How subspaces are chosen; by method if none.
    pub projection: Option<Projection>,
    /// What happens to compressed state when the subspace changes; by method if none.
    pub momentum_transfer: Option<Transfer>,
    /// Factor on updates from subspaces (GaLore's and APOLLO's scale); by method if none.
    pub update_scale: Option<f64>,
    /// How `flora` makes its update: `within` (ours) or `fresh-and-up` (as published); `within` if none.
    pub lift: Option<Lift>,
    /// Steps of `adafactor` and `flora` in proportion to each parameter's size.
    pub scale_parameter: bool,
    /// Add gradients of micro-batches up as sketches of the given rank; only `flora` does if none.
    pub compress_accumulation: Option<bool>,
    /// Highest learning rate; by method if none.
    pub lr: Option<f64>,
    /// Last learning rate, as a fraction of the highest.
    pub lr_floor: f64,
    /// Steps of linear warm-up; a tenth of all, at most 100, if none.
    pub warmup: Option<u64>,
    /// Decoupled decay of weights of at least two dimensions.
    pub weight_decay: f64,
    /// Adam's decay of the mean of gradients.
    pub beta1: f64,
    /// Adam's decay of the mean of their squares.
    pub beta2: f64,
    /// What Adam adds to the root.
    pub epsilon: f64,
    /// Decay of the momentum of `sgd`, `adafactor` and `flora`; by method if none.
    pub momentum: Option<f64>,
    /// Norm that gradients are scaled down to; 0 for no limit.
    pub clip: f64,
    /// What all randomness is a function of.
    pub seed: u64,
    /// Steps from one line of `metrics.jsonl` to the next.
    pub report_every: u64,
    /// Steps from one validation to the next.
    pub eval_every: u64,
    /// Batches of a validation; all there are if none.
    pub eval_batches: Option<usize>,
    /// Stop when so many validations in a row were no better than the best; never if none.
    pub patience: Option<u64>,
    /// Steps from one checkpoint to the next.
    pub save_every: u64,
    /// Checkpoints to keep beside the best.
    pub keep: usize,
}

impl Default for Config {
    /// A model of 0.8 million parameters that learns to write in about two minutes on two cores.
    fn default() -> Config {
        Config {
            model: None,
            base: None,
            data: None,
            tokenizer: None,
            task: Task::Lm,
            columns: None,
            fold: None,
            mask_prompt: false,
            mlm_probability: MASKED,
            pack: false,
            out: None,
            device: "auto".into(),
            memory: None,
            steps: 1500,
            batch: 16,
            accumulate: 1,
            context: 128,
            arch: Arch::Gpt2,
            layers: 4,
            heads: 4,
            kv_heads: None,
            width: 128,
            dropout: 0.0,
            recompute: false,
            optimizer: None,
            adapter: Adapter::None,
            start: AdapterStart::Uniform,
            start_batches: 8,
            alpha: 8.0,
            rank_stabilised: false,
            last_layers: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            growth: None,
            adapter_targets: vec![ALL_LINEAR.into()],
            adapter_dropout: 0.0,
            lora_plus_ratio: 16.0,
            embedding_lr: 1e-6,
            rank: 8,
            compressed_layers: None,
            resample: None,
            projection: None,
            momentum_transfer: None,
            update_scale: None,
            lift: None,
            scale_parameter: false,
            compress_accumulation: None,
            lr: None,
            lr_floor: 0.1,
            warmup: None,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            momentum: None,
            clip: 1.0,
            seed: 1,
            report_every: 10,
            eval_every: 250,
            eval_batches: None,
            patience: None,
            save_every: 250,
            keep: 2,
        }
    }
}

impl Config {
    /// Defaults for a model that has learnt already: LoRA on all linear layers, AdamW without decay, a learning rate for
    /// what is trained, 1,000 steps of 4 examples of at most 512 tokens.
    pub fn fine_tuning() -> Config {
        Config {
            steps: 1000,
            batch: 4,
            context: 512,
            adapter: Adapter::Lora,
            weight_decay: 0.0,
            beta2: 0.999,
            eval_every: 200,
            save_every: 200,
            ..Config::default()
        }
    }
}

/// Settings that change no number of a run, so that it may be resumed with others.
const FREE: [&str; 8] = ["model", "data", "tokenizer", "out", "device", "memory", "save_every", "keep"];

impl Config {
    /// The same with every default that depends on other settings filled in; an error if it cannot work.
    pub fn resolved(&self) -> Result<Config> {
        let usual = self.method().defaults();
        let model = ModelConfig::new(self.arch, 1, self.context, self.layers, self.heads, self.width);
        let full = Config {
            optimizer: Some(self.method()),
            lr: self.lr.or(Some(self.usual_rate(usual.lr))),
            compressed_layers: self.compressed_layers.clone().or(Some(vec![usual.layers.into()])),
            resample: self.resample.or(Some(usual.resample)),
            projection: self.projection.or(Some(usual.projection)),
            momentum_transfer: self.momentum_transfer.or(Some(usual.transfer)),
            update_scale: self.update_scale.or(Some(usual.scale)),
            lift: self.lift.or(Some(usual.lift)),
            momentum: self.momentum.or(Some(usual.momentum)),
            warmup: self.warmup.or(Some((self.steps / 10).min(100))),
            kv_heads: self.kv_heads.or(Some(model.kv_heads)),
            context: self.longest()?,
            ..self.clone()
        };
        full.check()?;
        Ok(full)
    }

    /// With texts no longer than a model of these sizes reads.
    pub fn cut_for(&self, model: &ModelConfig) -> Config {
        Config { context: self.context.min(model.context), ..self.clone() }
    }

    /// A learning rate to begin with; a model that has learnt already wants a lower one than a new one.
    fn usual_rate(&self, new: f64) -> f64 {
        match (&self.model, self.adapter) {
            (None, _) => new,
            (Some(_), Adapter::None) => 0.01 * new,
            (Some(_), _) => 0.1 * new,
        }
    }

    fn check(&self) -> Result<()> {
        let counts = [
            ("steps", self.steps),
            ("batch", self.batch as u64),
            ("rank", self.rank as u64),
            ("resample", self.resample.unwrap_or(1)),
            ("accumulate", self.accumulate),
            ("report_every", self.report_every),
            ("eval_every", self.eval_every),
            ("save_every", self.save_every),
            ("keep", self.keep as u64),
            ("eval_batches", self.eval_batches.unwrap_or(1) as u64),
            ("patience", self.patience.unwrap_or(1)),
            ("last_layers", self.last_layers.unwrap_or(1) as u64),
            ("start_batches", self.start_batches),
            ("growth.every", self.growth.as_ref().and_then(|growth| growth.every).unwrap_or(1)),
            ("growth.batches", self.growth.as_ref().map_or(1, |growth| growth.batches)),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::Config(format!("{name} is 0: it must be at least 1")));
        }
        let below = |limit: f64| move |x: f64| (0.0..limit).contains(&x);
        let open = f64::INFINITY;
        type Range<'a> = (&'a str, f64, &'a dyn Fn(f64) -> bool, &'a str);
        let ranges: [Range<'_>; 14] = [
            ("lr", self.lr.unwrap_or_default(), &|x| x > 0.0 && x < open, "a positive number"),
            ("lr_floor", self.lr_floor, &|x| (0.0..=1.0).contains(&x), "between 0 and 1"),
            ("weight_decay", self.weight_decay, &below(open), "a number that is not negative"),
            ("beta1", self.beta1, &below(1.0), "at least 0 and below 1"),
            ("beta2", self.beta2, &below(1.0), "at least 0 and below 1"),
            ("epsilon", self.epsilon, &|x| x > 0.0 && x < open, "a positive number"),
            ("momentum", self.momentum.unwrap_or_default(), &below(1.0), "at least 0 and below 1"),
            ("update_scale", self.update_scale.unwrap_or(1.0), &|x| x > 0.0 && x < open, "a positive number"),
            ("alpha", self.alpha, &|x| x > 0.0 && x < open, "a positive number"),
            ("lora_plus_ratio", self.lora_plus_ratio, &|x| x > 0.0 && x < open, "a positive number"),
            ("adapter_dropout", self.adapter_dropout, &below(1.0), "at least 0 and below 1"),
            ("embedding_lr", self.embedding_lr, &|x| x > 0.0 && x < open, "a positive number"),
            ("mlm_probability", self.mlm_probability, &|x| x > 0.0 && x <= 1.0, "above 0 and at most 1"),
            ("clip", self.clip, &below(open), "a number that is not negative"),
        ];
        if self.base.is_some() && (self.model.is_none() || self.adapter == Adapter::None) {
            return Err(Error::Config("base: fewer bits are for the frozen weights of a model beside adapters".into()));
        }
        if self.start != AdapterStart::Uniform && self.adapter == Adapter::None {
            return Err(Error::Config(format!("start: {} is for adapters, and none are trained", self.start)));
        }
        if let Some([fold, folds]) = self.fold
            && (self.model.is_none() || fold >= folds)
        {
            return Err(Error::Config(format!("fold: {fold} of {folds} parts of examples for a model of files")));
        }
        if self.growth.is_some() && self.start.moves_base() {
            let problem =
                "takes what it begins with from the base, which adapters that grow from less would not give back";
            return Err(Error::Config(format!("growth: start {} {problem}", self.start)));
        }
        if self.growth.is_some() && !matches!(self.adapter, Adapter::Lora | Adapter::LoraPlus) {
            return Err(Error::Config("growth: only adapters without lengths grow, those of lora and lora+".into()));
        }
        if let Some(problem) = self.growth.as_ref().and_then(|growth| growth.problem(self.rank, self.steps)) {
            return Err(Error::Config(problem));
        }
        self.check_task()?;
        if !matches!(self.lift, None | Some(Lift::Within | Lift::FreshAndUp)) {
            return Err(Error::Config("lift: flora's is within or fresh-and-up".into()));
        }
        match ranges.iter().find(|(_, value, fits, _)| !fits(*value)) {
            Some((name, value, _, range)) => Err(Error::Config(format!("{name} is {value}: it must be {range}"))),
            None => self.model(1).validate(),
        }
    }

    /// Settings that do not go together with what is learnt.
    fn check_task(&self) -> Result<()> {
        let classifies = self.task == Task::Classify;
        let problems = [
            (classifies && self.model.is_none(), "task: a classifier begins with a model of files, see finetune"),
            (classifies && self.pack, "pack: a text to classify has a row of its own"),
            (classifies && self.mask_prompt, "mask_prompt: there is no prompt in texts to classify"),
            (!classifies && self.columns.is_some(), "columns: they are for task classify"),
            (self.tokenizer.is_some() && self.model.is_some(), "tokenizer: a model of files has its own"),
        ];
        match problems.iter().find(|(found, _)| *found) {
            Some((_, problem)) => Err(Error::Config((*problem).into())),
            None => Ok(()),
        }
    }

    /// The model's sizes for a vocabulary.
    pub fn model(&self, vocabulary: usize) -> ModelConfig {
        let usual = ModelConfig::new(self.arch, vocabulary, self.context, self.layers, self.heads, self.width);
        ModelConfig { dropout: self.dropout, kv_heads: self.kv_heads.unwrap_or(usual.kv_heads), ..usual }
    }

    /// Learning rate by step; the configuration must be resolved.
    pub fn schedule(&self) -> Schedule {
        let (peak, warmup) = (self.lr.unwrap_or_default(), self.warmup.unwrap_or_default());
        Schedule { peak, floor: self.lr_floor * peak, warmup, steps: self.steps }
    }

    /// The first setting in which a run that began with `before` would go on differently: its name and both values.
    /// More or fewer steps are another run too, unless the learning rate stays at its height.
    pub fn difference(&self, before: &Config) -> Option<(String, String, String)> {
        let fields = |config: &Config| match serde_json::to_value(config) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => unreachable!("a configuration is an object"),
        };
        let (now, before) = (fields(self), fields(before));
        // Growth is spread over the steps.
        let constant = self.lr_floor == 1.0 && self.growth.is_none();
        let free = |name: &str| FREE.contains(&name) || (constant && name == "steps");
        let differs = |name: &&String| !free(name) && now.get(*name) != before.get(*name);
        let name = now.keys().find(differs)?;
        let word = |fields: &serde_json::Map<String, serde_json::Value>| {
            fields.get(name).map_or_else(String::new, |value| value.to_string())
        };
        Some((name.clone(), word(&before), word(&now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let message = |config: Config| config.resolved().unwrap_err().to_string();
        assert!(message(Config { batch: 0, ..Config::default() }).starts_with("batch is 0"));
        assert!(message(Config { lr: Some(f64::NAN), ..Config::default() }).starts_with("lr is NaN"));
        assert!(message(Config { beta2: 1.0, ..Config::default() }).starts_with("beta2 is 1"));
        let every = |share: f64| Config { mlm_probability: share, ..Config::default() };
        assert!(message(every(0.0)).starts_with("mlm_probability is 0") && message(every(1.1)).contains("at most 1"));
        assert!(message(Config { width: 130, ..Config::default() }).contains("not divisible by heads"));
        assert!(message(Config { task: Task::Classify, ..Config::default() }).starts_with("task: a classifier"));
        assert!(message(Config { columns: Some(Vec::new()), ..Config::default() }).starts_with("columns: they are"));
    }

    #[test]
    fn the_field_that_changes_a_run_is_named() {
        let before = Config::default().resolved().unwrap();
        let other = Config { keep: 9, out: Some("x".into()), ..before.clone() };
        assert_eq!(other.difference(&before), None);
        let other = Config { dropout: 0.5, ..before.clone() };
        assert_eq!(other.difference(&before), Some(("dropout".into(), "0.0".into(), "0.5".into())));
        let longer = |before: &Config| Config { steps: 9000, ..before.clone() };
        assert!(longer(&before).difference(&before).is_some());
        let constant = Config { lr_floor: 1.0, ..before };
        assert_eq!(longer(&constant).difference(&constant), None);
    }
}
