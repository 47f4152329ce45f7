//! Amounts of memory, as people write them.

use crate::device::{Bytes, Tag};
use serde::{Deserialize, Serialize};

/// A number of bytes; as text, such as `8GiB`, `1.5 GB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const UNITS: [(&str, f64); 10] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("B", 1.0),
];

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, factor) = unit.map_or((text, 1.0), |(unit, factor)| (&text[..text.len() - unit.len()], *factor));
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(Size((number * factor) as u64)),
            _ => Err(format!("{text:?} is no amount of memory: write it like 8GiB or 500MB")),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Size, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        format!("{}B", size.0)
    }
}

/// The largest binary unit that leaves at least 1, with one decimal.
impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match UNITS[..4].iter().rev().find(|(_, factor)| self.0 as f64 >= *factor) {
            Some((unit, factor)) => write!(f, "{:.1} {unit}", self.0 as f64 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Bytes by what they are for, as in reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Sum of the others.
    pub total: u64,
    /// Parameters of the model.
    pub weights: u64,
    /// Finished gradients of parameters.
    pub gradients: u64,
    /// State of the optimizer.
    pub optimizer: u64,
    /// Everything between.
    pub activations: u64,
    /// Scratch of kernels.
    pub workspace: u64,
}

impl MemoryUse {
    /// The one with the larger total; `self` if they are equal.
    pub fn larger(self, other: MemoryUse) -> MemoryUse {
        if other.total > self.total { other } else { self }
    }

    /// Name and bytes, in the order of tables, the total last.
    pub fn rows(&self) -> [(&'static str, u64); 6] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("workspace", self.workspace),
            ("total", self.total),
        ]
    }
}

impl From<Bytes> for MemoryUse {
    fn from(bytes: Bytes) -> MemoryUse {
        MemoryUse {
            total: bytes.total(),
            weights: bytes[Tag::Weights],
            gradients: bytes[Tag::Gradients],
            optimizer: bytes[Tag::Optimizer],
            activations: bytes[Tag::Activations],
            workspace: bytes[Tag::Workspace],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        let read = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(read("8GiB"), Ok(8 << 30));
        assert_eq!(read("1.5 MB"), Ok(1_500_000));
        assert_eq!(read("4096"), Ok(4096));
        assert!(read("lots").is_err() && read("-1GiB").is_err() && read("GiB").is_err());
        assert_eq!(Size(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Size(1023).to_string(), "1023 B");
        assert_eq!(String::from(Size(77)).parse(), Ok(Size(77)));
    }
}
