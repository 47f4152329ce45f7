//! Moving a frozen weight along a direction that is never stored.

use crate::autograd::{Derivative, Moving, Rule, Saved, Saves};
use crate::device::{Array, Spec};
use crate::ops::project::{Entries, Random};
use crate::ops::{Op, Outputs};
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

/// A direction V [in, out] of a layer's weight.
#[derive(Clone, Debug)]
pub(super) enum Direction {
    /// Random signs.
    Signs(Seed),
    /// u v, of u [in, 1] and v [1, out].
    Outer(Box<[Tensor; 2]>),
}

impl Direction {
    /// x V for x [.., in], as [rows, out].
    pub fn forth(&self, x: &Tensor, outputs: usize) -> Tensor {
        match self {
            Direction::Signs(seed) => x.rows().project_rows(signs(*seed, outputs)),
            Direction::Outer(uv) => x.rows().matmul(&uv[0]).matmul(&uv[1]),
        }
    }

    /// y Vᵀ for y [.., out], as [rows, in].
    pub fn back(&self, y: &Tensor, inputs: usize) -> Tensor {
        match self {
            Direction::Signs(seed) => y.rows().project_rows_back(signs(*seed, y.shape().last_size()), inputs),
            Direction::Outer(uv) => y.rows().matmul(&uv[1].t()).matmul(&uv[0].t()),
        }
    }
}

/// Vᵀ as a projection.
fn signs(seed: Seed, outputs: usize) -> Random {
    Random { entries: Entries::Signs, rank: outputs, seed }
}

/// ε x V at ε = 0, where ε moves: a zero whose tangent is x V, and whose cotangent dY gives x the tangent dY Vᵀ. Operands are
/// that zero and x.
#[derive(Clone)]
pub(super) struct Shift {
    pub moving: Arc<Moving>,
    /// One for each probe.
    pub directions: Vec<Direction>,
    /// dY Vᵀ [rows, in] of each probe, as backward comes by.
    pub returned: Arc<Mutex<Vec<Tensor>>>,
}

impl std::fmt::Debug for Shift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shift along {} directions", self.directions.len())
    }
}

impl Op for Shift {
    fn name(&self) -> &'static str {
        "shift"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        Ok(ins[0])
    }
    fn view(&self, zero: &Array) -> Option<Array> {
        Some(zero.clone())
    }
    fn cpu(&self, _: &[&Array], _: Outputs<'_>) {
        unreachable!("its result is a view")
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }
}

impl Rule for Shift {
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::NONE
    }

    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let Spec { shape, .. } = *saved.spec(1);
        let back = || {
            let dy = self.moving.parts(c).0;
            let back: Vec<Tensor> = self.directions.iter().map(|v| v.back(&dy, shape.last_size())).collect();
            let tangents = back.iter().map(|back| Some(back.reshape(shape))).collect();
            *self.returned.lock().unwrap_or_else(PoisonError::into_inner) = back;
            self.moving.lifted(&Tensor::zeros(shape, dy.dtype(), dy.device()), tangents)
        };
        vec![needs[0].then(|| c.clone()), needs[1].then(back)]
    }

    fn jvp(&self, _: &[Tensor], _: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        tangents[0].clone()
    }
}
