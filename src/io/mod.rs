//! Files: named arrays as safetensors, folders that appear whole or not at all, models as Hugging Face has them and
//! adapters as PEFT keeps them.

mod arrays;
mod folder;
pub mod hub;
mod json_lines;
#[cfg(feature = "hub")]
pub mod peft;

pub use arrays::{Arrays, decode, encode, load, restore, restore_trained, save};
pub use folder::{Files, read_folder, remove_folder, sweep, write_folder, write_plain};

pub(crate) use json_lines::JsonLines;

use crate::error::{Error, Result};
use std::path::Path;

/// A file's contents.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::file(path))
}

/// A fingerprint that any change of a single word changes, and of more words all but once in 2⁶⁴ times. It notices
/// damage, not malice.
pub fn checksum(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    // Each round is a bijection of the state, so a difference once there stays.
    let round = |state: u64, word: u64| {
        let mixed = (state ^ word).wrapping_mul(ODD);
        mixed ^ mixed >> 32
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(bytes.len() as u64, |state, word| round(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    round(state, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn checksum_notices_every_flipped_bit_and_pairs_of_them() {
        let text: Vec<u8> = (0..37).collect();
        let flipped = |bits: &[usize]| {
            let mut text = text.clone();
            bits.iter().for_each(|bit| text[bit / 8] ^= 1 << (bit % 8));
            checksum(&text)
        };
        for a in 0..8 * text.len() {
            assert_ne!(flipped(&[a]), checksum(&text));
            for b in 0..a {
                assert_ne!(flipped(&[a, b]), checksum(&text), "bits {a} and {b}");
            }
        }
        assert_ne!(checksum(&text[..36]), checksum(&text));
    }
}
