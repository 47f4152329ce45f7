//! Ranks for the layers of a model, under a budget: what `allocate` shows and `finetune --budget` goes by.

use crate::args::{Kind, Ranks as Flags};
use eckart::io::peft;
use eckart::nn::ModelConfig;
use eckart::rank::{Curve, Estimate, Rule, of_adapters, of_change};
use eckart::train::{Adapter, Budget, Config, Ranks, Sharing, Size, Subject, look, share_out, subject, survey};
use eckart::{Device, Error, Result};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Ranks, and what they were chosen by.
pub struct Chosen {
    pub ranks: Ranks,
    pub curves: Vec<Curve>,
    /// Traces of curvature, where gains were divided by them.
    pub traces: Option<Vec<Estimate>>,
    /// What there is to say of the data and of single layers.
    pub notes: Vec<String>,
    /// Sizes of the model.
    pub model: ModelConfig,
}

/// A budget is for adapters alone.
pub fn for_adapters(config: &Config) -> Result<()> {
    match config.adapter {
        Adapter::None => {
            Err(Error::Config("budget: ranks are those of adapters: take method lora, lora+ or dora".into()))
        }
        _ => Ok(()),
    }
}

/// Looks at the model that a configuration names, and shares the budget out.
pub fn choose(config: &Config, flags: &Flags) -> Result<Chosen> {
    let Some(budget) = flags.budget else {
        return Err(Error::Config("budget: give one, such as 200k, 8MiB or memory:6GiB".into()));
    };
    for_adapters(config)?;
    let config = config.resolved()?;
    let subject = subject(&config)?;
    let device = Device::by_name_within(&config.device, config.memory.map(|Size(bytes)| bytes))?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let (curves, traces, of_layers) = rayon::scope(|_| found(&config, &subject, &device, flags))?;
    let mut notes = [subject.notes.clone(), of_layers].concat();
    let sharing = Sharing { budget, rule: flags.rule, bounds: flags.bounds() };
    let ranks = share_out(&config, &subject, &curves, sharing)?;
    let without: Vec<&str> = ranks.ranks.iter().filter(|(_, rank)| **rank == 0).map(|(path, _)| &**path).collect();
    if !without.is_empty() {
        notes.push(format!("without an adapter: {}", without.join(", ")));
    }
    let at_end = |curve: &&Curve| {
        let rank = ranks.ranks.get(&curve.path).copied().unwrap_or_default();
        rank == curve.gains.len() && rank < curve.full_rank()
    };
    let looked = matches!(flags.sensitivity, Kind::Of(_)) && flags.rule != Rule::Uniform && flags.max.is_none();
    if let Some(curve) = curves.iter().find(at_end).filter(|_| looked) {
        let rank = curve.gains.len();
        notes
            .push(format!("some layers have rank {rank}, and no gains were looked for beyond it: --max looks further"));
    }
    let limit = match budget {
        Budget::Parameters(limit) | Budget::Bytes(limit) | Budget::Memory(limit) => limit,
    };
    if flags.rule == Rule::Published && ranks.spent > limit {
        let times = ranks.spent as f64 / limit as f64;
        notes.push(format!(
            "the published rule spends {times:.1} times the budget: its ranks add up to it, not their cost"
        ));
    }
    let model = config.sizes(&subject.names)?;
    Ok(Chosen { ranks, curves, traces, notes, model })
}

type Found = (Vec<Curve>, Option<Vec<Estimate>>, Vec<String>);

fn found(config: &Config, subject: &Subject, device: &Device, flags: &Flags) -> Result<Found> {
    match &flags.sensitivity {
        Kind::Of(sensitivity) => {
            let found = look(config, subject, device, *sensitivity, flags.bounds().most, flags.sample)?;
            Ok((found.curves, found.traces, found.notes))
        }
        Kind::Adapter(adapter) => {
            let (mut model, survey) = survey(config, subject, device, flags.bounds().most)?;
            peft::open(adapter)?.put_on(&mut model)?;
            let mut curves = of_adapters(&mut model)?;
            curves.retain(|curve| survey.names.contains(&curve.path));
            let has = |name: &&String| curves.iter().any(|curve| curve.path == **name);
            let lacking: Vec<&str> = survey.names.iter().filter(|name| !has(name)).map(String::as_str).collect();
            let note = match (curves.is_empty(), lacking.is_empty()) {
                (true, _) => {
                    let problem = format!("sensitivity: {} has none of the layers that are meant", adapter.display());
                    return Err(Error::Config(problem));
                }
                (false, true) => Vec::new(),
                (false, false) => vec![format!("the adapter has no {}, which get none", lacking.join(", "))],
            };
            Ok((curves, None, note))
        }
        Kind::Delta(other) => {
            let model = |model: Option<PathBuf>| {
                let config = Config { model, base: None, ..config.clone() };
                survey(&config, subject, device, flags.bounds().most)
            };
            let ((mut before, survey), (mut after, _)) = (model(config.model.clone())?, model(Some(other.clone()))?);
            let names: Vec<&str> = survey.names.iter().map(String::as_str).collect();
            Ok((of_change(&mut before, &mut after, &names)?, None, Vec::new()))
        }
    }
}

impl Chosen {
    /// One line for each layer: sizes, sensitivity, rank, parameters, and how much of what could be won its rank wins.
    pub fn table(&self) -> String {
        let width = self.curves.iter().map(|curve| curve.path.len()).max().unwrap_or(0).max(5);
        let mut lines = vec![format!(
            "{:width$} {:>12} {:>11} {:>9} {:>5} {:>11} {:>7}",
            "layer", "in x out", "sensitivity", "error", "rank", "parameters", "wins"
        )];
        for (i, curve) in self.curves.iter().enumerate() {
            let rank = self.rank(curve);
            let [input, output] = curve.sizes;
            let error = self.traces.as_ref().map_or(String::new(), |traces| {
                format!("{:.0} %", 100.0 * traces[i].error / traces[i].mean.abs().max(f64::MIN_POSITIVE))
            });
            let wins = match curve.left(0) {
                all if all > 0.0 => format!("{:.0} %", 100.0 * (1.0 - curve.left(rank) / all)),
                _ => "nothing".into(),
            };
            lines.push(format!(
                "{:width$} {:>12} {:>11.3e} {error:>9} {rank:>5} {:>11} {wins:>7}",
                curve.path,
                format!("{input} x {output}"),
                curve.score,
                rank as u64 * curve.cost()
            ));
        }
        lines.push(format!("{} spent of {}", self.spent(), self.ranks.budget));
        lines.extend(self.notes.iter().cloned());
        lines.join("\n")
    }

    fn spent(&self) -> String {
        match self.ranks.budget {
            Budget::Parameters(_) => format!("{} parameters", self.ranks.spent),
            _ => eckart::train::Size(self.ranks.spent).to_string(),
        }
    }

    fn rank(&self, curve: &Curve) -> usize {
        self.ranks.ranks.get(&curve.path).copied().unwrap_or_default()
    }

    /// All of it: the ranks as `finetune --ranks` reads them, PEFT's patterns, and what each layer's rank was chosen by.
    pub fn json(&self, config: &Config, flags: &Flags) -> Value {
        let module = |curve: &Curve| self.model.hub_name(&curve.path);
        let patterns: Map<String, Value> =
            self.curves.iter().filter(|c| self.rank(c) > 0).map(|c| (module(c), json!(self.rank(c)))).collect();
        let targets: Vec<&String> = patterns.keys().collect();
        let alphas: Map<String, Value> = targets.iter().map(|name| ((*name).clone(), json!(config.alpha))).collect();
        json!({
            "ranks": self.ranks.ranks,
            "budget": self.ranks.budget,
            "spent": self.ranks.spent,
            "sensitivity": flags.sensitivity.to_string(),
            "peft": {
                "target_modules": targets,
                "r": config.rank,
                "lora_alpha": config.alpha,
                "use_rslora": true,
                "rank_pattern": patterns,
                "alpha_pattern": alphas,
            },
            "layers": self.curves.iter().enumerate().map(|(i, curve)| self.layer(i, curve, config)).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// The factor on A B of a layer is α/√r; what it would be by α/r, and if it were the same for all ranks, stands beside.
    fn layer(&self, i: usize, curve: &Curve, config: &Config) -> Value {
        let rank = self.rank(curve);
        let (alpha, r, usual) = (config.alpha, rank.max(1) as f64, config.rank as f64);
        json!({
            "path": curve.path,
            "sizes": curve.sizes,
            "rank": rank,
            "parameters": rank as u64 * curve.cost(),
            "sensitivity": curve.score,
            "trace": self.traces.as_ref().map(|traces| traces[i]),
            "gains": curve.gains,
            "rest": curve.rest,
            "scale": { "alpha / sqrt(r)": alpha / r.sqrt(), "alpha / r": alpha / r, "constant": alpha / usual.sqrt() },
        })
    }
}
