//! Damage to a file.

use eckart::Seed;
use rand::Rng;

/// What is put in the place of something else: what parsers stumble over, numbers that do not fit, expressions that take
/// long, and ways out of a folder.
const NASTY: [&[u8]; 44] = [
    b"\"",
    b"\n",
    b"\t",
    b"\\",
    b"\xFF",
    b"\x00",
    b"{",
    b"[[[[[[[[",
    b"[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"0",
    b"-1",
    b"1.5",
    b"1e308",
    b"1e999",
    b"NaN",
    b"4294967296",
    b"18446744073709551615",
    b"\"\"",
    b"[\"\"]",
    b"\\ud800",
    "\u{FEFF}".as_bytes(),
    "日".as_bytes(),
    b"<s>",
    b"{\"text\":1}",
    b"\"content\"",
    b"\"id\": 7",
    b"{\".*\": 4294967296}",
    b"\"all-linear\"",
    b"\"(a{1000}){1000}\"",
    b"\"(((((((((.*)*)*)*)*)*)*)*)*)c_attn\"",
    b"\"(?:\\\\w+\\\\.)*\\\\w{50}(q|k|v)_proj|.*\"",
    b"\"((((\"",
    b"\"\\\\p{L}{200}\\\\p{Lu}{100}\"",
    b"\"..\"",
    b"\"../outside/model.safetensors\"",
    b"\"../outside/model-00001-of-00002.safetensors\"",
    b"\"/etc/hostname\"",
    b"../outside/",
    b"{% for i in range(1000000) %}",
    b"{{ [0] * 100000000 }}",
];

/// Chance, a function of a seed and a number.
pub struct Random(eckart::rng::Stream);

impl Random {
    pub fn new(seed: u64, number: u64) -> Random {
        Random(Seed(seed).fold(number).stream())
    }

    pub fn below(&mut self, bound: usize) -> usize {
        ((self.0.next_u64() as u128 * bound.max(1) as u128) >> 64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// One damage, of a kind that chance picks.
pub fn damage(file: &mut Vec<u8>, random: &mut Random) {
    let start = random.below(file.len());
    let end = file.len().min(start + random.below(24));
    match random.below(12) {
        0 if !file.is_empty() => file[start] ^= 1 << random.below(8),
        1 if !file.is_empty() => file[start] = random.below(256) as u8,
        2 => file.truncate(start + random.below(40)),
        3 => drop(file.drain(start..end)),
        4 => file.insert(start, random.below(256) as u8),
        5 => {
            let part = file[start..file.len().min(start + random.below(200))].to_vec();
            let to = random.below(file.len() + 1);
            file.splice(to..to, part);
        }
        6 => drop(file.splice(start..end, file[start..end].repeat(1 + random.below(40)))),
        7 => drop(file.splice(start..start, std::iter::repeat_n(b'[', random.below(3000)))),
        8 => number(file, random),
        9 | 10 => value(file, random),
        _ => drop(file.splice(start..end, random.pick(&NASTY).expect("there are some").iter().copied())),
    }
}

/// Another number in the place of a digit, which is most often one of sizes or places.
fn number(file: &mut Vec<u8>, random: &mut Random) {
    let digits: Vec<usize> = (0..file.len().min(3000)).filter(|i| file[*i].is_ascii_digit()).collect();
    let Some(&digit) = random.pick(&digits) else { return };
    let many = ["0", "9", "4294967296", "18446744073709551615", "-3", "1e9"];
    file.splice(digit..=digit, many[random.below(many.len())].bytes());
}

/// Another value behind a colon, which leaves a text one more often than not.
fn value(file: &mut Vec<u8>, random: &mut Random) {
    let colons: Vec<usize> = (0..file.len()).filter(|i| file[*i] == b':').collect();
    let Some(&colon) = random.pick(&colons) else { return };
    let end = file[colon..].iter().position(|b| [b',', b'}', b'\n'].contains(b)).map_or(file.len(), |i| colon + i);
    file.splice(colon + 1..end, random.pick(&NASTY).expect("there are some").iter().copied());
}
