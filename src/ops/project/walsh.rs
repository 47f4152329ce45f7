//! Walsh functions, for projections whose rows are orthogonal: function k has the sign of the parity of k ∧ j at place j.

use super::{Entries, Project};

/// Which Walsh function each row of a group has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Rows of a group, a power of two.
    pub group: usize,
    /// Half the bits of a row's number, rounded up.
    pub shift: u32,
    /// Odd factor, summand, odd factor, summand.
    pub words: [u32; 4],
}

impl Order {
    /// Row `i` of a group, for i below the group's size: a permutation, since each of its steps is one.
    pub fn function(&self, i: usize) -> u32 {
        let [first, plus, second, more] = self.words;
        let mask = (self.group - 1) as u32;
        let mut k = (i as u32).wrapping_mul(first).wrapping_add(plus) & mask;
        k ^= k >> self.shift;
        k.wrapping_mul(second).wrapping_add(more) & mask
    }
}

impl Project {
    /// Of signs alone: functions of rows, all the same in groups of one.
    pub(super) fn order(&self) -> Order {
        let group = match self.random.entries {
            Entries::Walsh => 1 << self.size.trailing_zeros().min(31),
            _ => 1,
        };
        let [first, plus, second, more] = self.random.seed.named("order").block(0);
        Order { group, shift: group.trailing_zeros().div_ceil(2), words: [first | 1, plus, second | 1, more] }
    }
}

/// A Walsh function's parities at places 32 `word` to 32 `word` + 31, the lowest bit first.
#[inline(always)]
pub(super) fn parities(function: u32, word: u32) -> u32 {
    const LOW: [u32; 5] = [0xAAAA_AAAA, 0xCCCC_CCCC, 0xF0F0_F0F0, 0xFF00_FF00, 0xFFFF_0000];
    let high = ((function >> 5 & word).count_ones() & 1).wrapping_neg();
    LOW.iter().enumerate().fold(high, |sum, (bit, mask)| sum ^ mask & (function >> bit & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::project::Random;
    use crate::rng::Seed;

    #[test]
    fn parities_are_those_of_the_bits_in_common() {
        for function in (0..2000).step_by(37) {
            for place in 0..256 {
                let bit = parities(function, place / 32) >> (place % 32) & 1;
                assert_eq!(bit, (function & place).count_ones() & 1, "function {function} at {place}");
            }
        }
    }

    #[test]
    fn every_row_of_a_group_has_a_function_of_its_own() {
        for size in [1, 2, 6, 32, 96, 1024] {
            let random = Random { entries: Entries::Walsh, rank: 1, seed: Seed(size as u64) };
            let order = Project::whole(random, 0, size, false).order();
            assert!(size % order.group == 0 && (size / order.group) % 2 == 1);
            let functions: std::collections::BTreeSet<u32> = (0..order.group).map(|i| order.function(i)).collect();
            assert_eq!(functions, (0..order.group as u32).collect());
        }
    }
}
