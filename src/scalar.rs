//! Arithmetic that kernels are written in: one formula serves f32, f64 and [`Dual`] numbers.
//!
//! In f32 the functions are branch-free polynomials, so that loops over them vectorise; in f64 they are the
//! library's, because double precision is where derivatives are proven.

use crate::dtype::Element;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A real number to compute with.
pub trait Real:
    Copy
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    /// Rounds a constant.
    fn of(x: f64) -> Self;
    /// `self * a + b`, rounded once where the machine can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// eˣ; beyond the range of the type, 0 or a huge number, never infinity in f32.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Sine, in radians.
    fn sin(self) -> Self;
    /// Cosine, in radians.
    fn cos(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function, 2/√π ∫₀ˣ e^(−t²) dt.
    fn erf(self) -> Self;

    /// 0.
    #[inline(always)]
    fn zero() -> Self {
        Self::of(0.0)
    }
    /// 1.
    #[inline(always)]
    fn one() -> Self {
        Self::of(1.0)
    }
    /// Absolute value.
    #[inline(always)]
    fn abs(self) -> Self {
        if self < Self::zero() { -self } else { self }
    }
    /// The larger; a NaN on the left stays.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self < other { other } else { self }
    }
    /// The smaller; a NaN on the left stays.
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        if self > other { other } else { self }
    }
    /// 1 / (1 + e⁻ˣ).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).exp())
    }
    /// Normal distribution function Φ(x) = (1 + erf(x/√2))/2.
    #[inline(always)]
    fn normal_cdf(self) -> Self {
        Self::of(0.5) * (Self::one() + (self * Self::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
    }
    /// Normal density e^(−x²/2)/√(2π).
    #[inline(always)]
    fn normal_pdf(self) -> Self {
        Self::of(NORMAL) * (Self::of(-0.5) * self * self).exp()
    }
    /// Σ cᵢ selfⁱ, by Horner's rule.
    #[inline(always)]
    fn polynomial<const N: usize>(self, c: [f64; N]) -> Self {
        c.iter().rev().fold(Self::zero(), |sum, &c| sum.mul_add(self, Self::of(c)))
    }
}

/// 1/√(2π).
pub const NORMAL: f64 = 0.398_942_280_401_432_7;

/// A [`Real`] that storages hold.
pub trait Float: Element + Real {}
impl Float for f32 {}
impl Float for f64 {}

impl Real for f64 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        f64::mul_add(self, a, b)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn sin(self) -> Self {
        f64::sin(self)
    }
    #[inline(always)]
    fn cos(self) -> Self {
        f64::cos(self)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }
    #[inline(always)]
    fn erf(self) -> Self {
        libm::erf(self)
    }
}

/// Least-squares fits of this crate at Chebyshev nodes; errors relative to the function.
mod fit {
    /// (eʳ − 1 − r)/r² for |r| ≤ ln 2 / 2; 8e-9.
    pub const EXP: [f64; 5] = [0.500000001, 0.16666577, 0.041666465, 0.00836317557, 0.00139336435];
    /// (tanh x − x)/x³ in x², for |x| ≤ 0.64; 2e-8.
    pub const TANH: [f64; 5] = [-0.333333281, 0.13332679, -0.0538370165, 0.0209314241, -0.0060018006];
    /// erf(x)/x in x², for |x| ≤ 1; 1e-9.
    pub const ERF: [f64; 7] = [
        std::f64::consts::FRAC_2_SQRT_PI,
        -0.376126269,
        0.112835975,
        -0.0268543288,
        0.00518931194,
        -0.000801885499,
        7.88249711e-5,
    ];
    /// erfc(x) e^(x²) in 1/(1 + 0.4 x), for 1 ≤ x ≤ 4.2; 6e-9.
    pub const ERFC: [f64; 7] =
        [-0.0012745654, 0.243093247, 0.125017167, 0.524660261, -0.407958755, 0.71186618, -0.195258169];
    /// Φ(−x) e^(x²/2) in 1/(1 + 0.3 x), for 0 ≤ x ≤ 12; 6e-8.
    pub const TAIL: [f64; 9] = [
        4.74279743e-6,
        0.119528295,
        0.121634993,
        0.0957847141,
        0.13997793,
        -0.0728371325,
        0.225476596,
        -0.167635263,
        0.0380651518,
    ];
}

impl Real for f32 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        f32::mul_add(self, a, b)
    }
    /// 2ⁿ eʳ with r = x − n ln 2; adding 1.5·2²³ leaves n in the low bits, ready to become an exponent.
    #[inline(always)]
    fn exp(self) -> Self {
        const SHIFT: f32 = 12_582_912.0;
        let x = if self > 88.0 { 88.0 } else { self };
        let shifted = Real::mul_add(x, std::f32::consts::LOG2_E, SHIFT);
        let n = shifted - SHIFT;
        let r = Real::mul_add(n, -1.428_606_8e-6, Real::mul_add(n, -0.693_145_75, x));
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        let y = power * Real::mul_add(r * r, r.polynomial(fit::EXP), r + 1.0);
        if x < -87.0 { 0.0 } else { y }
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn sin(self) -> Self {
        f32::sin(self)
    }
    #[inline(always)]
    fn cos(self) -> Self {
        f32::cos(self)
    }
    /// A polynomial near 0, where 1 − 2/(e²ˣ + 1) would cancel.
    #[inline(always)]
    fn tanh(self) -> Self {
        let z = self * self;
        let near = Real::mul_add(self * z, z.polynomial(fit::TANH), self);
        let e = Real::exp(-2.0 * self.abs());
        let far = ((1.0 - e) / (1.0 + e)).copysign(self);
        if self.abs() < 0.64 { near } else { far }
    }
    #[inline(always)]
    fn erf(self) -> Self {
        let x = self.abs();
        let z = self * self;
        let near = self * z.polynomial(fit::ERF);
        let tail = (1.0 / Real::mul_add(x, 0.4, 1.0)).polynomial(fit::ERFC) * Real::exp(-z);
        let far = (1.0 - if x > 4.2 { 0.0 } else { tail }).copysign(self);
        if x < 1.0 { near } else { far }
    }
    /// One fit for all x: unlike erf, it does not vanish at 0. Its exponential is also the density's.
    #[inline(always)]
    fn normal_cdf(self) -> Self {
        let t = 1.0 / Real::mul_add(self.abs(), 0.3, 1.0);
        let tail = t.polynomial(fit::TAIL) * Real::exp(-0.5 * self * self);
        if self < 0.0 { tail } else { 1.0 - tail }
    }
}

/// A number and its derivative along one direction: running a kernel's formula on it gives the kernel's tangent.
#[derive(Clone, Copy, Debug)]
pub struct Dual<T> {
    /// The number.
    pub value: T,
    /// Its derivative.
    pub tangent: T,
}

impl<T: Real> Dual<T> {
    /// A number that does not change.
    #[inline(always)]
    pub fn constant(value: T) -> Self {
        Dual { value, tangent: T::zero() }
    }

    #[inline(always)]
    fn chain(value: T, slope: T, tangent: T) -> Self {
        Dual { value, tangent: slope * tangent }
    }
}

impl<T: Real> PartialEq for Dual<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Comparisons choose the branch, so they look at values alone.
impl<T: Real> PartialOrd for Dual<T> {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.value.partial_cmp(&other.value)
    }
    #[inline(always)]
    fn lt(&self, other: &Self) -> bool {
        self.value < other.value
    }
    #[inline(always)]
    fn gt(&self, other: &Self) -> bool {
        self.value > other.value
    }
}

impl<T: Real> Add for Dual<T> {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Dual { value: self.value + o.value, tangent: self.tangent + o.tangent }
    }
}

impl<T: Real> AddAssign for Dual<T> {
    #[inline(always)]
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl<T: Real> Sub for Dual<T> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        Dual { value: self.value - o.value, tangent: self.tangent - o.tangent }
    }
}

impl<T: Real> Mul for Dual<T> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        Dual { value: self.value * o.value, tangent: self.value.mul_add(o.tangent, self.tangent * o.value) }
    }
}

impl<T: Real> Div for Dual<T> {
    type Output = Self;
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        let value = self.value / o.value;
        Dual { value, tangent: (self.tangent - value * o.tangent) / o.value }
    }
}

impl<T: Real> Neg for Dual<T> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Dual { value: -self.value, tangent: -self.tangent }
    }
}

impl<T: Real> Real for Dual<T> {
    #[inline(always)]
    fn of(x: f64) -> Self {
        Dual::constant(T::of(x))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        let tangent = self.value.mul_add(a.tangent, self.tangent.mul_add(a.value, b.tangent));
        Dual { value: self.value.mul_add(a.value, b.value), tangent }
    }
    #[inline(always)]
    fn exp(self) -> Self {
        let y = self.value.exp();
        Dual::chain(y, y, self.tangent)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        Dual::chain(self.value.ln(), T::one() / self.value, self.tangent)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        let y = self.value.sqrt();
        Dual::chain(y, T::of(0.5) / y, self.tangent)
    }
    #[inline(always)]
    fn sin(self) -> Self {
        Dual::chain(self.value.sin(), self.value.cos(), self.tangent)
    }
    #[inline(always)]
    fn cos(self) -> Self {
        Dual::chain(self.value.cos(), -self.value.sin(), self.tangent)
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        let y = self.value.tanh();
        Dual::chain(y, T::one() - y * y, self.tangent)
    }
    #[inline(always)]
    fn erf(self) -> Self {
        let slope = T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-self.value * self.value).exp();
        Dual::chain(self.value.erf(), slope, self.tangent)
    }
    #[inline(always)]
    fn normal_cdf(self) -> Self {
        Dual::chain(self.value.normal_cdf(), self.value.normal_pdf(), self.tangent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest |approximation − function| / max(|function|, floor) over a grid.
    fn worst(range: std::ops::Range<f64>, floor: f64, f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let at = |i: usize| (range.start + (range.end - range.start) * i as f64 / 1e5) as f32;
        let error = |x: f32| (f(x) as f64 - exact(x as f64)).abs() / exact(x as f64).abs().max(floor);
        (0..=100_000).map(|i| error(at(i))).fold(0.0, f64::max)
    }

    #[test]
    fn f32_functions_are_within_a_few_units_in_the_last_place() {
        assert!(worst(-86.0..88.0, 1e-37, Real::exp, f64::exp) < 2e-7);
        assert!(worst(-12.0..12.0, 1e-30, Real::tanh, f64::tanh) < 3e-7);
        assert!(worst(-6.0..6.0, 1e-30, Real::erf, libm::erf) < 3e-7);
        let cdf = worst(-12.0..12.0, 0.1, Real::normal_cdf, Real::normal_cdf);
        assert!(cdf < 5e-7, "{cdf:e}");
    }

    #[test]
    fn exp_keeps_nan_and_never_makes_infinity() {
        assert!(Real::exp(f32::NAN).is_nan());
        assert_eq!(Real::exp(-3.4e38_f32), 0.0);
        assert!(Real::exp(3.4e38_f32).is_finite());
    }
}
