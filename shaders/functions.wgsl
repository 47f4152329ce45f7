// Functions of single numbers, for elementwise.wgsl. `NAME_value` is the function, `NAME_scaled` is `c` times its slope
// at `s`: at the argument, or at the value where the slope is a formula in that. Same formulas as src/ops/unary.rs and
// src/scalar.rs, with the same fitted polynomials.

//!import power
//!import circle

const PI: f32 = 3.14159265358979;
// 1/√2, 2/√π, 1/√(2π), √(2/π) and GPT-2's coefficient of x³.
const SQRT_HALF: f32 = 0.70710678118654752;
const TWO_OVER_SQRT_PI: f32 = 1.1283791670955126;
const NORMAL: f32 = 0.3989422804014327;
const GATE: f32 = 0.7978845608028654;
const CUBIC: f32 = 0.044715;

// ---- exponentials

fn logistic(x: f32) -> f32 { return 1.0 / (1.0 + exponential(-x)); }

fn exp_value(x: f32) -> f32 { return exponential(x); }
fn exp_scaled(c: f32, s: f32) -> f32 { return c * s; }

fn log_value(x: f32) -> f32 { return logarithm(x); }
fn log_scaled(c: f32, s: f32) -> f32 { return c / s; }

fn sigmoid_value(x: f32) -> f32 { return logistic(x); }
fn sigmoid_scaled(c: f32, s: f32) -> f32 { return c * s * (1.0 - s); }

// A polynomial near 0, where 1 − 2/(e²ˣ + 1) would cancel.
fn tanh_value(x: f32) -> f32 {
    let z = x * x;
    let fit = -0.333333281 + z * (0.13332679 + z * (-0.0538370165 + z * (0.0209314241 - z * 0.0060018006)));
    let e = exponential(-2.0 * abs(x));
    let far = sign(x) * (1.0 - e) / (1.0 + e);
    return select(far, x + x * z * fit, abs(x) < 0.64);
}
fn tanh_scaled(c: f32, s: f32) -> f32 { return c * (1.0 - s * s); }

// ---- roots

fn sqrt_value(x: f32) -> f32 { return sqrt(x); }
fn sqrt_scaled(c: f32, s: f32) -> f32 { return c * 0.5 / s; }

fn rsqrt_value(x: f32) -> f32 { return 1.0 / sqrt(x); }
fn rsqrt_scaled(c: f32, s: f32) -> f32 { return c * -0.5 * s * s * s; }

// ---- circle

fn sin_value(x: f32) -> f32 { return sine(x); }
fn sin_scaled(c: f32, s: f32) -> f32 { return c * cosine(s); }

fn cos_value(x: f32) -> f32 { return cosine(x); }
fn cos_scaled(c: f32, s: f32) -> f32 { return -c * sine(s); }

// ---- normal distribution

// A fit of erf(x)/x in x² to 1, of erfc(x) e^(x²) in 1/(1 + 0.4 x) beyond.
fn erf_value(x: f32) -> f32 {
    let z = x * x;
    let near = x * (TWO_OVER_SQRT_PI + z * (-0.376126269 + z * (0.112835975 + z * (-0.0268543288
        + z * (0.00518931194 + z * (-0.000801885499 + z * 7.88249711e-5))))));
    let t = 1.0 / (1.0 + 0.4 * abs(x));
    let tail = (-0.0012745654 + t * (0.243093247 + t * (0.125017167 + t * (0.524660261 + t * (-0.407958755
        + t * (0.71186618 - t * 0.195258169)))))) * exponential(-z);
    let far = sign(x) * (1.0 - select(tail, 0.0, abs(x) > 4.2));
    return select(far, near, abs(x) < 1.0);
}
fn erf_scaled(c: f32, s: f32) -> f32 { return c * TWO_OVER_SQRT_PI * exponential(-s * s); }

// Φ(x), by a fit of Φ(−x) e^(x²/2) in 1/(1 + 0.3 x).
fn normal_cdf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3 * abs(x));
    let tail = (4.74279743e-6 + t * (0.119528295 + t * (0.121634993 + t * (0.0957847141 + t * (0.13997793
        + t * (-0.0728371325 + t * (0.225476596 + t * (-0.167635263 + t * 0.0380651518))))))))
        * exponential(-0.5 * x * x);
    return select(1.0 - tail, tail, x < 0.0);
}
fn normal_pdf(x: f32) -> f32 { return NORMAL * exponential(-0.5 * x * x); }

fn gelu_value(x: f32) -> f32 { return x * normal_cdf(x); }
fn gelu_scaled(c: f32, s: f32) -> f32 { return c * (s * normal_pdf(s) + normal_cdf(s)); }

// (1 + tanh z)/2 with the z of GPT-2's form, as σ(2z).
fn gate(x: f32) -> f32 { return logistic(x * (2.0 * CUBIC * GATE * x * x + 2.0 * GATE)); }
fn gelu_tanh_value(x: f32) -> f32 { return x * gate(x); }
fn gelu_tanh_scaled(c: f32, s: f32) -> f32 {
    let g = gate(s);
    let inner = 6.0 * CUBIC * GATE * s * s + 2.0 * GATE;
    return c * (g * (1.0 - g) * s * inner + g);
}

// ---- pieces

fn abs_value(x: f32) -> f32 { return abs(x); }
fn abs_scaled(c: f32, s: f32) -> f32 { return c * sign(s); }

fn sign_value(x: f32) -> f32 { return sign(x); }
fn sign_scaled(c: f32, s: f32) -> f32 { return 0.0; }

fn relu_value(x: f32) -> f32 { return select(x, 0.0, x < 0.0); }
fn relu_scaled(c: f32, s: f32) -> f32 { return select(0.0, c, s > 0.0); }

fn silu_value(x: f32) -> f32 { return x * logistic(x); }
fn silu_scaled(c: f32, s: f32) -> f32 {
    let g = logistic(s);
    return c * g * (1.0 + s * (1.0 - g));
}

// ---- two operands

fn plus_f32(a: f32, b: f32) -> f32 { return a + b; }
fn minus_f32(a: f32, b: f32) -> f32 { return a - b; }
fn times_f32(a: f32, b: f32) -> f32 { return a * b; }
fn over_f32(a: f32, b: f32) -> f32 { return a / b; }
fn maximum_f32(a: f32, b: f32) -> f32 { return select(a, b, a < b); }
fn minimum_f32(a: f32, b: f32) -> f32 { return select(a, b, a > b); }
fn pow_f32(a: f32, b: f32) -> f32 { return power(a, b); }

fn at_least_f32(a: f32, b: f32) -> u32 { return select(0u, 1u, a >= b); }
fn greater_f32(a: f32, b: f32) -> u32 { return select(0u, 1u, a > b); }
fn less_f32(a: f32, b: f32) -> u32 { return select(0u, 1u, a < b); }
fn equal_f32(a: f32, b: f32) -> u32 { return select(0u, 1u, a == b); }
fn at_least_u32(a: u32, b: u32) -> u32 { return select(0u, 1u, a >= b); }
fn greater_u32(a: u32, b: u32) -> u32 { return select(0u, 1u, a > b); }
fn less_u32(a: u32, b: u32) -> u32 { return select(0u, 1u, a < b); }
fn equal_u32(a: u32, b: u32) -> u32 { return select(0u, 1u, a == b); }

fn select_f32(a: f32, b: f32, mask: u32) -> f32 { return select(b, a, mask != 0u); }
fn select_u32(a: u32, b: u32, mask: u32) -> u32 { return select(b, a, mask != 0u); }

// ---- one word as another

fn copy_u32(x: u32) -> u32 { return x; }
fn to_f32(x: u32) -> f32 { return f32(x); }
fn to_u32(x: f32) -> u32 { return select(u32(clamp(x, 0.0, 4294967040.0)), 0xffffffffu, x >= 4294967296.0); }
