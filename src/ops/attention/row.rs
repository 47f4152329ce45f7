//! Rows of scores: softmax and what is recomputed from its log-sum-exp. Everything here is inlined into loops that
//! are compiled for SIMD; rows have whole [`LANES`].

use super::operand::Mask;
use super::sizes::Sizes;
use super::tile::LANES;
use crate::scalar::Float;

/// Score of a key that a mask hides: e to it is 0, and no infinity is needed.
const HIDDEN: f64 = -3.4e38;

/// What hides keys from the queries of one head.
pub(super) struct Sight<'a> {
    pub sizes: &'a Sizes,
    pub mask: Option<Mask<'a>>,
    pub batch: usize,
    pub head: usize,
}

impl Sight<'_> {
    /// Marks what the mask hides from query `i` and says how many keys it may see at all.
    #[inline(always)]
    fn hide<T: Float>(&self, scores: &mut [T], i: usize) -> usize {
        let visible = self.sizes.visible(i);
        if let Some(mask) = &self.mask {
            mask.hide([self.batch, self.head, i], &mut scores[..visible], T::of(HIDDEN));
        }
        visible
    }
}

/// Turns the scores of query `i` into e^(score − largest) and returns (their sum, the largest). A row that sees
/// nothing becomes zeros, with sum 0.
#[inline(always)]
pub(super) fn exponentials<T: Float>(scores: &mut [T], sight: &Sight<'_>, i: usize) -> (T, T) {
    let visible = sight.hide(scores, i);
    scores[visible..].fill(T::of(HIDDEN));
    let largest = fold(scores, T::of(HIDDEN), T::larger);
    if largest <= T::of(HIDDEN) {
        scores.fill(T::zero());
        return (T::zero(), T::zero());
    }
    let mut sums = [T::zero(); LANES];
    for chunk in scores.chunks_exact_mut(LANES) {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = (*score - largest).exp();
            *sum += *score;
        }
    }
    (halve(sums, |a, b| a + b), largest)
}

/// Turns the scores of query `i` into probabilities, given the log-sum-exp of all rows [batch, heads, time].
#[inline(always)]
pub(super) fn probabilities<T: Float>(scores: &mut [T], sight: &Sight<'_>, i: usize, lse: &[T]) {
    let visible = sight.hide(scores, i);
    if visible > 0 {
        let lse = lse[(sight.batch * sight.sizes.heads + sight.head) * sight.sizes.time + i];
        for score in scores.iter_mut() {
            *score = (*score - lse).exp();
        }
    }
    scores[visible..].fill(T::zero());
}

/// Log-sum-exp as kept for backward; 0 for a row that sees nothing, whose scores all vanish under it.
#[inline(always)]
pub(super) fn log_sum_exp<T: Float>(sum: T, largest: T) -> T {
    if sum > T::zero() { largest + sum.ln() } else { sum }
}

/// Folds a row over [`LANES`] lanes, so that it vectorises, then over the lanes by halves.
#[inline(always)]
fn fold<T: Float>(row: &[T], start: T, f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    for chunk in row.chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *x);
        }
    }
    halve(lanes, f)
}

#[inline(always)]
fn halve<T: Float>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Σⱼ a[j] b[j].
#[inline(always)]
pub(super) fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = a.mul_add(*b, *lane);
        }
    }
    halve(lanes, |a, b| a + b)
}
