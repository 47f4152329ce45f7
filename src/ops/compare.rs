//! Comparisons, which give masks (u32, 1 where true), selection by a mask, and casts between element types.

use super::{Input, Op, Outputs, Sample, binary, elementwise};
use crate::autograd::{Derivative, Rule, Saved, Saves, Transpose};
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::element;
use crate::tensor::Tensor;

macro_rules! comparisons {
    ($($(#[$doc:meta])* $method:ident $name:ident |$a:ident, $b:ident| $value:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($method), "`, see [`Tensor::", stringify!($method), "`].")]
            #[derive(Debug)]
            pub struct $name;

            impl Op for $name {
                fn name(&self) -> &'static str {
                    stringify!($method)
                }
                fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
                    Ok(Spec { dtype: DType::U32, ..binary::broadcast(ins)? })
                }
                fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
                    element!(ins[0].dtype(), T => {
                        elementwise::combine([ins[0], ins[1]], out.y, #[inline(always)] |[$a, $b]: [T; 2]| $value as u32)
                    })
                }
                fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
                    let kind = elementwise::wgsl(ins[0].dtype());
                    elementwise::record(&format!("{}_{kind}", stringify!($method)), ins, out.y);
                }
                fn derivative(&self) -> Derivative<'_> {
                    Derivative::Zero
                }
            }
        )*

        impl Tensor {
            $(
                $(#[$doc])*
                #[track_caller]
                pub fn $method(&self, other: &Tensor) -> Tensor {
                    Tensor::apply($name, &[self, other])
                }
            )*
        }
    };
}

comparisons! {
    /// Mask of a ≥ b.
    at_least AtLeast |a, b| a >= b;
    /// Mask of a > b.
    greater Greater |a, b| a > b;
    /// Mask of a < b.
    less Less |a, b| a < b;
    /// Mask of a = b.
    equal Equal |a, b| a == b;
}

/// `if mask { a } else { b }`, see [`Tensor::select`]. Given the mask it is linear, and the mask does not move.
#[derive(Debug)]
pub struct Select;

impl Op for Select {
    fn name(&self) -> &'static str {
        "select"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        if ins[2].dtype != DType::U32 {
            return Err(format!("a mask is u32, not {}", ins[2].dtype));
        }
        let spec = binary::broadcast(&ins[..2])?;
        let problem = || format!("a mask of shape {:?} for operands of shape {:?}", ins[2].shape, spec.shape);
        Ok(Spec { shape: spec.shape.broadcast(&ins[2].shape).ok_or_else(problem)?, ..spec })
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        element!(ins[0].dtype(), T => elementwise::select::<T>(ins[2], ins[0], ins[1], out.y))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        elementwise::record(&format!("select_{}", elementwise::wgsl(out.y.dtype())), ins, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }
}

impl Rule for Select {
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::inputs(&[2])
    }
    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let (mask, zero) = (saved.input(2), c.zeros_like());
        let a = needs[0].then(|| mask.select(c, &zero).sum_to(&saved.spec(0).shape));
        let b = needs[1].then(|| mask.select(&zero, c).sum_to(&saved.spec(1).shape));
        vec![a, b, None]
    }
    fn jvp(&self, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let tangent = |i: usize| tangents[i].clone().unwrap_or_else(|| ins[i].zeros_like());
        Some(ins[2].select(&tangent(0), &tangent(1)).broadcast_to(*y.shape()))
    }
}

/// Conversion to another element type, see [`Tensor::cast`]. Its derivative is the cast back.
#[derive(Debug)]
pub struct Cast(DType);

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        Ok(Spec { dtype: self.0, ..ins[0] })
    }
    fn view(&self, x: &Array) -> Option<Array> {
        (x.dtype() == self.0).then(|| x.clone())
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        use crate::dtype::Element;
        element!(ins[0].dtype(), A => element!(self.0, Y => {
            elementwise::map::<A, Y>(ins[0], out.y, |x| <Y as Element>::from_f64(x.to_f64()))
        }))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        elementwise::record_cast(ins[0], out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        match self.0 {
            DType::U32 => Derivative::Zero,
            _ => Derivative::Linear(self),
        }
    }
}

impl Transpose for Cast {
    fn transpose(&self, _: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        c.cast(specs[0].dtype)
    }
}

impl Tensor {
    /// `a` where this mask is not 0, `b` elsewhere; all three broadcast.
    #[track_caller]
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Tensor {
        Tensor::apply(Select, &[a, b, self])
    }

    /// The same numbers in another element type, rounded to nearest; to u32 they are truncated.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        Tensor::apply(Cast(dtype), &[self])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let pair = || [Input::normal([3, 4]), Input::normal([4])];
    vec![
        Sample::new(AtLeast, pair()),
        Sample::new(Greater, pair()),
        Sample::new(Less, pair()),
        Sample::new(Equal, [Input::index([3, 4], 3), Input::index([4], 3)]),
        Sample::new(Select, [Input::normal([3, 4]), Input::normal([4]), Input::index([3, 1], 2)]),
        Sample::new(Cast(DType::F64), [Input::normal([3, 4])]),
        Sample::new(Cast(DType::BF16), [Input::normal([3, 4])]),
    ]
}
