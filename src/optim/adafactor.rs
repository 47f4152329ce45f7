//! Adafactor (Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018), in parts.
//!
//! The order of the parts is that of Flora's published code, second moment, momentum, clip, so that the low-rank
//! optimizers differ from this one in nothing but what they compress.

use super::{At, Chain, ChangeBasis, Slot, Transform};
use crate::device::{Array, Spec};
use crate::tensor::Tensor;

/// Added to squares (the paper's ε₁).
const TINY: f64 = 1e-30;
/// Least size of a parameter for its step (the paper's ε₂).
const SMALLEST: f64 = 1e-3;

/// Adafactor; `momentum` is the decay of a dense running mean of updates, none for 0. State of a matrix [m, n]: m + n
/// floats, with momentum mn more.
pub fn adafactor(momentum: f64, scale_parameter: bool) -> Chain {
    let mut links: Vec<Box<dyn Transform>> = vec![Box::new(Factored::default())];
    if momentum > 0.0 {
        links.push(Box::new(Mean { beta: momentum }));
    }
    links.push(Box::new(ClipRms { threshold: 1.0 }));
    if scale_parameter {
        links.push(Box::new(ScaleByWeight));
    }
    Chain(links)
}

/// Divides by the root of the second moment, which for a matrix is kept as its means along rows and columns
/// (Algorithm 4): V ≈ R Cᵀ / mean(R). State of a matrix [m, n]: m + n floats; of anything else, one for each element.
#[derive(Clone, Copy, Debug)]
pub struct Factored {
    /// The second moment's decay at step t is 1 − t^`exponent`.
    pub exponent: f64,
}

impl Default for Factored {
    /// The paper's decay.
    fn default() -> Self {
        Factored { exponent: -0.8 }
    }
}

impl Transform for Factored {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        let vector = |size: usize| Spec::new(parameter.dtype, [size]);
        match parameter.shape[..] {
            [rows, columns] => vec![("rows", vector(rows)), ("columns", vector(columns))],
            _ => vec![("square", *parameter)],
        }
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], gradient: Array) -> Array {
        let g = Tensor::from_array(at.scaled(gradient));
        let share = at.time().powf(self.exponent);
        let squares = &g * &g + TINY;
        let move_to = |slot: &mut Array, now: Tensor| {
            let old = Tensor::from_array(slot.clone());
            let mean = &old + (now - &old) * &share;
            drop(old);
            at.store(slot, mean.clone());
            mean
        };
        match state {
            [rows, columns] => {
                let rows = move_to(rows, squares.mean(&[1]));
                let columns = move_to(columns, squares.mean(&[0]));
                let rows = (&rows / rows.mean_all()).rsqrt().unsqueeze(1);
                g * rows * columns.rsqrt()
            }
            [square] => g * move_to(square, squares).rsqrt(),
            _ => unreachable!("one slot or two"),
        }
        .into_array()
    }
}

/// A running mean: u = β u + (1 − β) g. State: 1 float a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    /// Decay.
    pub beta: f64,
}

impl Transform for Mean {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        vec![("momentum", *parameter)]
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], gradient: Array) -> Array {
        let g = Tensor::from_array(at.scaled(gradient));
        let mean = Tensor::from_array(state[0].clone()) * self.beta + g * (1.0 - self.beta);
        at.store(&mut state[0], mean.clone());
        mean.into_array()
    }

    fn mean(&self) -> Option<[f64; 2]> {
        Some([self.beta, 1.0 - self.beta])
    }

    fn moves(&self) -> Option<&dyn ChangeBasis> {
        Some(self)
    }
}

impl ChangeBasis for Mean {
    fn change_basis(&self, at: &At<'_>, state: &mut [Array], q: &Tensor) {
        let moved = q.matmul(&Tensor::from_array(state[0].clone()));
        at.store(&mut state[0], moved);
    }
}

/// Scales an update down whose root mean square is above a threshold (Algorithm 4, line 8).
#[derive(Clone, Copy, Debug)]
pub struct ClipRms {
    /// Largest root mean square.
    pub threshold: f64,
}

impl Transform for ClipRms {
    fn state(&self, _: &Spec) -> Vec<Slot> {
        Vec::new()
    }

    fn update(&self, at: &At<'_>, _: &mut [Array], gradient: Array) -> Array {
        let u = Tensor::from_array(at.scaled(gradient));
        let excess = rms(&u) / self.threshold;
        let one = excess.constant_like(1.0);
        (u / excess.maximum(&one)).into_array()
    }
}

/// Steps in proportion to the parameter's own size (Algorithm 4, line 4): times max(ε₂, RMS(W)).
#[derive(Clone, Copy, Debug)]
pub struct ScaleByWeight;

impl Transform for ScaleByWeight {
    fn state(&self, _: &Spec) -> Vec<Slot> {
        Vec::new()
    }

    fn update(&self, at: &At<'_>, _: &mut [Array], gradient: Array) -> Array {
        let u = Tensor::from_array(at.scaled(gradient));
        let size = rms(&Tensor::from_array(at.weight.clone()));
        let least = size.constant_like(SMALLEST);
        (u * size.maximum(&least)).into_array()
    }
}

/// Root mean square of all elements.
fn rms(x: &Tensor) -> Tensor {
    (x * x).mean_all().sqrt()
}
