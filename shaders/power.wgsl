// Exponential, logarithm and power. Drivers may be off by many units in the last place there, and may simplify sums as
// if they were exact; these are polynomials on reduced arguments, and words are masked where a part has to be exact.

const LOG2_E: f32 = 1.44269504;
// ln 2 and 1/ln 2, each a part of few bits, whose products with small whole numbers and masked words are exact, and
// the rest.
const LN_2_UPPER: f32 = 0.693145751953;
const LN_2_LOWER: f32 = 1.42860677e-6;
const LOG2_E_UPPER: f32 = 1.4423828125;
const LOG2_E_LOWER: f32 = 0.000312228396;

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

fn two_to(n: i32) -> f32 { return bitcast<f32>(u32(n + 127) << 23u); }

// Arguments beyond -87 and 88 would leave the range of numbers: 0, and a huge number. A NaN stays.
fn exponential(x: f32) -> f32 {
    let bounded = clamp(x, -87.0, 88.0);
    let n = floor(bounded * LOG2_E + 0.5);
    let r = (bounded - n * LN_2_UPPER) - n * LN_2_LOWER;
    let fit = 0.500000001 + r * (0.16666577 + r * (0.041666465 + r * (0.00836317557 + r * 0.00139336435)));
    let y = two_to(i32(n)) * (1.0 + (r + r * r * fit));
    return select(select(y, 0.0, x < -87.0), x, is_nan(x));
}

// x = 2^exponent (1 + fraction) with 1 + fraction in [1/sqrt 2, sqrt 2), and the parts of its logarithm:
// ln(1 + f) = f - (square - tail) with square = f^2/2.
struct Parts { exponent: f32, fraction: f32, square: f32, tail: f32 }

// Of a positive finite number.
fn parts(x: f32) -> Parts {
    var bits = bitcast<u32>(x);
    let zeros = select(0u, countLeadingZeros(bits) - 8u, bits < 0x00800000u);
    bits = (bits << zeros) + 0x004afb0du;
    let exponent = i32(bits >> 23u) - 127 - i32(zeros);
    let f = bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0;
    // A fit of 2 atanh(s)/s - 2 in s^2, s = f/(2 + f); 1e-11.
    let s = f / (2.0 + f);
    let z = s * s;
    let fit = z * (0.666666656 + z * (0.400003373 + z * (0.28537168 + z * 0.235849874)));
    let square = 0.5 * f * f;
    return Parts(f32(exponent), f, square, s * (square + fit));
}

// The driver knows what is no logarithm.
fn logarithm(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    if (bits == 0u || bits >= 0x7f800000u) { return log(x); }
    let l = parts(x);
    return l.exponent * LN_2_UPPER - ((l.square - (l.tail + l.exponent * LN_2_LOWER)) - l.fraction);
}

// The upper half of the digits.
fn upper(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u); }

// 2^(b log2 a) for positive a. Upper halves are multiplied exactly, so that a product of about 100 keeps its fraction.
fn positive_power(a: f32, b: f32) -> f32 {
    let l = parts(a);
    let high = upper(l.fraction - l.square);
    let low = ((l.fraction - high) - l.square) + l.tail;
    let first = high * LOG2_E_UPPER;
    let log2 = l.exponent + first;
    let log2_upper = upper(log2);
    let log2_lower = ((l.exponent - log2_upper) + first) + (low * LOG2_E + high * LOG2_E_LOWER);
    // Beyond 2^33 every result is 0, 1 or too large.
    let bounded = clamp(b, -8589934592.0, 8589934592.0);
    let b_upper = upper(bounded);
    let whole = b_upper * log2_upper;
    let rest = b_upper * log2_lower + (bounded - b_upper) * (log2_upper + log2_lower);
    let n = floor(clamp(whole + rest, -160.0, 130.0) + 0.5);
    let r = clamp((whole - n) + rest, -1.0, 1.0);
    // A fit of (2^r - 1)/r; 2e-9.
    let fit = 0.693147208 + r * (0.240226514 + r * (0.0555032454 + r * (0.00961799889 + r * (0.00134015772
        + r * 0.000154777441))));
    let half = i32(n) >> 1u;
    return (1.0 + r * fit) * two_to(half) * two_to(i32(n) - half);
}

// A negative base has real powers for whole exponents alone.
fn power(a: f32, b: f32) -> f32 {
    if (b == 0.0) { return 1.0; }
    if (is_nan(b)) { return b; }
    if (is_nan(a) || abs(a) > 3.4028234e38) { return select(1.0 / a, a, b > 0.0); }
    if (a == 0.0) { return select(1.0 / (a * a), 0.0, b > 0.0); }
    if (a < 0.0 && b != floor(b)) { return log(a); }
    let size = positive_power(abs(a), b);
    let odd = abs(b) - 2.0 * floor(abs(b) * 0.5) == 1.0;
    return select(size, -size, a < 0.0 && odd);
}
