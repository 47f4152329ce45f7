//! Element types of storages, and the two traits kernels are generic over.

use bytemuck::Pod;
pub use half::{bf16, f16};

/// What a storage holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Single precision: the type of training.
    F32,
    /// Double precision, on the CPU only: the type of derivative proofs.
    F64,
    /// Half precision, for storage: cast before computing.
    F16,
    /// Brain float, for storage: cast before computing.
    BF16,
    /// Indices, targets and masks.
    U32,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// Whether arithmetic is defined on it.
    pub const fn computes(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    /// Lower-case name, as in messages and files.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U32 => "u32",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that a storage can hold.
pub trait Element: Pod + Send + Sync + std::fmt::Debug + PartialEq + 'static {
    /// Its tag.
    const DTYPE: DType;
    /// Rounds from double precision; indices truncate.
    fn from_f64(x: f64) -> Self;
    /// Widens to double precision.
    fn to_f64(self) -> f64;
}

macro_rules! element {
    ($($t:ty, $dtype:ident, $from:expr, $to:expr;)*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_f64(x: f64) -> Self { $from(x) }
            #[inline(always)]
            fn to_f64(self) -> f64 { $to(self) }
        }
    )*};
}
element! {
    f32, F32, |x| x as f32, |x| x as f64;
    f64, F64, |x| x, |x| x;
    f16, F16, |x| f16::from_f32(to_odd(x)), f16::to_f64;
    bf16, BF16, |x| bf16::from_f32(to_odd(x)), bf16::to_f64;
    u32, U32, |x| x as u32, |x| x as f64;
}

/// The single-precision number next to `x`, the one with an odd last bit where there is a choice: rounding that to fewer
/// bits gives what rounding `x` would. Conversions of `half` from double precision look at 20 bits of the mantissa only.
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || x.is_nan() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

/// Runs a block with `$t` standing for the element type of a computing `dtype`.
#[macro_export]
macro_rules! float {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::DType::F64 => {
                type $t = f64;
                $body
            }
            other => panic!("no arithmetic on {other}: cast to f32 first"),
        }
    };
}

/// Runs a block with `$t` standing for the element type of any `dtype`.
#[macro_export]
macro_rules! element {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F16 => {
                type $t = $crate::dtype::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $t = $crate::dtype::bf16;
                $body
            }
            $crate::DType::U32 => {
                type $t = u32;
                $body
            }
            other => $crate::float!(other, $t => $body),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ties of brain floats and halves, and what lies next to them.
    #[test]
    fn narrow_types_round_to_nearest_even() {
        for (x, want) in
            [(0x3f80_8000_u32, 0x3f80), (0x3f80_8001, 0x3f81), (0x3f81_8000, 0x3f82), (0x3f80_7fff, 0x3f80)]
        {
            assert_eq!(<bf16 as Element>::from_f64(f32::from_bits(x).into()).to_bits(), want, "{x:x}");
        }
        let tie = 1.0 + 2_f64.powi(-11);
        for (x, want) in [(tie, 0x3c00), (tie + 2_f64.powi(-50), 0x3c01), (tie - 2_f64.powi(-50), 0x3c00)] {
            assert_eq!(<f16 as Element>::from_f64(x).to_bits(), want, "{x}");
        }
        assert_eq!(<f16 as Element>::from_f64(-1e300), f16::NEG_INFINITY);
        assert_eq!(<bf16 as Element>::from_f64(1e300), bf16::INFINITY);
        assert_eq!(<bf16 as Element>::from_f64(-1e-300).to_bits(), 0x8000);
    }
}
