//! `factorise`: a model whose layers are products of two thin matrices.

use crate::args;
use eckart::data::{Batches, Dataset, Examples, Layout, Reading};
use eckart::io::{hub, peft};
use eckart::lowrank::{Method, Moments, Replaced, Spectrum, Weighting, factorize, moments, rank_for, saves, spectra};
use eckart::module::Path;
use eckart::nn::{Model, ModelConfig, Pass};
use eckart::rank::factor_ranks;
use eckart::train::tokenizer_files;
use eckart::{Device, Error, Module, Result, Seed};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;

/// What is added to second moments, relative to their mean, so that directions that no input has count a little.
const DAMPING: f64 = 1e-4;

/// A number of parameters, or a part of those that there are.
#[derive(Clone, Copy, Debug)]
pub enum Parameters {
    Count(u64),
    Part(f64),
}

impl FromStr for Parameters {
    type Err = String;

    /// `200k`, `1.5M`, `2G` or `4096`; a number with a point and nothing behind it is a part.
    fn from_str(text: &str) -> Result<Parameters, String> {
        let problem = || format!("{text:?} is neither a number of parameters, such as 200k, nor a part, such as 0.5");
        let units = [('k', 1e3), ('M', 1e6), ('G', 1e9), ('B', 1e9)];
        let unit = units.iter().find(|(unit, _)| text.ends_with(*unit));
        let number = unit.map_or(text, |(unit, _)| text.trim_end_matches(*unit));
        let number: f64 = number.parse().map_err(|_| problem())?;
        match unit {
            None if text.contains('.') && number > 0.0 && number <= 1.0 => Ok(Parameters::Part(number)),
            Some((_, factor)) if number > 0.0 && number.is_finite() => Ok(Parameters::Count((number * factor) as u64)),
            None if number >= 1.0 && number.fract() == 0.0 => Ok(Parameters::Count(number as u64)),
            _ => Err(problem()),
        }
    }
}

pub fn run(args: &args::Factorise) -> Result<ExitCode> {
    let device = Device::by_name(&args.device)?;
    // In a worker of the pool, because every fork from outside would first have to wake one.
    let (rows, totals) = rayon::scope(|_| factorised(args, &device))?;
    match args.json {
        true => {
            let report = json!({"layers": rows, "parameters": totals});
            println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
        }
        false => show(&rows, totals),
    }
    Ok(ExitCode::SUCCESS)
}

/// What has become of a layer.
#[derive(Serialize)]
struct Row {
    layer: String,
    sizes: [usize; 2],
    /// None of a layer that stays as it was.
    rank: Option<usize>,
    /// ‖W − LR‖ / ‖W‖ in the norm that was asked for.
    error: f64,
    /// Before and after.
    parameters: [usize; 2],
}

/// The layers that were meant, and the model's parameters before and after.
fn factorised(args: &args::Factorise, device: &Device) -> Result<(Vec<Row>, [usize; 2])> {
    let sizes = args.base.sizes(usize::MAX)?;
    let mut model = args.base.open(&sizes, device)?.frozen();
    let layers = peft::targets(&model, &args.targets)?;
    let before = model.parameter_count();
    let moments = inputs(args, &mut model, &sizes, &layers)?;
    let inputs = moments.as_ref().map(|moments| Weighting { moments, damping: DAMPING });
    let ranks = args.budget.ranks(&mut model, &layers, inputs)?;
    let replaced = factorize(&mut model, &ranks, &Method { sketch: None, inputs })?;
    let rows = rows(&mut model, &layers, &replaced);
    hub::save(&model, &args.out, &tokenizer_files(&args.base.model)?)?;
    Ok((rows, [before, model.parameter_count()]))
}

/// Second moments of the layers' inputs over the data, if there is some.
fn inputs(
    args: &args::Factorise,
    model: &mut Model,
    sizes: &ModelConfig,
    layers: &[String],
) -> Result<Option<Moments>> {
    let Some(data) = &args.data else { return Ok(None) };
    let of = |problem| Error::Config(format!("data: inputs are weighed for models that write; {problem}"));
    sizes.check_writes().map_err(of)?;
    let reading = Reading { max_length: args.max_length.min(sizes.context), mask_prompt: false };
    let tokenizer = args.base.tokenizer()?;
    let examples = match data.is_file() {
        true => Examples::read(data, &tokenizer, reading)?,
        false => Dataset::open(data, &tokenizer, reading)?.train,
    };
    // One after the other: what rows are filled up with would count as well.
    let batches = Batches::new(examples.examples, args.batch, reading.max_length, Layout::Packed);
    let names: Vec<&str> = layers.iter().map(String::as_str).collect();
    let found = moments(model, &names, |model| {
        for index in 0..batches.batches_per_epoch().min(args.batches as u64) {
            let (ids, _) = batches.batch(Seed(0), index).upload(&model.device());
            model.logits(&ids, &Pass::default());
        }
        model.device().wait()
    })?;
    Ok(Some(found))
}

impl args::Budget {
    /// The rank of each layer that factors take the place of.
    fn ranks(
        &self,
        model: &mut Model,
        layers: &[String],
        inputs: Option<Weighting<'_>>,
    ) -> Result<BTreeMap<String, usize>> {
        let found: Vec<Option<usize>> = match (self.rank, self.energy, self.budget) {
            (Some(0), ..) => return Err(Error::Config("rank is 0: it must be at least 1".into())),
            (Some(rank), ..) => vec![Some(rank); layers.len()],
            (_, Some(energy), _) if !(energy > 0.0 && energy <= 1.0) => {
                return Err(Error::Config(format!("energy is {energy}: it must be above 0 and at most 1")));
            }
            (_, Some(energy), _) => {
                let spectra = spectra(model, layers, inputs)?;
                spectra.iter().map(|spectrum| Some(rank_for(&spectrum.values, energy))).collect()
            }
            (.., budget) => {
                let mut spectra = spectra(model, layers, inputs)?;
                if !self.absolute {
                    spectra.iter_mut().for_each(Spectrum::normalise);
                }
                let all = spectra.iter().map(|spectrum| spectrum.sizes[0] * spectrum.sizes[1]).sum();
                factor_ranks(&spectra, budget.expect("one of the three is given").of(all))?
            }
        };
        let mut sizes = BTreeMap::new();
        model.visit_maps(&Path::root(), &mut |path, map| {
            sizes.insert(path.to_string(), map.sizes());
        });
        let ranks = layers.iter().cloned().zip(found).filter_map(|(path, rank)| Some((path, rank?)));
        Ok(ranks.filter(|(path, rank)| saves(*rank, sizes[path])).collect())
    }
}

impl Parameters {
    /// Of so many.
    pub fn of(self, all: usize) -> u64 {
        match self {
            Parameters::Count(count) => count,
            Parameters::Part(part) => (part * all as f64) as u64,
        }
    }
}

fn rows(model: &mut Model, layers: &[String], replaced: &[Replaced]) -> Vec<Row> {
    let (config, mut rows) = (model.config().clone(), Vec::new());
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if layers.contains(&path) {
            let [inputs, outputs] = map.sizes();
            let found = replaced.iter().find(|one| one.path == path);
            rows.push(Row {
                layer: config.hub_name(&path),
                sizes: [inputs, outputs],
                rank: found.map(|one| one.rank),
                error: found.map_or(0.0, |one| one.error),
                parameters: found.map_or([inputs * outputs; 2], |one| one.parameters),
            });
        }
    });
    rows
}

fn show(rows: &[Row], [before, after]: [usize; 2]) {
    let width = rows.iter().map(|row| row.layer.len()).max().unwrap_or(0).max(5);
    println!("{:width$} {:>14} {:>6} {:>8} {:>12} {:>12}", "layer", "in x out", "rank", "error", "parameters", "now");
    for Row { layer, sizes: [inputs, outputs], rank, error, parameters: [was, is] } in rows {
        let rank = rank.map_or("whole".into(), |rank| rank.to_string());
        let sizes = format!("{inputs} x {outputs}");
        println!("{layer:width$} {sizes:>14} {rank:>6} {:>6.2} % {was:>12} {is:>12}", 100.0 * error);
    }
    let whole = rows.iter().filter(|row| row.rank.is_none()).count();
    if whole > 0 {
        println!("{whole} of {} layers stay whole: factors would be no smaller", rows.len());
    }
    println!("the model has {after} parameters of {before}, {:.1} %", 100.0 * after as f64 / before as f64);
}
