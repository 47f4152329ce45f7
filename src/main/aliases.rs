//! Configuration files as mlx-lm has them: its keys, translated to ours. Ours may stand beside them.

use eckart::{Error, Result};
use yaml_serde::{Mapping, Value};

/// Keys that only have another name here.
const NAMES: [(&str, &str); 11] = [
    ("iters", "steps"),
    ("batch_size", "batch"),
    ("learning_rate", "lr"),
    ("steps_per_report", "report_every"),
    ("steps_per_eval", "eval_every"),
    ("grad_accumulation_steps", "accumulate"),
    ("grad_checkpoint", "recompute"),
    ("max_seq_length", "context"),
    ("adapter_path", "out"),
    ("num_layers", "last_layers"),
    ("val_batches", "eval_batches"),
];

/// Keys whose one value that means nothing here is passed over, and what to do where they have another.
const IDLE: [(&str, Value, &str); 3] = [
    ("train", Value::Bool(true), "use `eckart eval` to evaluate"),
    ("test", Value::Bool(false), "use `eckart eval` after the run"),
    ("resume_adapter_file", Value::Null, "use --resume, which goes on with the optimizer's state too"),
];

/// The mapping with our keys alone.
pub fn translated(mut map: Mapping) -> Result<Mapping> {
    for (key, idle, instead) in IDLE {
        if map.remove(key).is_some_and(|value| value != idle) {
            return Err(Error::Config(format!("{key}: {instead}")));
        }
    }
    for (theirs, ours) in NAMES {
        if let Some(value) = map.remove(theirs) {
            put(&mut map, ours, value)?;
        }
    }
    // With both, -1 means all there are, which is what no value means here.
    for key in ["last_layers", "eval_batches"] {
        if map.get(key).and_then(Value::as_i64) == Some(-1) {
            map.remove(key);
        }
    }
    kind(&mut map)?;
    adapters(&mut map)?;
    schedule(&mut map)?;
    optimizer(&mut map)?;
    Ok(map)
}

/// `fine_tune_type`: lora, dora or full.
fn kind(map: &mut Mapping) -> Result<()> {
    match map.remove("fine_tune_type").as_ref().map(|value| value.as_str()) {
        None => Ok(()),
        Some(Some("full")) => put(map, "adapter", "none".into()),
        Some(Some(name @ ("lora" | "dora"))) => put(map, "adapter", name.into()),
        Some(_) => Err(Error::Config("fine_tune_type: it must be lora, dora or full".into())),
    }
}

/// `lora_parameters`: their scale is the whole factor, ours is divided by the rank.
fn adapters(map: &mut Mapping) -> Result<()> {
    let Some(parameters) = map.remove("lora_parameters") else { return Ok(()) };
    let mut parameters = mapping("lora_parameters", parameters)?;
    let rank = parameters.get("rank").and_then(Value::as_u64).unwrap_or(8);
    if let Some(scale) = parameters.remove("scale") {
        let scale = number("lora_parameters.scale", &scale)?;
        put(map, "alpha", (scale * rank as f64).into())?;
    }
    for (theirs, ours) in [("rank", "rank"), ("dropout", "adapter_dropout"), ("keys", "adapter_targets")] {
        if let Some(value) = parameters.remove(theirs) {
            put(map, ours, value)?;
        }
    }
    left("lora_parameters", &parameters)
}

/// `lr_schedule`: `cosine_decay` with `arguments` [first rate, steps, last rate] and a warm-up.
fn schedule(map: &mut Mapping) -> Result<()> {
    let Some(schedule) = map.remove("lr_schedule").filter(|value| !value.is_null()) else { return Ok(()) };
    let mut schedule = mapping("lr_schedule", schedule)?;
    if schedule.remove("name").as_ref().and_then(Value::as_str) != Some("cosine_decay") {
        return Err(Error::Config("lr_schedule: cosine_decay is the one there is; lr_floor 1 keeps a rate".into()));
    }
    put(map, "warmup", schedule.remove("warmup").unwrap_or_else(|| 0.into()))?;
    // The warm-up here begins at its first step's share of the highest rate.
    schedule.remove("warmup_init");
    let arguments = schedule.remove("arguments").unwrap_or_default();
    let numbers = arguments.as_sequence().map_or(&[][..], Vec::as_slice);
    let numbers: Result<Vec<f64>> = numbers.iter().map(|value| number("lr_schedule.arguments", value)).collect();
    let numbers = numbers?;
    let steps = map.get("steps").and_then(Value::as_f64);
    if let (Some(steps), Some(decay)) = (steps, numbers.get(1))
        && steps != *decay
    {
        let problem = format!("a decay over {decay} steps in a run of {steps}: here it lasts as long as the run");
        return Err(Error::Config(format!("lr_schedule.arguments: {problem}")));
    }
    let (first, last) = match numbers[..] {
        [first, _, last] if first > 0.0 => (first, last),
        [first, _] if first > 0.0 => (first, 0.0),
        _ => {
            let problem = "give the first rate, the steps and perhaps the last rate";
            return Err(Error::Config(format!("lr_schedule.arguments: {problem}")));
        }
    };
    // The schedule's first rate is the one that counts there too.
    map.insert("lr".into(), first.into());
    put(map, "lr_floor", (last / first).into())?;
    left("lr_schedule", &schedule)
}

/// `optimizer: adam`, and `optimizer_config` with what belongs to the one that is chosen.
fn optimizer(map: &mut Mapping) -> Result<()> {
    let plain = map.get("optimizer").and_then(Value::as_str) == Some("adam");
    if plain {
        map.insert("optimizer".into(), "adamw".into());
        put(map, "weight_decay", 0.0.into())?;
    }
    let Some(all) = map.remove("optimizer_config").filter(|value| !value.is_null()) else { return Ok(()) };
    let chosen = map.get("optimizer").and_then(Value::as_str).unwrap_or("adamw").to_string();
    let mut all = mapping("optimizer_config", all)?;
    let own = if plain { all.remove("adam") } else { all.remove(&*chosen) };
    let mut own = own.map_or_else(|| Ok(Mapping::new()), |own| mapping("optimizer_config", own))?;
    if let Some(betas) = own.remove("betas") {
        let betas = betas.as_sequence().cloned().unwrap_or_default();
        let [first, second] = &betas[..] else {
            return Err(Error::Config("optimizer_config.betas: give two numbers".into()));
        };
        put(map, "beta1", first.clone())?;
        put(map, "beta2", second.clone())?;
    }
    for (theirs, ours) in [("eps", "epsilon"), ("weight_decay", "weight_decay"), ("momentum", "momentum")] {
        if let Some(value) = own.remove(theirs) {
            put(map, ours, value)?;
        }
    }
    left("optimizer_config", &own)
}

fn put(map: &mut Mapping, key: &str, value: Value) -> Result<()> {
    match map.insert(key.into(), value) {
        Some(before) if map.get(key) != Some(&before) => {
            Err(Error::Config(format!("{key} is given twice, by our name and by mlx-lm's: leave one out")))
        }
        _ => Ok(()),
    }
}

fn mapping(key: &str, value: Value) -> Result<Mapping> {
    match value {
        Value::Mapping(map) => Ok(map),
        _ => Err(Error::Config(format!("{key}: a mapping is expected"))),
    }
}

fn number(key: &str, value: &Value) -> Result<f64> {
    value.as_f64().ok_or_else(|| Error::Config(format!("{key}: a number is expected")))
}

/// Fails if anything was not understood.
fn left(key: &str, map: &Mapping) -> Result<()> {
    match map.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::Config(format!("{key}: {:?} is not known", name.as_str().unwrap_or_default()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eckart::train::{Adapter, Config};

    fn config(text: &str) -> Result<Config> {
        let map: Mapping = yaml_serde::from_str(text).unwrap();
        let map = translated(map)?;
        yaml_serde::from_value(Value::Mapping(map)).map_err(|error| Error::Config(error.to_string()))
    }

    const EXAMPLE: &str = "
model: mlx_model
train: true
fine_tune_type: lora
optimizer: adamw
optimizer_config:
  adamw: {betas: [0.9, 0.98], eps: 1e-6, weight_decay: 0.05}
data: /path/to/training/data
seed: 0
num_layers: 16
batch_size: 4
iters: 1000
val_batches: -1
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 200
resume_adapter_file: null
adapter_path: adapters
save_every: 100
test: false
max_seq_length: 2048
grad_checkpoint: false
lora_parameters:
  keys: [self_attn.q_proj, self_attn.v_proj]
  rank: 16
  scale: 20.0
  dropout: 0.1
lr_schedule:
  name: cosine_decay
  warmup: 100
  warmup_init: 1e-7
  arguments: [2e-5, 1000, 1e-5]
";

    #[test]
    fn a_file_of_theirs_means_the_same_here() {
        let found = config(EXAMPLE).unwrap();
        assert_eq!((found.steps, found.batch, found.context, found.seed), (1000, 4, 2048, 0));
        assert_eq!((found.adapter, found.rank, found.alpha, found.adapter_dropout), (Adapter::Lora, 16, 320.0, 0.1));
        assert_eq!(found.adapter_targets, ["self_attn.q_proj", "self_attn.v_proj"]);
        assert_eq!((found.last_layers, found.eval_batches, found.warmup), (Some(16), None, Some(100)));
        assert_eq!((found.lr, found.lr_floor, found.beta2, found.epsilon), (Some(2e-5), 0.5, 0.98, 1e-6));
        assert_eq!((found.weight_decay, found.save_every, found.report_every), (0.05, 100, 10));
        assert_eq!(found.out.unwrap().to_str(), Some("adapters"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let message = |text: &str| config(text).unwrap_err().to_string();
        assert!(message("lerning_rate: 1").contains("lerning_rate"));
        assert!(message("lora_parameters: {rang: 8}").contains("\"rang\""));
        assert!(message("steps: 5\niters: 6").contains("steps is given twice"));
        assert!(message("test: true").contains("eckart eval"));
        assert!(message("fine_tune_type: qlora").contains("lora, dora or full"));
        assert!(message("lr_schedule: {name: linear}").contains("cosine_decay"));
    }
}
