//! How matrices are stored in fewer bits: codes in words, and scales.

use crate::device::cpu;
use crate::dtype::{bf16, f16};
use crate::scalar::Float;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What an element is stored as. Codes fill words from their lowest bits up, as bytes of a file do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Half precision, 16 bits; without scales.
    F16,
    /// Brain float, 16 bits; without scales.
    BF16,
    /// A whole number from −127 to 127, times the row's scale: its largest magnitude over 127.
    Int8,
    /// One of the 16 numbers of [`NF4`], times the scale of a block of 64 elements, which is their largest magnitude
    /// (Dettmers et al., "QLoRA", 2023, section 3). Blocks follow each other through all rows; the first code of a byte
    /// is in its upper half.
    Nf4,
}

/// Quantiles of the normal distribution, scaled to [−1, 1], with a zero among them (QLoRA, appendix E).
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Elements of a block of NF4.
pub(super) const BLOCK: usize = 64;
/// The code of 0.
const ZERO: u32 = 7;

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::F16, Format::BF16, Format::Int8, Format::Nf4];

    /// Lower-case name, as in messages and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Format::F16 => "f16",
            Format::BF16 => "bf16",
            Format::Int8 => "int8",
            Format::Nf4 => "nf4",
        }
    }

    /// Codes in a word of 32 bits.
    pub const fn per_word(self) -> usize {
        match self {
            Format::F16 | Format::BF16 => 2,
            Format::Int8 => 4,
            Format::Nf4 => 8,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A matrix S [rows, columns] in fewer bits, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// What an element is stored as.
    pub format: Format,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
}

/// Codes and scales of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// As many words as [`Packed::words`] says.
    pub codes: Vec<u32>,
    /// As many as [`Packed::scales`] says.
    pub scales: Vec<f32>,
}

impl Packed {
    /// Elements.
    pub fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// Words of codes.
    pub fn words(&self) -> usize {
        self.count().div_ceil(self.format.per_word())
    }

    /// Scales.
    pub fn scales(&self) -> usize {
        match self.format {
            Format::F16 | Format::BF16 => 0,
            Format::Int8 => self.rows,
            Format::Nf4 => self.count().div_ceil(BLOCK),
        }
    }

    /// Words that hold the codes of these rows, and the scales that they need.
    pub(super) fn reach(&self, rows: Range<usize>) -> [Range<usize>; 2] {
        let elements = rows.start * self.columns..rows.end * self.columns;
        let in_units = |unit: usize| elements.start / unit..elements.end.div_ceil(unit);
        let scales = match self.format {
            Format::F16 | Format::BF16 => 0..0,
            Format::Int8 => rows,
            Format::Nf4 => in_units(BLOCK),
        };
        [in_units(self.format.per_word()), scales]
    }

    /// Codes and scales of finite elements, which are read by row and column. Numbers go to the nearest that there is;
    /// the same for any number of threads.
    pub fn encode(&self, element: impl Fn(usize, usize) -> f32 + Sync) -> Encoded {
        let at = |e: usize| element(e / self.columns, e % self.columns);
        let largest = |elements: Range<usize>| elements.map(at).fold(0.0_f32, |most, x| most.max(x.abs()));
        let mut scales = vec![0.0; self.scales()];
        let group = if self.format == Format::Int8 { self.columns } else { BLOCK };
        cpu::rows(&mut scales, 1, |first, scales| {
            for (i, scale) in (first..).zip(scales) {
                let most = largest(i * group..((i + 1) * group).min(self.count()));
                *scale = if self.format == Format::Int8 { most / 127.0 } else { most };
            }
        });
        let mut codes = vec![0; self.words()];
        let per_word = self.format.per_word();
        cpu::rows(&mut codes, 1, |first, words| {
            for (word, code) in (first..).zip(words) {
                for e in word * per_word..((word + 1) * per_word).min(self.count()) {
                    let scale = if scales.is_empty() { 1.0 } else { scales[e / group] };
                    *code |= self.format.code(at(e), scale) << self.format.shift(e);
                }
            }
        });
        Encoded { codes, scales }
    }

    /// Elements of a row from `column` on. `codes` may hold any bits.
    #[inline(always)]
    fn decode<T: Float>(&self, codes: &[u32], scales: &[T], [row, column]: [usize; 2], out: &mut [T]) {
        let first = row * self.columns + column;
        let code = |e: usize| codes[e / self.format.per_word()] >> self.format.shift(e);
        match self.format {
            Format::F16 => fill(out, |i| T::of(f16::from_bits(code(first + i) as u16).to_f32().into())),
            Format::BF16 => fill(out, |i| T::of(bf16::from_bits(code(first + i) as u16).to_f32().into())),
            Format::Int8 => fill(out, |i| T::of(f64::from(code(first + i) as u8 as i8)) * scales[row]),
            Format::Nf4 => {
                let (mut from, mut rest) = (first, out);
                while !rest.is_empty() {
                    let (run, after) = rest.split_at_mut((BLOCK - from % BLOCK).min(rest.len()));
                    let table = NF4.map(|x| T::of(x.into()) * scales[from / BLOCK]);
                    fill(run, |i| table[(code(from + i) & 15) as usize]);
                    (from, rest) = (from + run.len(), after);
                }
            }
        }
    }

    /// A part of the matrix, row by row.
    pub(super) fn unpack<T: Float>(
        &self,
        codes: &[u32],
        scales: &[T],
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [T],
    ) {
        cpu::rows(out, columns.len(), |first, out| {
            for (i, out) in out.chunks_exact_mut(columns.len()).enumerate() {
                self.decode(codes, scales, [rows.start + first + i, columns.start], out);
            }
        });
    }
}

#[inline(always)]
fn fill<T>(out: &mut [T], value: impl Fn(usize) -> T) {
    out.iter_mut().enumerate().for_each(|(i, y)| *y = value(i));
}

impl Format {
    /// Bits of a word below the code of element `e`.
    #[inline(always)]
    fn shift(self, e: usize) -> usize {
        match self {
            Format::F16 | Format::BF16 => 16 * (e % 2),
            Format::Int8 => 8 * (e % 4),
            // The first of two is in the upper half of a byte.
            Format::Nf4 => 4 * ((e % 8) ^ 1),
        }
    }

    fn code(self, x: f32, scale: f32) -> u32 {
        let scaled = if scale == 0.0 { 0.0 } else { x / scale };
        match self {
            Format::F16 => f16::from_f32(x).to_bits().into(),
            Format::BF16 => bf16::from_f32(x).to_bits().into(),
            Format::Int8 => scaled.round_ties_even().clamp(-127.0, 127.0) as i8 as u8 as u32,
            Format::Nf4 => nearest(scaled),
        }
    }
}

/// The code of the number of [`NF4`] that is nearest; in the middle of two the lower one, as in the code of `bitsandbytes`.
fn nearest(x: f32) -> u32 {
    if x == 0.0 {
        return ZERO;
    }
    let middle = |i: usize| (f64::from(NF4[i]) + f64::from(NF4[i + 1])) / 2.0;
    (0..15).map(|i| u32::from(f64::from(x) > middle(i))).sum()
}
