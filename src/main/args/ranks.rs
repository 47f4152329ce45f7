//! Flags that say which rank goes where.

use super::count;
use clap::Args;
use eckart::rank::{Bounds, Rule, Sensitivity, Tail};
use eckart::train::Budget;
use std::path::PathBuf;
use std::str::FromStr;

/// What a layer's gains are taken from.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// From the model and the data.
    Of(Sensitivity),
    /// From the update of an adapter.
    Adapter(PathBuf),
    /// From the change to another model of the same shape, fully fine-tuned, say.
    Delta(PathBuf),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        if let Some(folder) = text.strip_prefix("adapter:") {
            return Ok(Kind::Adapter(folder.into()));
        }
        if let Some(folder) = text.strip_prefix("delta:") {
            return Ok(Kind::Delta(folder.into()));
        }
        super::word(text).map(Kind::Of).map_err(|_| {
            format!("{text:?} is none of gradient, hessian, gauss-newton, data, kronecker, adapter:DIR, delta:DIR")
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Of(sensitivity) => {
                let name = serde_json::to_value(sensitivity).expect("a name");
                f.write_str(name.as_str().unwrap_or_default())
            }
            Kind::Adapter(folder) => write!(f, "adapter:{}", folder.display()),
            Kind::Delta(folder) => write!(f, "delta:{}", folder.display()),
        }
    }
}

pub fn rule(text: &str) -> Result<Rule, String> {
    Ok(match text {
        "greedy" => Rule::Greedy,
        "closed-form" | "closed-form:power" => Rule::ClosedForm(Tail::Power),
        "closed-form:slow" => Rule::ClosedForm(Tail::Slow),
        "closed-form:exponential" => Rule::ClosedForm(Tail::Exponential),
        "uniform" => Rule::Uniform,
        "published" => Rule::Published,
        _ => return Err("it is none of greedy, closed-form[:slow|power|exponential], uniform, published".into()),
    })
}

/// How a budget of ranks is shared out.
#[derive(Args)]
pub struct Ranks {
    /// Share so many parameters (200k), bytes of training (8MiB) or so much memory (memory:6GiB) out among the layers
    #[arg(long, value_name = "BUDGET")]
    pub budget: Option<Budget>,
    /// gradient, hessian, gauss-newton, data, kronecker, adapter:DIR or delta:DIR: what gains are taken from
    #[arg(long, value_name = "KIND", default_value = "gradient", requires = "budget")]
    pub sensitivity: Kind,
    /// greedy, closed-form[:slow|power|exponential], uniform or published
    #[arg(long, value_parser = rule, default_value = "greedy", requires = "budget")]
    pub rule: Rule,
    /// Least rank of a layer; 0 lets layers go without
    #[arg(long, value_name = "N", default_value_t = 1, requires = "budget")]
    pub min: usize,
    /// Highest rank of a layer
    #[arg(long, value_name = "N", requires = "budget", value_parser = count::<usize>())]
    pub max: Option<usize>,
    /// Batches that gains are taken from
    #[arg(long, value_name = "N", default_value_t = 8, requires = "budget", value_parser = count::<u64>())]
    pub sample: u64,
}

impl Ranks {
    pub fn bounds(&self) -> Bounds {
        Bounds { least: self.min, most: self.max.unwrap_or(usize::MAX) }
    }
}
