//! Norms of an adapted matrix's outputs, without the matrix.

use super::{Factored, Lora, Quantised};
use crate::module::{Dense, LinearMap};
use crate::tensor::Tensor;

/// Rows of a weight that are squared at a time.
const PANEL: usize = 256;

/// `m / ‖W + s A B‖`, `[out]`, with a norm that no gradient flows through (section 4.3 of the DoRA paper).
pub(super) fn factor(map: &Lora, magnitude: &Tensor) -> Tensor {
    magnitude / norms(map)
}

/// ‖W + s A B‖ for each output, as √(‖W‖² + 2s ⟨W, A B⟩ + s² ‖A B‖²): with `Aᵀ W` and `Aᵀ A`, r rows each, in place of
/// anything of the size of W. Constants.
pub(super) fn norms(map: &Lora) -> Tensor {
    let (a, b) = (map.a.tensor().detach(), map.b.tensor().detach());
    let across = map.base.apply(&a.t(), None).detach(); // [r, out]
    let inner = across * (2.0 * map.scale) + a.t().matmul(&a).matmul(&b) * (map.scale * map.scale);
    let squares = squares(&map.base) + (b * inner).sum(&[0]);
    // A column of zeros has a length of 0 and stays one: 0 / 0 would make NaN of it.
    squares.maximum(&squares.constant_like(1e-30)).sqrt()
}

/// Whether outputs of this map can have lengths of their own: whether its rows can be had as they are stored, or factors.
pub(super) fn fits(base: &LinearMap) -> bool {
    base.get::<Dense>().is_some() || base.get::<Quantised>().is_some() || base.get::<Factored>().is_some()
}

/// Whether a map is stored as [out, in].
fn is_transposed(base: &LinearMap) -> bool {
    base.get::<Dense>().is_some_and(|dense| dense.transposed) || base.get().is_some_and(Quantised::is_transposed)
}

/// Rows of a map as they are stored.
fn stored(base: &LinearMap, first: usize, count: usize) -> Tensor {
    match (base.get::<Dense>(), base.get::<Quantised>()) {
        (Some(dense), _) => dense.weight.tensor().detach().slice(0, first, count),
        (_, Some(quantised)) => quantised.stored(first..first + count),
        _ => unreachable!("other maps get no lengths of their own"),
    }
}

/// Σ W² for each output, some rows at a time; of W = L R from Lᵀ L.
fn squares(base: &LinearMap) -> Tensor {
    if let Some(factors) = base.get::<Factored>() {
        let [left, right] = [&factors.factor_in, &factors.factor_out].map(|factor| factor.tensor().detach());
        return (left.t().matmul(&left).matmul(&right) * &right).sum(&[0]);
    }
    let (transposed, [input, output]) = (is_transposed(base), base.sizes());
    let count = if transposed { output } else { input };
    let part = |first: usize| {
        let rows = stored(base, first, PANEL.min(count - first));
        (&rows * &rows).sum(&[if transposed { 1 } else { 0 }])
    };
    let parts: Vec<Tensor> = (0..count).step_by(PANEL).map(part).collect();
    match transposed {
        true => Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0),
        false => parts.into_iter().reduce(|a, b| a + b).expect("a weight has rows"),
    }
}
