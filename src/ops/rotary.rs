//! Rotary position embedding (Su et al. 2021), with the pairs (i, i + dim/2) of Llama.

use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Transpose2};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec, cpu};
use crate::dtype::Element;
use crate::float;
use crate::scalar::Float;
use crate::tensor::Tensor;

/// Rotation of the leading heads by their position, see [`Tensor::rotary`]. Linear in x; the table is a constant.
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    offset: usize,
    heads: usize,
    /// By the negative angle: the transpose.
    back: bool,
}

impl Op for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (x, table) = (&ins[0], &ins[1]);
        if x.dtype != table.dtype || !x.dtype.computes() {
            return Err(format!("operands of types {} and {}", x.dtype, table.dtype));
        }
        let [_, time, heads, dim] = x.shape[..] else {
            return Err(format!("[batch, time, heads, dim] wanted, not {:?}", x.shape));
        };
        if self.heads > heads {
            return Err(format!("{} of {heads} heads", self.heads));
        }
        match table.shape[..] {
            [positions, half, 2] if positions >= self.offset + time && 2 * half == dim => Ok(*x),
            _ => Err(format!("a table {:?} for {:?} from position {}", table.shape, x.shape, self.offset)),
        }
    }

    fn contiguous(&self) -> bool {
        true
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => self.rotate::<T>(ins[0], ins[1].slice(), out.y))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let (x, table) = (ins[0], ins[1]);
        let [_, time, heads, dim] = x.shape()[..] else { unreachable!("checked by `infer`") };
        let (half, first) = (dim / 2, table.offset() + self.offset * dim);
        let whole = [half, x.offset(), first].iter().all(|n| n.is_multiple_of(4));
        let (entry, unit) = if whole { ("fours", 4) } else { ("pairs", 1) };
        let (count, sign) = (x.count() / 2 / unit, if self.back { -1.0 } else { 1.0 });
        Kernel::new("rotary", entry)
            .write(out.y)
            .read(x)
            .read(table)
            .words([count, half / unit, heads, self.heads, time, x.offset() / unit, first / unit])
            .float(sign)
            .run(count.div_ceil(256))
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Bilinear(self)
    }
}

impl Rotary {
    fn rotate<T: Float>(&self, x: &Array, table: &[T], y: &mut Array) {
        let (time, dim) = (x.shape()[1], x.shape()[3]);
        let width = x.shape()[2] * dim;
        let x = x.slice::<T>();
        cpu::rows(y.slice_mut::<T>(), width, |first, out| {
            let mut turn = vec![T::zero(); dim];
            for (row, y) in (first..).zip(out.chunks_exact_mut(width)) {
                let x = &x[row * width..][..width];
                self.load(&table[(self.offset + row % time) * dim..][..dim], &mut turn);
                let (x, kept) = x.split_at(self.heads * dim);
                let (y, rest) = y.split_at_mut(self.heads * dim);
                rest.copy_from_slice(kept);
                rotate_heads(x, &turn, y);
            }
        });
    }

    /// One position's cosines, then its sines.
    fn load<T: Float>(&self, pairs: &[T], turn: &mut [T]) {
        let (cos, sin) = turn.split_at_mut(pairs.len() / 2);
        for ((cos, sin), pair) in cos.iter_mut().zip(sin).zip(pairs.chunks_exact(2)) {
            *cos = pair[0];
            *sin = if self.back { -pair[1] } else { pair[1] };
        }
    }
}

/// (a, b) becomes (a cos − b sin, b cos + a sin), where a and b are the halves of each head.
fn rotate_heads<T: Float>(x: &[T], turn: &[T], y: &mut [T]) {
    let (cos, sin) = turn.split_at(turn.len() / 2);
    cpu::simd(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(turn.len()).zip(y.chunks_exact_mut(turn.len())) {
                let (a, b) = x.split_at(cos.len());
                let (ya, yb) = y.split_at_mut(cos.len());
                let inputs = a.iter().zip(b).zip(cos.iter().zip(sin));
                for (((a, b), (cos, sin)), (ya, yb)) in inputs.zip(ya.iter_mut().zip(yb)) {
                    *ya = *a * *cos - *b * *sin;
                    *yb = *b * *cos + *a * *sin;
                }
            }
        },
    )
}

impl Transpose2 for Rotary {
    fn transpose(&self, i: usize, c: &Tensor, table: &Tensor, _: &Spec) -> Tensor {
        assert_eq!(i, 0, "rotary: the table is a constant");
        Tensor::apply(Rotary { back: !self.back, ..*self }, &[c, table])
    }
}

/// (cos, sin) of position × frequency for `positions` positions: [positions, frequencies, 2], computed in double
/// precision, then rounded to `T`, because shaders promise sine and cosine only to 2⁻¹¹. Frequencies come from [`rotary_frequencies`].
pub fn rotary_table<T: Element>(positions: usize, frequencies: &[f64]) -> Vec<T> {
    let mut table = Vec::with_capacity(positions * frequencies.len() * 2);
    for angle in (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f)) {
        table.extend([angle.cos(), angle.sin()].map(T::from_f64));
    }
    table
}

/// θ^(−2i/dim) for the dim/2 pairs of a head, in radians per position; θ is 10 000 in Su et al., 500 000 in Llama 3.
pub fn rotary_frequencies(dim: usize, theta: f64) -> Vec<f64> {
    (0..dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim as f64)).collect()
}

impl Tensor {
    /// Turns the pairs (xᵢ, xᵢ₊d) of the first `heads` heads, d = dim/2, by their position's angles: [batch, time,
    /// heads, dim], position `offset + t`. `table` is [≥ offset + time, dim/2, 2], see [`rotary_table`]. Further heads
    /// (the values of packed queries, keys and values) stay as they are.
    #[track_caller]
    pub fn rotary(&self, table: &Tensor, offset: usize, heads: usize) -> Tensor {
        Tensor::apply(Rotary { offset, heads, back: false }, &[self, table])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |offset, heads, sizes: [usize; 4]| {
        let table = rotary_table(offset + sizes[1] + 1, &rotary_frequencies(sizes[3], 100.0));
        let table = Input::values([offset + sizes[1] + 1, sizes[3] / 2, 2], table).constant();
        Sample::new(Rotary { offset, heads, back: false }, [Input::normal(sizes), table])
    };
    vec![sample(0, 2, [2, 3, 2, 4]), sample(2, 1, [1, 2, 3, 6]), sample(1, 1, [1, 1, 1, 2]), sample(1, 2, [1, 3, 3, 8])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn products_depend_on_distance_alone() {
        let device = Device::cpu();
        let table: Vec<f64> = rotary_table(9, &rotary_frequencies(4, 10.0));
        let table = Tensor::new(&table, [9, 2, 2], &device);
        let turned = |x: [f64; 4], at: usize| Tensor::new(&x, [1, 1, 1, 4], &device).rotary(&table, at, 1);
        let product = |i, j| {
            let (q, k) = (turned([1.0, 2.0, -1.0, 0.5], i), turned([0.3, -2.0, 1.5, 1.0], j));
            (q * k).sum_all().item().unwrap()
        };
        assert!((product(5, 2) - product(8, 5)).abs() < 1e-12);
        assert!((product(5, 2) - product(5, 3)).abs() > 1e-2);
    }
}
