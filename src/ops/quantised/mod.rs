//! Constant matrices in fewer bits: products with them, and their rows. A whole matrix is never unpacked: the host
//! unpacks panels, kernels unpack what they load (Dettmers et al., "QLoRA", 2023).

mod format;
mod gpu;
mod rows;

pub use format::{Encoded, Format, NF4, Packed};
pub use rows::Rows;

use super::linear::add_row;
use super::{Input, Op, Outputs, Sample, matmul};
use crate::autograd::{Derivative, Rule, Saved, Saves};
use crate::device::cpu::{self, Matrix, Start};
use crate::device::{Array, Spec};
use crate::dtype::DType;
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;
use std::sync::Arc;

/// `x S + b`, or `x Sᵀ + b`; operands are x `[.., in]`, the codes of S, its scales in x's type, and, if any, b `[out]`.
/// Linear in x and b: codes and scales are constants, which no gradient or tangent reaches.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// How S is stored.
    pub packed: Packed,
    /// Whether x is multiplied by Sᵀ, as by a weight stored as [out, in].
    pub transposed: bool,
}

/// Elements of a panel: they stay in a second-level cache. Its depth is at most that, so that it is not too narrow.
const PANEL: usize = 1 << 16;
const DEPTH: usize = 2048;

/// Part of the matrix that is unpacked at a time, as the product reads it.
struct Panel {
    depth: usize,
    width: usize,
}

impl Product {
    /// Inputs and outputs.
    fn sizes(&self) -> [usize; 2] {
        let Packed { rows, columns, .. } = self.packed;
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }

    fn panel(&self) -> Panel {
        let [k, n] = self.sizes();
        let depth = k.min(DEPTH);
        Panel { depth, width: n.min(PANEL / depth) }
    }

    /// The same multiplied the other way.
    fn back(&self) -> Product {
        Product { transposed: !self.transposed, ..*self }
    }

    /// `y = start + x S`, or with Sᵀ; `scratch` has room for a panel.
    fn multiply<T: Float>(&self, ins: &[&Array], y: &mut Array, start: Start<'_, T>, scratch: &mut Array) {
        let ([k, n], Panel { depth, width }) = (self.sizes(), self.panel());
        let (x, m) = (ins[0].slice::<T>(), ins[0].count() / k);
        for column in (0..n).step_by(width) {
            let wide = width.min(n - column);
            for place in (0..k).step_by(depth) {
                let deep = depth.min(k - place);
                let panel = &mut scratch.slice_mut::<T>()[..deep * wide];
                let (places, columns) = (place..place + deep, column..column + wide);
                let (rows, columns) = if self.transposed { (columns, places) } else { (places, columns) };
                let row_step = columns.len() as isize;
                self.packed.unpack(ins[1].slice(), ins[2].slice(), rows, columns, panel);
                let panel = Matrix { data: &*panel, row_step, col_step: 1 };
                let b = if self.transposed { panel.t() } else { panel };
                let a = Matrix { data: &x[place..], row_step: k as isize, col_step: 1 };
                let start = if place > 0 { Start::Held } else { start };
                cpu::matmul_columns((m, deep, wide), a, b, y.slice_mut(), (n, column), start);
            }
        }
    }
}

/// What is wrong with codes and scales.
fn check(packed: &Packed, codes: &Spec, scales: &Spec) -> Result<(), String> {
    let (words, count) = (packed.words(), packed.scales());
    if packed.count() == 0 || u32::try_from(packed.count()).is_err() {
        return Err(format!("a matrix [{}, {}]: it has 1 to 2^32 - 1 elements", packed.rows, packed.columns));
    }
    if codes.dtype != DType::U32 || codes.shape[..] != [words] {
        return Err(format!("codes {} {:?}, not u32 [{words}]", codes.dtype, codes.shape));
    }
    if !scales.dtype.computes() || scales.shape[..] != [count] {
        return Err(format!("scales {} {:?}, not f32 [{count}]", scales.dtype, scales.shape));
    }
    Ok(())
}

impl Op for Product {
    fn name(&self) -> &'static str {
        "quantised"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (x, [inputs, outputs]) = (&ins[0], self.sizes());
        check(&self.packed, &ins[1], &ins[2])?;
        if ins[2..].iter().any(|spec| spec.dtype != x.dtype) {
            return Err(format!("x of type {} and scales of type {}", x.dtype, ins[2].dtype));
        }
        if x.shape.last() != Some(&inputs) {
            return Err(format!("x of shape {:?} for {inputs} inputs", x.shape));
        }
        match ins.get(3) {
            Some(b) if b.shape[..] != [outputs] => Err(format!("a bias of shape {:?} for {outputs} outputs", b.shape)),
            _ => Ok(Spec { shape: x.shape.with(x.shape.len() - 1, outputs), ..*x }),
        }
    }

    fn contiguous(&self) -> bool {
        true
    }

    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        let Panel { depth, width } = self.panel();
        Some(Spec::new(ins[0].dtype, [depth * width]))
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let scratch = out.scratch.expect("it was asked for");
        float!(ins[0].dtype(), T => {
            let start = match ins.get(3) {
                Some(bias) if out.add => {
                    add_row::<T>(bias.slice(), out.y);
                    Start::Held
                }
                Some(bias) => Start::Row(bias.slice()),
                None => matmul::held(out.add),
            };
            self.multiply::<T>(ins, out.y, start, scratch)
        })
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out.y, out.add);
    }

    fn adds(&self) -> bool {
        true
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }
}

impl Rule for Product {
    fn saves(&self, needs: &[bool]) -> Saves {
        if needs[0] { Saves::inputs(&[1, 2]) } else { Saves::NONE }
    }

    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let dx = needs[0].then(|| Tensor::apply(self.back(), &[c, saved.input(1), saved.input(2)]));
        let db = needs.get(3).map(|&needed| needed.then(|| c.rows().sum(&[0])));
        [dx, None, None].into_iter().chain(db).collect()
    }

    fn vjp_op(&self, i: usize, saved: &Saved, c: &Tensor) -> Option<(Arc<dyn Op>, Vec<Tensor>)> {
        let operands = || vec![c.clone(), saved.input(1).clone(), saved.input(2).clone()];
        (i == 0).then(|| (Arc::new(self.back()) as Arc<dyn Op>, operands()))
    }

    fn jvp(&self, ins: &[Tensor], y: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let db = tangents.get(3).cloned().flatten();
        match (&tangents[0], db) {
            (Some(dx), Some(db)) => Some(Tensor::apply(*self, &[dx, &ins[1], &ins[2], &db])),
            (Some(dx), None) => Some(Tensor::apply(*self, &[dx, &ins[1], &ins[2]])),
            (None, db) => db.map(|db| db.broadcast_to(*y.shape())),
        }
    }
}

/// Codes and scales of some matrix as operands.
fn stored(packed: Packed) -> [Input; 2] {
    let wave = |row: usize, column: usize| ((7 * row + 3 * column) as f32).sin();
    let codes = packed.encode(wave).codes;
    let unit = if packed.format == Format::Int8 { 1.0 / 127.0 } else { 1.0 };
    let scales = Input::range([packed.scales()], 0.5 * unit, 1.5 * unit).constant();
    [Input::indices([codes.len()], codes), scales]
}

pub(super) fn samples() -> Vec<Sample> {
    // In whole words and blocks, and not.
    let (odd, even) = ([5, 7], [12, 20]);
    let sizes =
        [(Format::F16, odd), (Format::BF16, even), (Format::Int8, even), (Format::Nf4, odd), (Format::Nf4, even)];
    let each = sizes.into_iter().map(|(format, [rows, columns])| Packed { format, rows, columns });
    let products = each.clone().flat_map(|packed| [false, true].map(|transposed| Product { packed, transposed }));
    let product = |product: Product| {
        let [inputs, outputs] = product.sizes();
        let bias = product.transposed.then(|| Input::normal([outputs]));
        let ins = [Input::normal([2, 3, inputs])].into_iter().chain(stored(product.packed)).chain(bias);
        Sample::new(product, ins.collect::<Vec<_>>())
    };
    products.map(product).chain(each.flat_map(rows::samples)).collect()
}
