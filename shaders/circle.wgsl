// Sine and cosine for any argument: drivers promise an absolute error of 2^-11 within [-pi, pi] and nothing beyond.

//!import wide

// pi/2 in three parts; products of the first two, of 12 bits, with whole numbers below 2^12 are exact.
const QUARTER_FIRST: f32 = 1.5703125;
const QUARTER_SECOND: f32 = 0.000483751297;
const QUARTER_THIRD: f32 = 7.54979013e-8;

// x = rest + quarters pi/2 with |rest| <= pi/4, up to whole turns.
struct Turn { rest: f32, quarters: u32 }

fn turn(x: f32) -> Turn {
    if (abs(x) > 6000.0) { return long_turn(x); }
    let n = floor(x * 0.636619772 + 0.5);
    let rest = ((x - n * QUARTER_FIRST) - n * QUARTER_SECOND) - n * QUARTER_THIRD;
    return Turn(rest, u32(i32(n)));
}

// The same for long arguments (Payne & Hanek 1983): x is a whole number m of 24 bits times a power of 2, so of the
// digits of 2/pi only 96 matter: those before give whole turns, those behind too little.
fn long_turn(x: f32) -> Turn {
    var digits = array<u32, 8>(
        0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu,
    );
    let bits = bitcast<u32>(x) & 0x7fffffffu;
    if (bits >= 0x7f800000u) { return Turn(bitcast<f32>(bits | 0x7fc00000u), 0u); }
    let m = (bits & 0x7fffffu) | 0x800000u;
    // The first of them counts two quarters. The array begins 32 digits before the point.
    let start = (bits >> 23u) - 150u + 30u;
    let at = start / 32u;
    let shift = start % 32u;
    var part = vec3(digits[at], digits[at + 1u], digits[at + 2u]);
    if (shift > 0u) {
        let next = vec3(part.y, part.z, digits[at + 3u]);
        part = (part << vec3(shift)) | (next >> vec3(32u - shift));
    }
    let middle = wide(m, part.y);
    let lower = middle.x + wide(m, part.z).y;
    var upper = m * part.x + middle.y + select(0u, 1u, lower < middle.x);
    let quarters = (upper + 0x20000000u) >> 30u;
    upper -= quarters << 30u;
    // What is left has a sign now.
    let negative = upper >= 0x80000000u;
    let size = select(vec2(upper, lower), vec2(~upper, ~lower), negative);
    // pi/2 over 2^30 and 2^62.
    let rest = f32(size.x) * 1.46291808e-9 + f32(size.y) * 3.40612159e-19;
    let forward = Turn(select(rest, -rest, negative), quarters);
    return Turn(select(forward.rest, -forward.rest, x < 0.0), select(quarters, 0u - quarters, x < 0.0));
}

// Of an angle, for an even number of quarters its sine, else its cosine; fits for |rest| <= pi/4, 5e-12.
fn swing(angle: Turn) -> f32 {
    let r = angle.rest;
    let z = r * r;
    let sine = r + r * z * (-0.166666666 + z * (0.00833332915 + z * (-0.00019839257 + z * 2.71756823e-6)));
    let cosine = (1.0 - 0.5 * z)
        + z * z * (0.0416666666 + z * (-0.00138888834 + z * (2.47994369e-5 - z * 2.72033405e-7)));
    let size = select(sine, cosine, (angle.quarters & 1u) == 1u);
    return select(size, -size, (angle.quarters & 2u) == 2u);
}

fn sine(x: f32) -> f32 { return swing(turn(x)); }

fn cosine(x: f32) -> f32 {
    let angle = turn(x);
    return swing(Turn(angle.rest, angle.quarters + 1u));
}
