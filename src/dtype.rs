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
    f16, F16, f16::from_f64, f16::to_f64;
    bf16, BF16, bf16::from_f64, bf16::to_f64;
    u32, U32, |x| x as u32, |x| x as f64;
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
