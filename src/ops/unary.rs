//! Elementwise functions of one operand. A row says the function, its slope as a number, and the same slope in
//! tensor operations; kernels for the value, for cotangent × slope and for their tangents follow from it.

use super::{Input, Op, Outputs, Sample, elementwise};
use crate::autograd::{Derivative, Fused, Local, Push, SavedArrays, Tangents};
use crate::device::{Array, Spec};
use crate::float;
use crate::scalar::{Dual, Float, NORMAL, Real};
use crate::tensor::Tensor;
use std::fmt::Debug;
use std::marker::PhantomData;

/// A differentiable function of one number.
pub trait Function: Debug + Send + Sync + 'static {
    /// Name of the op.
    const NAME: &'static str;
    /// Whether the slope is a formula in the value (eˣ) rather than in the argument.
    const FROM_OUTPUT: bool = false;
    /// The function.
    fn value<T: Real>(x: T) -> T;
    /// Its slope, at the argument or at the value.
    fn slope<T: Real>(saved: T) -> T;
    /// Its slope in tensor operations.
    fn slope_tensor(saved: &Tensor) -> Tensor;
}

/// The op of a [`Function`].
#[derive(Debug)]
pub struct Unary<F>(PhantomData<F>);

/// `c` times the slope of a [`Function`] at `saved`: one kernel for reverse and forward mode alike.
#[derive(Debug)]
pub struct Scaled<F>(PhantomData<F>);

fn same(ins: &[Spec]) -> Result<Spec, String> {
    match ins[0] {
        x if x.dtype.computes() => Ok(x),
        x => Err(format!("no arithmetic on {}: cast to f32 first", x.dtype)),
    }
}

impl<F: Function> Op for Unary<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        same(ins)
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => elementwise::map::<T, T>(ins[0], out.y, #[inline(always)] |x| F::value(x)))
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        elementwise::record(&format!("{}_value", F::NAME), ins, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Elementwise(self)
    }
}

impl<F: Function> Local for Unary<F> {
    fn saves_output(&self) -> bool {
        F::FROM_OUTPUT
    }
    fn slope(&self, saved: &Tensor) -> Tensor {
        F::slope_tensor(saved)
    }
    fn scale(&self, c: &Tensor, saved: &Tensor) -> Tensor {
        Tensor::apply(Scaled::<F>(PhantomData), &[c, saved])
    }
}

impl<F: Function> Op for Scaled<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        same(ins)
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            elementwise::combine([ins[0], ins[1]], out.y, #[inline(always)] |[c, s]: [T; 2]| c * F::slope(s))
        })
    }
    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        elementwise::record(&format!("{}_scaled", F::NAME), ins, out.y);
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }
}

impl<F: Function> Fused for Scaled<F> {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        &ins[0] * &F::slope_tensor(&ins[1])
    }

    fn backward(&self, saved: &SavedArrays<'_>, g: &Array, grads: &mut [Option<Array>], _: Option<&mut Array>) {
        let (c, s) = (saved.input(0), saved.input(1));
        float!(g.dtype(), T => {
            if let Some(dc) = &mut grads[0] {
                elementwise::combine([g, s], dc, #[inline(always)] |[g, s]: [T; 2]| g * F::slope(s));
            }
            if let Some(ds) = &mut grads[1] {
                elementwise::combine([g, c, s], ds, #[inline(always)] |[g, c, s]: [T; 3]| g * c * bend::<F, T>(s));
            }
        })
    }

    fn tangents(&self) -> Option<&dyn Tangents> {
        Some(self)
    }
}

/// Slope of the slope.
#[inline(always)]
fn bend<F: Function, T: Float>(s: T) -> T {
    F::slope(Dual { value: s, tangent: T::one() }).tangent
}

impl<F: Function> Tangents for Scaled<F> {
    fn forward(&self, push: Push<'_>, out: &mut Array, _: Option<&mut Array>) {
        let Push { ins, tangents, .. } = push;
        let (c, s) = (ins[0], ins[1]);
        float!(c.dtype(), T => match (tangents[0], tangents[1]) {
            (Some(dc), None) => {
                elementwise::combine([dc, s], out, #[inline(always)] |[dc, s]: [T; 2]| dc * F::slope(s))
            }
            (None, Some(ds)) => {
                elementwise::combine([c, s, ds], out, #[inline(always)] |[c, s, ds]: [T; 3]| c * bend::<F, T>(s) * ds)
            }
            (Some(dc), Some(ds)) => elementwise::combine([c, dc, s, ds], out, #[inline(always)] |[c, dc, s, ds]: [T; 4]| {
                let slope = F::slope(Dual { value: s, tangent: ds });
                dc * slope.value + c * slope.tangent
            }),
            (None, None) => unreachable!("something moves"),
        })
    }

    fn has_backward(&self) -> bool {
        false
    }
}

/// One row a function: its method, its type, where its slope is computed from, and the formulas.
macro_rules! functions {
    ($($(#[$doc:meta])* $method:ident $name:ident ($from_output:literal) on $sample:ident($low:literal, $high:literal)
        value($x:ident) $value:block slope($s:ident) $slope:block tensor($t:ident) $tensor:block)*) => {
        $(
            #[doc = concat!("`", stringify!($method), "`, see [`Tensor::", stringify!($method), "`].")]
            #[derive(Debug)]
            pub struct $name;

            impl Function for $name {
                const NAME: &'static str = stringify!($method);
                const FROM_OUTPUT: bool = $from_output;
                #[inline(always)]
                fn value<T: Real>($x: T) -> T $value
                #[inline(always)]
                fn slope<T: Real>($s: T) -> T $slope
                fn slope_tensor($t: &Tensor) -> Tensor $tensor
            }
        )*

        pub(super) fn samples() -> Vec<Sample> {
            let mut samples = Vec::new();
            $({
                let x = || Input::$sample([3, 4], $low, $high);
                samples.push(Sample::new(Unary::<$name>(PhantomData), [x()]));
                samples.push(Sample::new(Scaled::<$name>(PhantomData), [Input::normal([3, 4]), x()]));
            })*
            samples
        }

        impl Tensor {
            $(
                $(#[$doc])*
                #[track_caller]
                pub fn $method(&self) -> Tensor {
                    Tensor::apply(Unary::<$name>(PhantomData), &[self])
                }
            )*
        }
    };
}

functions! {
    /// eˣ.
    exp Exp (true) on range(-2.0, 2.0)
        value(x) { x.exp() }
        slope(y) { y }
        tensor(y) { y.clone() }
    /// Natural logarithm.
    log Log (false) on range(0.3, 3.0)
        value(x) { x.ln() }
        slope(x) { T::one() / x }
        tensor(x) { x.ones_like() / x }
    /// Square root.
    sqrt Sqrt (true) on range(0.3, 3.0)
        value(x) { x.sqrt() }
        slope(y) { T::of(0.5) / y }
        tensor(y) { y.full_like(0.5) / y }
    /// 1/√x.
    rsqrt Rsqrt (true) on range(0.3, 3.0)
        value(x) { T::one() / x.sqrt() }
        slope(y) { T::of(-0.5) * y * y * y }
        tensor(y) { y * y * y * -0.5 }
    /// Sine, in radians.
    sin Sin (false) on range(-3.0, 3.0)
        value(x) { x.sin() }
        slope(x) { x.cos() }
        tensor(x) { x.cos() }
    /// Cosine, in radians.
    cos Cos (false) on range(-3.0, 3.0)
        value(x) { x.cos() }
        slope(x) { -x.sin() }
        tensor(x) { -x.sin() }
    /// Hyperbolic tangent.
    tanh Tanh (true) on range(-2.0, 2.0)
        value(x) { x.tanh() }
        slope(y) { T::one() - y * y }
        tensor(y) { -(y * y) + 1.0 }
    /// 1/(1 + e⁻ˣ).
    sigmoid Sigmoid (true) on range(-3.0, 3.0)
        value(x) { x.sigmoid() }
        slope(y) { y * (T::one() - y) }
        tensor(y) { y * &(-y + 1.0) }
    /// Error function, 2/√π ∫₀ˣ e^(−t²) dt.
    erf Erf (false) on range(-2.0, 2.0)
        value(x) { x.erf() }
        slope(x) { T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-(x * x)).exp() }
        tensor(x) { (-(x * x)).exp() * std::f64::consts::FRAC_2_SQRT_PI }
    /// |x|; slope 0 at 0.
    abs Abs (false) on away(0.1, 2.0)
        value(x) { x.abs() }
        slope(x) { sign(x) }
        tensor(x) { x.sign() }
    /// −1, 0 or 1.
    sign Sign (false) on away(0.1, 2.0)
        value(x) { sign(x) }
        slope(_x) { T::zero() }
        tensor(x) { x.zeros_like() }
    /// max(x, 0); slope 0 at 0.
    relu Relu (true) on away(0.1, 2.0)
        value(x) { x.larger(T::zero()) }
        slope(y) { if y > T::zero() { T::one() } else { T::zero() } }
        tensor(y) { y.greater(&y.constant_like(0.0)).cast(y.dtype()) }
    /// x σ(x) (Elfwing et al. 2017; "swish").
    silu Silu (false) on range(-3.0, 3.0)
        value(x) { x * x.sigmoid() }
        slope(x) { let s = x.sigmoid(); s * (T::one() + x * (T::one() - s)) }
        tensor(x) { let s = x.sigmoid(); &s * &(x * &(-&s + 1.0) + 1.0) }
    /// x Φ(x), Φ the normal distribution function (Hendrycks & Gimpel 2016).
    gelu Gelu (false) on range(-3.0, 3.0)
        value(x) { x * x.normal_cdf() }
        slope(x) { x.mul_add(x.normal_pdf(), x.normal_cdf()) }
        tensor(x) {
            let cdf = ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            x * &((x * x * -0.5).exp() * NORMAL) + cdf
        }
    /// The form of GELU with tanh that GPT-2 uses: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
    gelu_tanh GeluTanh (false) on range(-3.0, 3.0)
        value(x) { x * gate(x) }
        slope(x) {
            let g = gate(x);
            let inner = (x * x).mul_add(T::of(6.0 * CUBIC * GATE), T::of(2.0 * GATE));
            (g * (T::one() - g)).mul_add(x * inner, g)
        }
        tensor(x) {
            let square = x * x;
            let t = (x * &(&square * (CUBIC * GATE) + GATE)).tanh();
            let inner = square * (3.0 * CUBIC * GATE) + GATE;
            (&t + 1.0) * 0.5 + x * &((-(&t * &t) + 1.0) * 0.5) * inner
        }
}

/// √(2/π).
const GATE: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044715;

#[inline(always)]
fn sign<T: Real>(x: T) -> T {
    if x > T::zero() {
        T::one()
    } else if x < T::zero() {
        -T::one()
    } else {
        T::zero()
    }
}

/// (1 + tanh z)/2 with the z of the tanh form, as σ(2z): one exponential.
#[inline(always)]
fn gate<T: Real>(x: T) -> T {
    let z2 = x * (x * x).mul_add(T::of(2.0 * CUBIC * GATE), T::of(2.0 * GATE));
    z2.sigmoid()
}
