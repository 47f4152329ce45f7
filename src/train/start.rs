//! How a run's adapters begin, and the model that it begins with.

use super::adapter::train_whole;
use super::micro_batch::given;
use super::{Adapter, Config, Names, Source};
use crate::data::Batch;
use crate::device::Device;
use crate::error::Result;
use crate::io::hub;
use crate::lowrank::{ALL_LINEAR, Factored, Initial, Start};
use crate::lowrank::{adapt, chosen, each, quantise, steepest};
use crate::nn::{Model, Pass};
use crate::ops::quantised::Format;
use crate::optim::Gradients;
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What adapters begin as, see [`Start`]; as text `uniform`, `gaussian`, `zero-a`, `pissa`, `pissa:4`, `lora-ga`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AdapterStart {
    /// A uniform, B zero.
    #[default]
    Uniform,
    /// A normal, B zero.
    Gaussian,
    /// A zero, B uniform.
    ZeroA,
    /// Leading singular values and vectors of the weight, which are taken from it (Meng et al., "PiSSA", 2024).
    Pissa {
        /// Power iterations of a sketch in place of the whole decomposition.
        iterations: Option<usize>,
    },
    /// Singular vectors of the gradient of the run's first micro-batches, taken from the weight (Wang et al., "LoRA-GA",
    /// 2024).
    LoraGa,
}

const NAMES: [(&str, AdapterStart); 5] = [
    ("uniform", AdapterStart::Uniform),
    ("gaussian", AdapterStart::Gaussian),
    ("zero-a", AdapterStart::ZeroA),
    ("pissa", AdapterStart::Pissa { iterations: None }),
    ("lora-ga", AdapterStart::LoraGa),
];

impl std::str::FromStr for AdapterStart {
    type Err = String;

    fn from_str(text: &str) -> Result<AdapterStart, String> {
        if let Some(iterations) = text.strip_prefix("pissa:").and_then(|count| count.parse().ok()) {
            return Ok(AdapterStart::Pissa { iterations: Some(iterations) });
        }
        let known =
            || format!("{text:?} is no start: take uniform, gaussian, zero-a, pissa, pissa:ITERATIONS or lora-ga");
        NAMES.iter().find(|(name, _)| *name == text).map(|(_, start)| *start).ok_or_else(known)
    }
}

impl std::fmt::Display for AdapterStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdapterStart::Pissa { iterations: Some(iterations) } => write!(f, "pissa:{iterations}"),
            plain => f.write_str(NAMES.iter().find(|(_, start)| start == plain).expect("all the others have a name").0),
        }
    }
}

impl TryFrom<String> for AdapterStart {
    type Error = String;
    fn try_from(text: String) -> Result<AdapterStart, String> {
        text.parse()
    }
}

impl From<AdapterStart> for String {
    fn from(start: AdapterStart) -> String {
        start.to_string()
    }
}

impl AdapterStart {
    /// Whether a part of the base is taken from it, so that a run's first factors have to be kept.
    pub fn moves_base(self) -> bool {
        matches!(self, AdapterStart::Pissa { .. } | AdapterStart::LoraGa)
    }
}

impl Config {
    /// The model at the run's beginning, with its adapters: a function of the resolved configuration, the files that it
    /// names and what `source` gives first.
    pub fn fresh(&self, source: &dyn Source, names: &Names, device: &Device) -> Result<Model> {
        if self.start != AdapterStart::LoraGa || self.adapter == Adapter::None {
            return self.begun(Initial::new(), names, device);
        }
        let (mut model, fresh) = self.bare(names, device)?;
        let initial = self.steepest(&mut model, source, &fresh)?;
        match self.base {
            // The base is packed as it is, and has to be without what adapters take from it.
            Some(_) => {
                drop(model);
                self.begun(initial, names, device)
            }
            None => {
                self.adapt(&mut model, Start::Given(initial), &fresh)?;
                Ok(model)
            }
        }
    }

    /// The same, where its first factors are known if they took a part of the base.
    pub(super) fn begun(&self, initial: Initial, names: &Names, device: &Device) -> Result<Model> {
        let start = self.start_from(initial);
        if let (Some(folder), Some(format), true) = (&self.model, self.base, start.moves_base()) {
            return self.residual(folder, format, start, names, device);
        }
        let (mut model, fresh) = self.bare(names, device)?;
        self.adapt(&mut model, start, &fresh)?;
        Ok(model)
    }

    /// How adapters are to start, if gradients were asked for already.
    pub(super) fn start_from(&self, initial: Initial) -> Start {
        match self.start {
            _ if self.adapter == Adapter::None => Start::Uniform,
            _ if !initial.is_empty() => Start::Given(initial),
            AdapterStart::Gaussian => Start::Gaussian,
            AdapterStart::ZeroA => Start::ZeroA,
            AdapterStart::Pissa { iterations } => Start::Principal { iterations },
            AdapterStart::Uniform | AdapterStart::LoraGa => Start::Uniform,
        }
    }

    /// The model without adapters, and the paths of what its files lack.
    pub(super) fn bare(&self, names: &Names, device: &Device) -> Result<(Model, Vec<String>)> {
        let (sizes, seed) = (self.sizes(names)?, Seed(self.seed).named("model"));
        match (&self.model, self.base) {
            (Some(folder), Some(format)) => hub::load_in(format, folder, &sizes, Some(seed), device),
            (Some(folder), None) => hub::load_with_head(folder, &sizes, seed, device),
            (None, _) => Ok((Model::new(&sizes, seed, device)?, Vec::new())),
        }
    }

    /// A model of files of which each layer is read, gives its part to its adapter, and is stored in fewer bits, before
    /// the next is read: with PiSSA what its authors call QPiSSA.
    fn residual(&self, folder: &Path, format: Format, start: Start, names: &Names, device: &Device) -> Result<Model> {
        let (sizes, seed) = (self.sizes(names)?, Seed(self.seed).named("model"));
        let (mut outline, fresh) = (Model::unset(&sizes, device)?, hub::lacking(folder, &sizes)?);
        let adapted = self.adapters(start, self.adapted_layers(&mut outline, &fresh)?).one_by_one(&mut outline)?;
        let mut linear = chosen(&mut outline, &[ALL_LINEAR])?;
        linear.retain(|layer| !fresh.contains(&format!("{layer}.weight")));
        // Those that are factors stay so.
        each::<Factored>(&mut outline, |path, _| linear.retain(|layer| layer != path));
        let (mut model, _) = hub::load_by_layer(folder, &sizes, Some(seed), device, &mut |model, path| {
            if let Some(one) = adapted.get(path) {
                adapt(model, one, self.adapters_seed())?;
            }
            if linear.iter().any(|layer| layer == path) { quantise(model, format, &[path]).map(drop) } else { Ok(()) }
        })?;
        train_whole(&mut model, &fresh);
        Ok(model)
    }

    /// First factors by the gradient of the run's first micro-batches.
    pub(super) fn steepest(&self, model: &mut Model, source: &dyn Source, fresh: &[String]) -> Result<Initial> {
        let batch = |i: u64| source.batch(self, i / self.accumulate, i % self.accumulate);
        let batches: Vec<Batch> = (0..self.start_batches).map(batch).collect();
        let all: usize = batches.iter().map(Batch::counted).sum();
        let adapters = self.adapters(Start::default(), self.adapted_layers(model, fresh)?);
        let pass = Pass { recompute: self.recompute, ..Pass::default() };
        steepest(model, &adapters, self.adapters_seed(), &mut |model| {
            let mut gradients = Gradients::new();
            for batch in &batches {
                let (inputs, targets) = given(batch, &model.device());
                gradients.add(model.loss(inputs, &targets, &pass) * (batch.counted() as f64 / all as f64));
            }
            Ok(gradients)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::AdapterStart;

    #[test]
    fn starts_are_written_as_they_are_read() {
        for text in ["uniform", "gaussian", "zero-a", "pissa", "pissa:0", "pissa:16", "lora-ga"] {
            assert_eq!(text.parse::<AdapterStart>().unwrap().to_string(), text);
        }
        for text in ["", "pissa:", "pissa:x", "PiSSA", "eva"] {
            assert!(text.parse::<AdapterStart>().unwrap_err().contains("is no start"), "{text}");
        }
    }
}
