//! Sample operands: what every generic test, and `check`, is fed.

use super::Op;
use crate::device::Device;
use crate::dtype::{DType, Element};
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;
use rand::RngExt;
use std::sync::Arc;

/// An op with operands to try it on.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The op, with its constants.
    pub op: Arc<dyn Op>,
    /// What its operands are.
    pub inputs: Vec<Input>,
}

/// One operand. Values come from a seed; ranges keep clear of kinks and ties.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its sizes.
    pub shape: Shape,
    /// Its values.
    pub fill: Fill,
    /// Whether the op has a derivative in it.
    pub differentiable: bool,
}

/// How an operand's values are drawn.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Uniform in [low, high].
    Range {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Uniform in [−high, −low] and [low, high]: clear of 0.
    Away {
        /// Smallest magnitude.
        low: f64,
        /// Largest magnitude.
        high: f64,
    },
    /// Distinct values at least `gap` apart, shuffled over the whole operand: clear of ties.
    Distinct {
        /// Smallest distance between two values.
        gap: f64,
    },
    /// u32 below a bound.
    Index {
        /// The bound.
        below: u32,
    },
    /// These values.
    Values(Vec<f64>),
    /// These indices.
    Indices(Vec<u32>),
}

impl Sample {
    /// An op and its operands.
    pub fn new(op: impl Op + 'static, inputs: impl Into<Vec<Input>>) -> Sample {
        Sample { op: Arc::new(op), inputs: inputs.into() }
    }

    /// The op's result for operands like these.
    #[track_caller]
    pub fn apply(&self, ins: &[&Tensor]) -> Tensor {
        crate::autograd::apply(self.op.clone(), ins)
    }

    /// Operands in type `dtype` (where they are not indices), the same numbers whatever the type and device.
    pub fn tensors(&self, seed: Seed, dtype: DType, device: &Device) -> Vec<Tensor> {
        let seed = seed.named(self.op.name());
        self.inputs.iter().enumerate().map(|(i, input)| input.tensor(seed.fold(i as u64), dtype, device)).collect()
    }
}

impl Input {
    fn new(shape: impl Into<Shape>, fill: Fill) -> Input {
        let differentiable = !matches!(fill, Fill::Index { .. } | Fill::Indices(_));
        Input { shape: shape.into(), fill, differentiable }
    }

    /// Uniform in [−1.5, 1.5].
    pub fn normal(shape: impl Into<Shape>) -> Input {
        Input::range(shape, -1.5, 1.5)
    }

    /// Uniform in [low, high].
    pub fn range(shape: impl Into<Shape>, low: f64, high: f64) -> Input {
        Input::new(shape, Fill::Range { low, high })
    }

    /// Of either sign, with magnitudes in [low, high].
    pub fn away(shape: impl Into<Shape>, low: f64, high: f64) -> Input {
        Input::new(shape, Fill::Away { low, high })
    }

    /// All values at least `gap` apart.
    pub fn distinct(shape: impl Into<Shape>, gap: f64) -> Input {
        Input::new(shape, Fill::Distinct { gap })
    }

    /// u32 below `below`.
    pub fn index(shape: impl Into<Shape>, below: u32) -> Input {
        Input::new(shape, Fill::Index { below })
    }

    /// These numbers.
    pub fn values(shape: impl Into<Shape>, values: impl Into<Vec<f64>>) -> Input {
        Input::new(shape, Fill::Values(values.into()))
    }

    /// These indices.
    pub fn indices(shape: impl Into<Shape>, values: impl Into<Vec<u32>>) -> Input {
        Input::new(shape, Fill::Indices(values.into()))
    }

    /// Constant for the op: it has no derivative in this operand.
    pub fn constant(self) -> Input {
        Input { differentiable: false, ..self }
    }

    /// Draws the operand.
    pub fn tensor(&self, seed: Seed, dtype: DType, device: &Device) -> Tensor {
        let count = self.shape.count();
        let mut random = seed.stream();
        let mut uniform = move |low: f64, high: f64| low + (high - low) * random.random::<f64>();
        let values: Vec<f64> = match &self.fill {
            Fill::Range { low, high } => (0..count).map(|_| uniform(*low, *high)).collect(),
            Fill::Away { low, high } => {
                (0..count).map(|_| uniform(*low, *high) * if uniform(0.0, 1.0) < 0.5 { -1.0 } else { 1.0 }).collect()
            }
            Fill::Distinct { gap } => {
                let mut keyed: Vec<(f64, f64)> = (0..count)
                    .map(|i| (uniform(0.0, 1.0), (i as f64 - count as f64 / 2.0 + uniform(0.1, 0.4)) * gap * 1.5))
                    .collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                keyed.into_iter().map(|(_, value)| value).collect()
            }
            Fill::Index { below } => (0..count).map(|_| uniform(0.0, *below as f64).floor()).collect(),
            Fill::Values(values) => values.clone(),
            Fill::Indices(values) => values.iter().map(|&v| v as f64).collect(),
        };
        let dtype = if matches!(self.fill, Fill::Index { .. } | Fill::Indices(_)) { DType::U32 } else { dtype };
        crate::element!(dtype, T => {
            let values: Vec<T> = values.into_iter().map(T::from_f64).collect();
            Tensor::new(&values, self.shape, device)
        })
    }
}
