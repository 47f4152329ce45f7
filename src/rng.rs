//! Randomness as a function: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A [`Seed`] stands for an endless array of random words, each a pure function of seed and index: the same on
//! every device and for any number of threads, so nothing about randomness has to be saved or replayed in order.

use rand::TryRng;
use std::convert::Infallible;

/// Ten rounds of Philox on a 128-bit counter under a 64-bit key.
#[inline(always)]
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let (mut k, mut c) = (key, counter);
    for _ in 0..10 {
        let p0 = 0xD251_1F53_u64 * c[0] as u64;
        let p1 = 0xCD9E_8D57_u64 * c[2] as u64;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// A name for an endless array of random words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed of its own for item `n` (a step, an example, a layer) under this one.
    pub fn fold(self, n: u64) -> Seed {
        let [low, high, _, _] = philox(self.key(), [n as u32, (n >> 32) as u32, 0x5EED, 1]);
        Seed::of_key([low, high])
    }

    /// A seed of its own for a name, such as a module path.
    pub fn named(self, name: &str) -> Seed {
        name.bytes().fold(self.fold(name.len() as u64), |seed, byte| seed.fold(byte as u64))
    }

    /// The seed with this key.
    pub fn of_key([low, high]: [u32; 2]) -> Seed {
        Seed(low as u64 | (high as u64) << 32)
    }

    /// Philox key: low and high word.
    pub fn key(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    /// Words `4 * block .. 4 * block + 4` of the array.
    #[inline(always)]
    pub fn block(self, block: u64) -> [u32; 4] {
        philox(self.key(), [block as u32, (block >> 32) as u32, 0, 0])
    }

    /// The words in order, as a generator for `rand` and `rand_distr`.
    pub fn stream(self) -> Stream {
        Stream { seed: self, next: 0 }
    }
}

/// Reads the words of a [`Seed`] in order.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: Seed,
    next: u64,
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let word = self.seed.block(self.next / 4)[(self.next % 4) as usize];
        self.next += 1;
        Ok(word)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.try_next_u32()? as u64 | (self.try_next_u32()? as u64) << 32)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors published with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([!0; 2], [!0; 4]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }
}
