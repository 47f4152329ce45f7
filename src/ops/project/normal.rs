//! Normal numbers from random words, by the inverse of their distribution: one formula without sine, cosine or the
//! library's logarithm, so that `shaders/entries.wgsl` has the same and loops over it are vectorised.

use crate::scalar::Real;

/// A normal number by √2: erf⁻¹ of (2k + 1)/2²⁴ − 1, where k is the upper 24 bits of a word. Antisymmetric, and never
/// of ±1.
#[inline(always)]
pub(super) fn normal(word: u32) -> f32 {
    let odd = 2 * (word >> 8) as i32 + 1 - (1 << 24);
    erfinv(odd as f32 * (1.0 / (1 << 24) as f32))
}

/// erf⁻¹(u) for |u| < 1: Giles (2010), single precision, both branches.
#[inline(always)]
fn erfinv(u: f32) -> f32 {
    const NEAR: [f32; 9] = [
        1.501_409_4,
        0.246_640_73,
        -0.004_177_681_6,
        -0.001_253_725,
        0.000_218_580_87,
        -4.391_506_5e-6,
        -3.523_387_7e-6,
        3.432_739_4e-7,
        2.810_226_4e-8,
    ];
    const FAR: [f32; 9] = [
        2.832_976_8,
        1.001_674,
        0.009_438_870_5,
        -0.007_622_461_3,
        0.005_739_507_7,
        -0.003_673_428_4,
        0.001_349_343_2,
        0.000_100_950_56,
        -0.000_200_214_26,
    ];
    let w = minus_ln((1.0 - u) * (1.0 + u));
    let near = horner(NEAR, w - 2.5);
    let far = horner(FAR, w.sqrt() - 3.0);
    u * if w < 5.0 { near } else { far }
}

/// −ln x of a normal number, branch-free: Cephes' logf (Moshier).
#[inline(always)]
fn minus_ln(x: f32) -> f32 {
    const C: [f32; 9] = [
        0.333_333_3,
        -0.249_999_94,
        0.200_007_14,
        -0.166_680_58,
        0.142_493_23,
        -0.124_201_41,
        0.116_769_984,
        -0.115_146_1,
        0.070_376_836,
    ];
    // x = 2ⁿ m with m from √½ to √2.
    let n = (x.to_bits().wrapping_sub(0x3f35_04f3) as i32) >> 23;
    let f = f32::from_bits(x.to_bits().wrapping_sub((n as u32) << 23)) - 1.0;
    let n = n as f32;
    let tail = Real::mul_add(-0.5 * f, f, Real::mul_add(horner(C, f), f * f * f, n * -2.121_944_4e-4));
    Real::mul_add(n, -0.693_359_4, -(f + tail))
}

/// Σ cᵢ xⁱ.
#[inline(always)]
fn horner<const N: usize>(c: [f32; N], x: f32) -> f32 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = Real::mul_add(sum, x, c[i]);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf of it is the number again, within what single precision can tell: erf is flat far out.
    #[test]
    fn erfinv_inverts_erf() {
        let mut worst = 0.0_f64;
        for word in (0..=u32::MAX).step_by(4099).chain([0, u32::MAX, 1 << 31]) {
            let x = f64::from(normal(word));
            let u = (2.0 * f64::from(word >> 8) + 1.0) / 2_f64.powi(24) - 1.0;
            // Newton's step from there to the exact inverse; 1 − |u| has few digits, but exact ones.
            let (slope, side) = (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(), u.signum());
            let miss = if u.abs() < 0.5 { libm::erf(x) - u } else { side * (1.0 - side * u - libm::erfc(side * x)) };
            worst = worst.max((miss / slope / x).abs());
        }
        assert!(worst < 5e-7, "{worst:e}");
    }

    #[test]
    fn normal_numbers_are_antisymmetric_and_finite() {
        for word in (0..1 << 31).step_by(100_003).chain([0]) {
            assert_eq!(normal(word), -normal(!word));
            assert!(normal(word) < 0.0 && normal(word) > -4.0);
        }
    }

    #[test]
    fn logarithms_are_accurate() {
        for i in 1..100_000 {
            let x = i as f32 / 1e5;
            let exact = -f64::from(x).ln();
            assert!((f64::from(minus_ln(x)) - exact).abs() <= 1.5e-7 * exact.max(0.1), "{x}");
        }
    }
}
