//! What ranks may cost, as people write it.

use super::Size;
use serde::{Deserialize, Serialize};

/// A budget of adapters; as text `200k` (parameters), `8MiB` (bytes of adapters, their gradients and the optimizer's state)
/// or `memory:6GiB` (all that the run may hold).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// Parameters of adapters.
    Parameters(u64),
    /// Bytes of adapters, their gradients and the optimizer's state of them.
    Bytes(u64),
    /// Bytes that the whole run may hold, as a plan counts them.
    Memory(u64),
}

/// What stands behind a number of parameters.
const COUNTS: [(&str, f64); 4] = [("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)];

impl std::str::FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        let problem = || format!("{text:?} is no budget: write it like 200k, 8MiB or memory:6GiB");
        if let Some(size) = text.strip_prefix("memory:") {
            return size.parse().map(|Size(bytes)| Budget::Memory(bytes)).map_err(|_| problem());
        }
        if text.ends_with('B') {
            return text.parse().map(|Size(bytes)| Budget::Bytes(bytes)).map_err(|_| problem());
        }
        let unit = COUNTS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, factor) = unit.map_or((text, 1.0), |(unit, factor)| (&text[..text.len() - unit.len()], *factor));
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(Budget::Parameters((number * factor) as u64)),
            _ => Err(problem()),
        }
    }
}

impl TryFrom<String> for Budget {
    type Error = String;
    fn try_from(text: String) -> Result<Budget, String> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> String {
        match budget {
            Budget::Parameters(count) => count.to_string(),
            Budget::Bytes(bytes) => format!("{bytes}B"),
            Budget::Memory(bytes) => format!("memory:{bytes}B"),
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Budget::Parameters(count) => write!(f, "{count} parameters"),
            Budget::Bytes(bytes) => write!(f, "{} of adapters, gradients and state", Size(*bytes)),
            Budget::Memory(bytes) => write!(f, "{} of memory", Size(*bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Budget>();
        assert_eq!(read("200k"), Ok(Budget::Parameters(200_000)));
        assert_eq!(read("5780"), Ok(Budget::Parameters(5780)));
        assert_eq!(read("1.5M"), Ok(Budget::Parameters(1_500_000)));
        assert_eq!(read("8MiB"), Ok(Budget::Bytes(8 << 20)));
        assert_eq!(read("memory:6GiB"), Ok(Budget::Memory(6 << 30)));
        for wrong in ["", "lots", "-1k", "memory:", "memory:many", "MiB"] {
            assert!(read(wrong).unwrap_err().contains("200k, 8MiB or memory:6GiB"), "{wrong}");
        }
        for budget in [Budget::Parameters(7), Budget::Bytes(9), Budget::Memory(10)] {
            assert_eq!(String::from(budget).parse(), Ok(budget));
        }
    }
}
