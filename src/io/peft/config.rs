//! `adapter_config.json`.

use super::json::{Init, OneOrMore, Ordered, Set};
use super::names::Names;
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};

/// Which layers an adapter is for, and with which factors: what `adapter_config.json` says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name or folder of the model that it was trained on, if that was said.
    pub base_model: Option<String>,
    /// Rank r of layers that `ranks` does not name.
    pub rank: usize,
    /// Alpha of layers that `alphas` does not name.
    pub alpha: f64,
    /// Whether A B is multiplied by alpha / √r, and not by alpha / r.
    pub rank_stabilised: bool,
    /// Whether outputs have lengths of their own (DoRA).
    pub dora: bool,
    /// Layers with adapters.
    pub targets: Names,
    /// Layers without, all the same.
    pub exclude: Option<Names>,
    /// Blocks with adapters, by number; all if none are named. Layers named by their whole path are not asked for it.
    pub blocks: Vec<usize>,
    /// What comes before the number of a block in a path, as regular expressions; anything if none are named.
    pub block_names: Vec<String>,
    /// Other ranks, by regular expressions for the end of a path behind a dot: the first that matches counts.
    pub ranks: Vec<(String, usize)>,
    /// Other alphas, likewise.
    pub alphas: Vec<(String, f64)>,
    /// Modules that were trained whole: those whose paths end so.
    pub whole: Vec<String>,
    /// Whether a head that is the embedding's transpose has the embedding's adapter.
    pub tied: bool,
    /// Probability that training drops an element of what an adapter is given.
    pub dropout: f64,
    /// Whether the adapter belongs beside what PiSSA left of the base.
    pub principal: bool,
    /// Whether the base stores its weights as [in, out]: nothing follows from it here.
    pub fan_in_fan_out: bool,
    /// What PEFT calls the task, such as `CAUSAL_LM` or `SEQ_CLS`.
    pub task_type: Option<String>,
}

/// What PEFT calls the classification of texts.
pub(super) const CLASSIFICATION: &str = "SEQ_CLS";

/// Starts that leave the base as it is.
const PLAIN: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

#[derive(serde::Deserialize)]
struct File {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default = "eight")]
    r: usize,
    #[serde(default = "eight_alpha")]
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: Option<bool>,
    #[serde(default)]
    use_dora: Option<bool>,
    #[serde(default)]
    fan_in_fan_out: Option<bool>,
    #[serde(default)]
    ensure_weight_tying: Option<bool>,
    #[serde(default)]
    target_modules: Option<Names>,
    #[serde(default)]
    exclude_modules: Option<Names>,
    #[serde(default)]
    layers_to_transform: Option<OneOrMore<usize>>,
    #[serde(default)]
    layers_pattern: Option<OneOrMore<String>>,
    #[serde(default)]
    rank_pattern: Option<Ordered<usize>>,
    #[serde(default)]
    alpha_pattern: Option<Ordered<f64>>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    lora_dropout: Option<f64>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    init_lora_weights: Option<Init>,
    #[serde(default)]
    lora_bias: Set,
    #[serde(default)]
    layer_replication: Set,
    #[serde(default)]
    megatron_config: Set,
    #[serde(default)]
    target_parameters: Set,
    #[serde(default)]
    trainable_token_indices: Set,
    #[serde(default)]
    alora_invocation_tokens: Set,
    #[serde(default)]
    use_qalora: Set,
    #[serde(default)]
    use_bdlora: Set,
    #[serde(default)]
    arrow_config: Set,
    #[serde(default)]
    kasa_config: Set,
    #[serde(default)]
    monteclora_config: Set,
}

fn eight() -> usize {
    8
}

fn eight_alpha() -> f64 {
    8.0
}

impl Config {
    /// Reads the text of an `adapter_config.json`. Keys that are not known are ignored; what would change numbers and is
    /// not supported is refused by name.
    pub fn from_json(text: &[u8]) -> Result<Config> {
        let file: File = serde_json::from_slice(text).map_err(|error| Error::Config(error.to_string()))?;
        file.refuse()?;
        let list = |given: Option<OneOrMore<String>>| given.map_or_else(Vec::new, |given| given.0);
        let config = Config {
            base_model: file.base_model_name_or_path,
            rank: file.r,
            alpha: file.lora_alpha,
            rank_stabilised: file.use_rslora.unwrap_or(false),
            dora: file.use_dora.unwrap_or(false),
            targets: file.target_modules.ok_or_else(|| Error::Config("target_modules is not given".into()))?,
            exclude: file.exclude_modules.filter(|names| !names.is_empty()),
            blocks: file.layers_to_transform.map_or_else(Vec::new, |given| given.0),
            block_names: list(file.layers_pattern),
            ranks: file.rank_pattern.map_or_else(Vec::new, |given| given.0),
            alphas: file.alpha_pattern.map_or_else(Vec::new, |given| given.0),
            whole: file.modules_to_save.unwrap_or_default(),
            tied: file.ensure_weight_tying.unwrap_or(false),
            dropout: file.lora_dropout.unwrap_or(0.0),
            principal: matches!(&file.init_lora_weights, Some(Init::Name(name)) if name == "pissa"),
            fan_in_fan_out: file.fan_in_fan_out.unwrap_or(false),
            task_type: file.task_type,
        };
        config.check()?;
        Ok(config)
    }

    /// Of an adapter without anything out of the ordinary, whose ranks are still to be [settled](Config::settle).
    pub(super) fn plain(targets: Names) -> Config {
        Config {
            base_model: None,
            rank: 1,
            alpha: 1.0,
            rank_stabilised: false,
            dora: false,
            targets,
            exclude: None,
            blocks: Vec::new(),
            block_names: Vec::new(),
            ranks: Vec::new(),
            alphas: Vec::new(),
            whole: Vec::new(),
            tied: false,
            dropout: 0.0,
            principal: false,
            fan_in_fan_out: false,
            task_type: None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let problem = |text: String| Err(Error::Config(text));
        if let Some(rank) = self.ranks.iter().map(|(_, rank)| *rank).chain([self.rank]).find(|rank| *rank == 0) {
            return problem(format!("r or rank_pattern has a rank of {rank}: ranks are at least 1"));
        }
        if let Some(alpha) = self.alphas.iter().map(|(_, alpha)| *alpha).chain([self.alpha]).find(|a| !a.is_finite()) {
            return problem(format!("an alpha of {alpha} is no number"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return problem(format!("lora_dropout {} is not in [0, 1)", self.dropout));
        }
        let by_blocks = !self.blocks.is_empty() || !self.block_names.is_empty();
        if by_blocks && !matches!(self.targets, Names::List(_)) {
            return problem("layers_to_transform and layers_pattern go with a list of target_modules alone".into());
        }
        Ok(())
    }

    /// Whether PEFT names this module itself among those that are trained whole, be it there or not.
    pub(super) fn is_usual(&self, module: &str) -> bool {
        self.task_type.as_deref() == Some(CLASSIFICATION) && ["classifier", "score"].contains(&module)
    }

    /// Whether a classifier beside it is one of whole texts, as far as is said.
    pub(super) fn classifies(&self) -> bool {
        self.task_type.as_deref().is_none_or(|task| task == CLASSIFICATION)
    }

    /// Factor on A B of a layer of this rank and alpha.
    pub fn scale(&self, rank: usize, alpha: f64) -> f64 {
        alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 }
    }

    /// Alpha of a layer of this rank whose A B has this factor: a whole number if one is as near as rounding can tell.
    pub(super) fn alpha_for(&self, rank: usize, scale: f64) -> f64 {
        let alpha = scale * if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
        let whole = alpha.round();
        if (alpha - whole).abs() <= 4.0 * f64::EPSILON * alpha.abs() { whole } else { alpha }
    }

    /// The text of an `adapter_config.json`, with every key that older readers ask for.
    pub fn to_json(&self) -> Vec<u8> {
        let list = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
        let numbers = self.alphas.iter().map(|(name, alpha)| (name.clone(), number(*alpha))).collect();
        let written = Written {
            peft_type: "LORA",
            task_type: self.task_type.as_deref(),
            base_model_name_or_path: self.base_model.as_deref(),
            inference_mode: true,
            r: self.rank,
            lora_alpha: number(self.alpha),
            lora_dropout: self.dropout,
            rank_pattern: Ordered(self.ranks.clone()),
            alpha_pattern: Ordered(numbers),
            use_rslora: self.rank_stabilised,
            use_dora: self.dora,
            init_lora_weights: if self.principal { json!("pissa") } else { json!(true) },
            target_modules: self.targets.to_json(),
            exclude_modules: self.exclude.as_ref().map(Names::to_json),
            layers_to_transform: (!self.blocks.is_empty()).then_some(&self.blocks),
            layers_pattern: list(&self.block_names),
            modules_to_save: list(&self.whole),
            ensure_weight_tying: self.tied,
            fan_in_fan_out: self.fan_in_fan_out,
            bias: "none",
            lora_bias: false,
            auto_mapping: (),
            revision: (),
            layer_replication: (),
            megatron_config: (),
            megatron_core: "megatron.core",
            loftq_config: Ordered(Vec::new()),
        };
        serde_json::to_vec_pretty(&written).expect("names and numbers")
    }
}

/// What is written, in this order.
#[derive(Serialize)]
struct Written<'a> {
    peft_type: &'a str,
    task_type: Option<&'a str>,
    base_model_name_or_path: Option<&'a str>,
    inference_mode: bool,
    r: usize,
    lora_alpha: Value,
    lora_dropout: f64,
    rank_pattern: Ordered<usize>,
    alpha_pattern: Ordered<Value>,
    use_rslora: bool,
    use_dora: bool,
    init_lora_weights: Value,
    target_modules: Value,
    exclude_modules: Option<Value>,
    layers_to_transform: Option<&'a Vec<usize>>,
    layers_pattern: Value,
    modules_to_save: Value,
    ensure_weight_tying: bool,
    fan_in_fan_out: bool,
    bias: &'a str,
    lora_bias: bool,
    auto_mapping: (),
    revision: (),
    layer_replication: (),
    megatron_config: (),
    megatron_core: &'a str,
    loftq_config: Ordered<()>,
}

/// A whole number as JSON has them where it is one: PEFT's alphas are.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

impl File {
    /// What would change numbers and is not known here.
    fn refuse(&self) -> Result<()> {
        let problem = |text: String| Err(Error::Config(text));
        if self.peft_type != "LORA" {
            return problem(format!("peft_type {:?}: only LORA is known", self.peft_type));
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| *bias != "none") {
            return problem(format!(
                "bias {bias:?}: biases trained beside adapters are not supported, only \"none\" is"
            ));
        }
        let features = [
            ("lora_bias", self.lora_bias),
            ("layer_replication", self.layer_replication),
            ("megatron_config", self.megatron_config),
            ("target_parameters", self.target_parameters),
            ("trainable_token_indices", self.trainable_token_indices),
            ("alora_invocation_tokens", self.alora_invocation_tokens),
            ("use_qalora", self.use_qalora),
            ("use_bdlora", self.use_bdlora),
            ("arrow_config", self.arrow_config),
            ("kasa_config", self.kasa_config),
            ("monteclora_config", self.monteclora_config),
        ];
        if let Some((name, _)) = features.iter().find(|(_, set)| set.0) {
            return problem(format!("{name} is set, and not supported"));
        }
        match &self.init_lora_weights {
            Some(Init::Name(name)) if name != "pissa" && !PLAIN.contains(&&**name) => problem(format!(
                "init_lora_weights {name:?}: the base it was trained beside is not known; \
                 save it with path_initial_model_for_weight_conversion"
            )),
            _ => Ok(()),
        }
    }
}
