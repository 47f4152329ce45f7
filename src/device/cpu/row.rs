//! What kernels over rows are made of: loops over one row of each operand, inlined into the caller's SIMD code.
//!
//! Loops count an index: an iterator over one operand would not say which elements of the others are read.
#![allow(clippy::needless_range_loop)]

use crate::scalar::{Dual, Float, Real};

/// Independent accumulators along a row: rounding errors grow slowly, and the loop over them is long enough that the
/// compiler vectorises it rather than unrolls it into scalars.
const LANES: usize = 64;

/// What a row kernel computes with: numbers, or duals where its tangent is wanted.
pub trait Number<T>: Real {
    /// A number that moves along `tangent`.
    fn new(value: T, tangent: T) -> Self;
    /// What the kernel writes: the value, or the tangent.
    fn written(self) -> T;
}

impl<T: Float> Number<T> for T {
    #[inline(always)]
    fn new(value: T, _: T) -> T {
        value
    }
    #[inline(always)]
    fn written(self) -> T {
        self
    }
}

impl<T: Float> Number<T> for Dual<T> {
    #[inline(always)]
    fn new(value: T, tangent: T) -> Self {
        Dual { value, tangent }
    }
    #[inline(always)]
    fn written(self) -> T {
        self.tangent
    }
}

/// Element `i` of each, for slices that [`part`] made at least `i + 1` long.
///
/// Written as a loop, like [`part`]: the library's array functions are not always inlined. Unchecked, because bounds
/// that are checked at run time keep loops over many operands from being vectorised.
///
/// # Safety
/// `i` is below the length of every slice.
#[inline(always)]
unsafe fn at<const N: usize, T: Copy>(ins: &[&[T]; N], i: usize) -> [T; N] {
    // SAFETY: what the caller promises.
    unsafe {
        let mut all = [*ins[0].get_unchecked(i); N];
        for (x, slice) in all.iter_mut().zip(ins) {
            *x = *slice.get_unchecked(i);
        }
        all
    }
}

/// The part from `start` on, of each.
#[inline(always)]
fn part<'a, const N: usize, T>(ins: &[&'a [T]; N], start: usize, count: usize) -> [&'a [T]; N] {
    let mut all = *ins;
    for slice in &mut all {
        *slice = &slice[start..][..count];
    }
    all
}

/// `y = f(ins)`, element by element.
#[inline(always)]
pub fn map<const N: usize, T: Copy, Y>(ins: [&[T]; N], y: &mut [Y], f: impl Fn([T; N]) -> Y) {
    let ins = part(&ins, 0, y.len());
    for i in 0..y.len() {
        // SAFETY: every part is as long as `y`.
        y[i] = f(unsafe { at(&ins, i) });
    }
}

/// `sum += f(ins)`, element by element.
#[inline(always)]
pub fn accumulate<const N: usize, T: Float>(ins: [&[T]; N], sum: &mut [T], f: impl Fn([T; N]) -> T) {
    let ins = part(&ins, 0, sum.len());
    for i in 0..sum.len() {
        // SAFETY: every part is as long as `sum`.
        sum[i] += f(unsafe { at(&ins, i) });
    }
}

/// Joins `f(ins)`, M numbers at once, along a row, in a fixed order: within each lane, then lane to lane. `start` must
/// be neutral.
#[inline(always)]
fn fold<const N: usize, const M: usize, T: Copy, A: Copy>(
    ins: [&[T]; N],
    start: A,
    f: impl Fn([T; N]) -> [A; M],
    join: impl Fn(A, A) -> A,
) -> [A; M] {
    let mut lanes = [[start; LANES]; M];
    let count = ins[0].len();
    let whole = count / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let chunk = part(&ins, first, LANES);
        for l in 0..LANES {
            // SAFETY: every chunk has LANES elements.
            let new = f(unsafe { at(&chunk, l) });
            for m in 0..M {
                lanes[m][l] = join(lanes[m][l], new[m]);
            }
        }
    }
    let rest = part(&ins, whole, count - whole);
    for l in 0..count - whole {
        // SAFETY: every rest is as long as the loop.
        let new = f(unsafe { at(&rest, l) });
        for m in 0..M {
            lanes[m][l] = join(lanes[m][l], new[m]);
        }
    }
    let mut joined = [start; M];
    for m in 0..M {
        joined[m] = across(&mut lanes[m], &join);
    }
    joined
}

/// Joins lanes, halving their number.
#[inline(always)]
fn across<A: Copy>(lanes: &mut [A; LANES], join: &impl Fn(A, A) -> A) -> A {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = join(lanes[l], lanes[l + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(ins) over a row, of M numbers at once.
#[inline(always)]
pub fn sums<const N: usize, const M: usize, T: Copy, A: Real>(ins: [&[T]; N], f: impl Fn([T; N]) -> [A; M]) -> [A; M] {
    fold(
        ins,
        A::zero(),
        f,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Σ f(ins) over a row.
#[inline(always)]
pub fn sum<const N: usize, T: Copy, A: Real>(ins: [&[T]; N], f: impl Fn([T; N]) -> A) -> A {
    let [sum] = sums(
        ins,
        #[inline(always)]
        |x| [f(x)],
    );
    sum
}

/// Largest element, −∞ of an empty row; NaN is passed over.
#[inline(always)]
pub fn largest<T: Real>(x: &[T]) -> T {
    extreme(x, f64::NEG_INFINITY, T::larger)
}

/// Smallest element, ∞ of an empty row; NaN is passed over.
#[inline(always)]
pub fn smallest<T: Real>(x: &[T]) -> T {
    extreme(x, f64::INFINITY, T::smaller)
}

#[inline(always)]
fn extreme<T: Real>(x: &[T], start: f64, join: impl Fn(T, T) -> T) -> T {
    let [extreme] = fold(
        [x],
        T::of(start),
        #[inline(always)]
        |x| x,
        join,
    );
    extreme
}
