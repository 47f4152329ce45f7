//! Numbers of eight bits with an exponent of varying length: dynamic tree quantisation (Dettmers, "8-bit approximations
//! for parallelism in deep learning", 2016), as the states of optimizers are stored in.

use crate::scalar::Float;

/// The 256 numbers of dynamic trees, smallest first.
#[derive(Clone, Debug)]
pub struct Dynamic<T>([T; 256]);

/// The middle of part `j` of `parts` equal ones of [0.1, 1], times a power of ten: as `shaders/adam_8bit.wgsl` has it
/// to a unit in the last place.
fn number(exponent: u32, j: u32, parts: u32) -> f32 {
    let power = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0][exponent as usize];
    (power * (0.1 + 0.9 * ((f64::from(j) + 0.5) / f64::from(parts)))) as f32
}

/// Number `code` of the map with a sign, from −0.993 to 1.
fn signed(code: u32) -> f32 {
    let magnitude = |place: u32| {
        let exponent = (place + 1).ilog2();
        number(exponent, place + 1 - (1 << exponent), 1 << exponent)
    };
    match code {
        0..127 => -magnitude(126 - code),
        127 => 0.0,
        128..255 => magnitude(code - 128),
        _ => 1.0,
    }
}

/// Number `code` of the map without, from 0 to 1: a bit more for each power of ten.
fn unsigned(code: u32) -> f32 {
    match code {
        0 => 0.0,
        1..255 => {
            let exponent = (code + 1).ilog2() - 1;
            number(exponent, code + 1 - (2 << exponent), 2 << exponent)
        }
        _ => 1.0,
    }
}

impl<T: Float> Dynamic<T> {
    /// Those from −0.993 to 1.
    pub fn signed() -> Dynamic<T> {
        Dynamic(std::array::from_fn(|code| T::of(signed(code as u32).into())))
    }

    /// Those from 0 to 1.
    pub fn unsigned() -> Dynamic<T> {
        Dynamic(std::array::from_fn(|code| T::of(unsigned(code as u32).into())))
    }

    /// The number of a code.
    #[inline(always)]
    pub fn number(&self, code: u32) -> T {
        self.0[(code & 255) as usize]
    }

    /// The code of the nearest number, the lower one in the middle of two.
    #[inline(always)]
    pub fn code(&self, x: T) -> u32 {
        let mut code = 0;
        for bit in (0..8).rev() {
            let next = code | 1 << bit;
            if x > (self.0[next - 1] + self.0[next]) * T::of(0.5) {
                code = next;
            }
        }
        code as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that the published recipe gives, by a script that knows nothing of this crate.
    #[test]
    fn numbers_are_those_of_the_recipe() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/adam_8bit.json")).unwrap();
        for (name, map) in [("signed", Dynamic::<f32>::signed()), ("unsigned", Dynamic::unsigned())] {
            let expected: Vec<f32> = serde_json::from_value(file[name].clone()).unwrap();
            assert_eq!(map.0.to_vec(), expected, "{name}");
            assert!(map.0.is_sorted());
        }
    }

    #[test]
    fn codes_are_of_the_nearest() {
        for map in [Dynamic::<f64>::signed(), Dynamic::unsigned()] {
            let distance = |x: f64, code: usize| (x - map.0[code]).abs();
            for x in (0..4000).map(|i| (f64::from(i) * 0.7).sin().powi(5)) {
                let least = (0..256).map(|code| distance(x, code)).fold(f64::INFINITY, f64::min);
                assert_eq!(distance(x, map.code(x) as usize), least, "{x}");
            }
            for code in 0..256 {
                assert_eq!(map.code(map.number(code)), code);
            }
            let middle = (map.0[3] + map.0[4]) * 0.5;
            assert_eq!(map.code(middle), 3);
        }
    }
}
