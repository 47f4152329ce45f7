//! Elementwise arithmetic on two operands that broadcast against each other.

use super::{Input, Op, Outputs, Sample, elementwise};
use crate::autograd::{Derivative, Rule, Saved, Saves, Transpose, Transpose2};
use crate::device::{Array, Spec};
use crate::float;
use crate::scalar::{Float, Real};
use crate::tensor::Tensor;

/// Type and shape of an elementwise result.
pub(crate) fn broadcast(ins: &[Spec]) -> Result<Spec, String> {
    let (a, b) = (&ins[0], &ins[1]);
    if a.dtype != b.dtype {
        return Err(format!("operands of types {} and {}", a.dtype, b.dtype));
    }
    match a.shape.broadcast(&b.shape) {
        Some(shape) => Ok(Spec { dtype: a.dtype, shape }),
        None => Err(format!("shapes {:?} and {:?} do not broadcast", a.shape, b.shape)),
    }
}

/// Like [`broadcast`], for types with arithmetic.
fn arithmetic(ins: &[Spec]) -> Result<Spec, String> {
    broadcast(ins).and_then(|spec| match spec.dtype.computes() {
        true => Ok(spec),
        false => Err(format!("no arithmetic on {}: cast to f32 first", spec.dtype)),
    })
}

macro_rules! binary {
    ($($(#[$doc:meta])* $method:ident $name:ident, $class:ident, |$a:ident, $b:ident| $value:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($method), "`, see [`Tensor::", stringify!($method), "`].")]
            #[derive(Debug)]
            pub struct $name;

            impl Op for $name {
                fn name(&self) -> &'static str {
                    stringify!($method)
                }
                fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
                    arithmetic(ins)
                }
                fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
                    float!(ins[0].dtype(), T => {
                        elementwise::combine([ins[0], ins[1]], out.y, #[inline(always)] |[$a, $b]: [T; 2]| $value)
                    })
                }
                fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
                    elementwise::record(concat!(stringify!($method), "_f32"), ins, out.y);
                }
                fn derivative(&self) -> Derivative<'_> {
                    Derivative::$class(self)
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

binary! {
    /// a + b.
    plus Add, Linear, |a, b| a + b;
    /// a − b.
    minus Sub, Linear, |a, b| a - b;
    /// a b.
    times Mul, Bilinear, |a, b| a * b;
    /// a / b.
    over Div, Custom, |a, b| a / b;
    /// aᵇ; the exponent has a gradient only where a > 0.
    pow Pow, Custom, |a, b| power(a, b);
    /// The larger; where equal, the gradient goes to the first.
    maximum Max, Custom, |a, b| a.larger(b);
    /// The smaller; where equal, the gradient goes to the first.
    minimum Min, Custom, |a, b| a.smaller(b);
}

fn power<T: Float>(a: T, b: T) -> T {
    T::from_f64(a.to_f64().powf(b.to_f64()))
}

impl Transpose for Add {
    fn transpose(&self, i: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        c.sum_to(&specs[i].shape)
    }
    fn partial(&self, _: usize, t: &Tensor, out: &Spec) -> Option<Tensor> {
        Some(t.broadcast_to(out.shape))
    }
}

impl Transpose for Sub {
    fn transpose(&self, i: usize, c: &Tensor, specs: &[Spec]) -> Tensor {
        let c = c.sum_to(&specs[i].shape);
        if i == 0 { c } else { -c }
    }
    fn partial(&self, i: usize, t: &Tensor, out: &Spec) -> Option<Tensor> {
        let t = t.broadcast_to(out.shape);
        Some(if i == 0 { t } else { -t })
    }
}

impl Transpose2 for Mul {
    fn transpose(&self, _: usize, c: &Tensor, other: &Tensor, spec: &Spec) -> Tensor {
        (c * other).sum_to(&spec.shape)
    }
}

/// Rules of elementwise ops from their two partial derivatives, in tensor operations.
trait Partials {
    fn saves(&self) -> Saves;
    /// Cotangent, or tangent, `c` times the partial derivative in operand `i`.
    fn times_partial(&self, i: usize, c: &Tensor, a: &Tensor, b: &Tensor, y: &Tensor) -> Tensor;
}

fn vjp(op: &dyn Partials, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
    let (a, b, y) = (saved.input(0), saved.input(1), saved.output());
    let part = |i: usize| op.times_partial(i, c, a, b, y).sum_to(&saved.spec(i).shape);
    (0..2).map(|i| needs[i].then(|| part(i))).collect()
}

fn jvp(op: &dyn Partials, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
    let part = |i: usize| tangents[i].as_ref().map(|t| op.times_partial(i, t, &ins[0], &ins[1], y));
    let (left, right) = (part(0), part(1));
    match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (left, right) => left.or(right).map(|t| t.broadcast_to(*y.shape())),
    }
}

macro_rules! rule {
    ($($name:ident),*) => {$(
        impl Rule for $name {
            fn saves(&self, _: &[bool]) -> Saves {
                Partials::saves(self)
            }
            fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
                vjp(self, saved, c, needs)
            }
            fn jvp(&self, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
                jvp(self, ins, y, tangents)
            }
        }
    )*};
}
rule!(Div, Pow, Max, Min);

impl Partials for Div {
    fn saves(&self) -> Saves {
        Saves::INPUTS.and_output()
    }
    fn times_partial(&self, i: usize, c: &Tensor, _: &Tensor, b: &Tensor, y: &Tensor) -> Tensor {
        if i == 0 { c / b } else { -(c * y) / b }
    }
}

impl Partials for Pow {
    fn saves(&self) -> Saves {
        Saves::INPUTS.and_output()
    }
    fn times_partial(&self, i: usize, c: &Tensor, a: &Tensor, b: &Tensor, y: &Tensor) -> Tensor {
        if i == 0 { c * &(b * &a.pow(&(b - 1.0))) } else { c * &(y * &a.log()) }
    }
}

impl Partials for Max {
    fn saves(&self) -> Saves {
        Saves::INPUTS.and_output()
    }
    fn times_partial(&self, i: usize, c: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor) -> Tensor {
        let first = a.at_least(b);
        if i == 0 { first.select(c, &c.zeros_like()) } else { first.select(&c.zeros_like(), c) }
    }
}

impl Partials for Min {
    fn saves(&self) -> Saves {
        Saves::INPUTS.and_output()
    }
    fn times_partial(&self, i: usize, c: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor) -> Tensor {
        let first = b.at_least(a);
        if i == 0 { first.select(c, &c.zeros_like()) } else { first.select(&c.zeros_like(), c) }
    }
}

impl Tensor {
    /// −x.
    #[track_caller]
    pub fn neg(&self) -> Tensor {
        self * -1.0
    }

    /// xᵖ for a constant p.
    #[track_caller]
    pub fn powf(&self, p: f64) -> Tensor {
        self.pow(&self.constant_like(p))
    }

    /// x within [low, high]; slope 0 outside.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Tensor {
        self.maximum(&self.constant_like(low)).minimum(&self.constant_like(high))
    }
}

macro_rules! operator {
    ($($trait:ident $operator:ident $method:ident;)*) => {$(
        impl std::ops::$trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $operator(self, other: &Tensor) -> Tensor {
                self.$method(other)
            }
        }
        impl std::ops::$trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $operator(self, other: Tensor) -> Tensor {
                self.$method(&other)
            }
        }
        impl std::ops::$trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $operator(self, other: &Tensor) -> Tensor {
                self.$method(other)
            }
        }
        impl std::ops::$trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $operator(self, other: Tensor) -> Tensor {
                self.$method(&other)
            }
        }
        impl std::ops::$trait<f64> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $operator(self, other: f64) -> Tensor {
                self.$method(&self.constant_like(other))
            }
        }
        impl std::ops::$trait<f64> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $operator(self, other: f64) -> Tensor {
                self.$method(&self.constant_like(other))
            }
        }
    )*};
}
operator! {
    Add add plus;
    Sub sub minus;
    Mul mul times;
    Div div over;
}

impl std::ops::Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}

impl std::ops::Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let pair = || [Input::normal([3, 4]), Input::normal([4])];
    let ties = || [Input::distinct([3, 4], 0.06), Input::values([], [0.0])];
    vec![
        Sample::new(Add, pair()),
        Sample::new(Sub, [Input::normal([3, 1]), Input::normal([2, 1, 4])]),
        Sample::new(Mul, pair()),
        Sample::new(Div, [Input::normal([3, 4]), Input::away([3, 1], 0.5, 2.0)]),
        Sample::new(Pow, [Input::range([3, 4], 0.3, 2.0), Input::normal([4])]),
        Sample::new(Max, ties()),
        Sample::new(Min, ties()),
    ]
}
