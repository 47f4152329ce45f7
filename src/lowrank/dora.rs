//! Norms of an adapted matrix's outputs, without the matrix.

use super::Lora;
use crate::module::Dense;
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
    let base = map.base.get::<Dense>().expect("only dense maps get lengths of their own");
    let across = map.base.apply(&a.t(), None).detach(); // [r, out]
    let inner = across * (2.0 * map.scale) + a.t().matmul(&a).matmul(&b) * (map.scale * map.scale);
    let squares = squares(base) + (b * inner).sum(&[0]);
    // A column of zeros has a length of 0 and stays one: 0 / 0 would make NaN of it.
    squares.maximum(&squares.constant_like(1e-30)).sqrt()
}

/// Σ W² for each output, some rows at a time.
fn squares(base: &Dense) -> Tensor {
    let w = base.weight.tensor().detach();
    let count = w.shape()[0];
    let part = |first: usize| {
        let rows = w.slice(0, first, PANEL.min(count - first));
        (&rows * &rows).sum(&[if base.transposed { 1 } else { 0 }])
    };
    let parts: Vec<Tensor> = (0..count).step_by(PANEL).map(part).collect();
    match base.transposed {
        true => Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0),
        false => parts.into_iter().reduce(|a, b| a + b).expect("a weight has rows"),
    }
}
