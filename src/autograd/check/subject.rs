//! An op under test, as a function of the operands that have a derivative.

use crate::autograd::Direction;
use crate::device::{Array, Device, Spec};
use crate::dtype::DType;
use crate::ops::{Input, Sample};
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Operands of a sample in double precision on the host.
pub(super) struct Subject<'a> {
    pub sample: &'a Sample,
    pub device: Device,
    pub ins: Vec<Tensor>,
    /// Operands that it can be differentiated in.
    pub moving: Vec<usize>,
    seed: Seed,
}

impl<'a> Subject<'a> {
    pub fn new(sample: &'a Sample, seed: Seed) -> Subject<'a> {
        let device = Device::cpu();
        let ins = sample.tensors(seed, DType::F64, &device);
        let moves = |&i: &usize| sample.inputs[i].differentiable && ins[i].dtype() == DType::F64;
        let moving = (0..ins.len()).filter(moves).collect();
        Subject { sample, device, ins, moving, seed: seed.named("directions") }
    }

    /// Whether the result is of a type that rounds, so that differences of it mean nothing.
    pub fn rounds(&self) -> bool {
        self.value().dtype() != DType::F64
    }

    /// A view is made without a look at what was inferred, and a device without contents has nothing else to go by.
    pub fn keeps_promise(&self) {
        let specs: Vec<Spec> = self.ins.iter().map(Tensor::spec).collect();
        let op = &self.sample.op;
        assert_eq!(op.infer(&specs), Ok(self.value().spec()), "{}: what was inferred and what was made", op.name());
    }

    pub fn value(&self) -> Tensor {
        self.with(&[], &[])
    }

    /// The result with the operands `which` replaced by `x`.
    pub fn with(&self, which: &[usize], x: &[Tensor]) -> Tensor {
        let mut ins: Vec<&Tensor> = self.ins.iter().collect();
        for (&i, x) in which.iter().zip(x) {
            ins[i] = x;
        }
        self.sample.apply(&ins)
    }

    /// The operands `which`.
    pub fn operands(&self, which: &[usize]) -> Vec<Tensor> {
        which.iter().map(|&i| self.ins[i].clone()).collect()
    }

    /// The operands `which` as leaves.
    pub fn leaves(&self, which: &[usize]) -> Vec<Tensor> {
        which.iter().map(|&i| self.ins[i].leaf()).collect()
    }

    /// Random numbers in a shape, the same for the same `draw`.
    pub fn random(&self, shape: &Shape, draw: usize) -> Tensor {
        Input::normal(*shape).tensor(self.seed.fold(draw as u64), DType::F64, &self.device)
    }

    /// A random direction of the operands `which`.
    pub fn direction(&self, which: &[usize], draw: usize) -> Direction {
        which.iter().map(|&i| Some(self.random(self.ins[i].shape(), 100 * draw + i))).collect()
    }

    /// Element `k` of a basis of the tensors of a shape.
    pub fn unit(&self, shape: &Shape, k: usize) -> Tensor {
        let mut unit = vec![0.0; shape.count()];
        unit[k] = 1.0;
        Tensor::new(&unit, *shape, &self.device)
    }

    /// Each operand alone, and all but each: what is left when the others need no derivative.
    pub fn subsets(&self) -> Vec<Vec<usize>> {
        if self.moving.len() < 2 {
            return Vec::new();
        }
        let alone = self.moving.iter().map(|&i| vec![i]);
        let others = self.moving.iter().map(|&i| self.moving.iter().copied().filter(|&j| j != i).collect());
        alone.chain(others).collect()
    }
}

/// Derivative at 0 of a function of one number, by the central difference of fourth order. Its error is
/// h⁴ f⁽⁵⁾/30 from the stencil and about 2⁻⁵³/h from rounding; samples keep clear of kinks by more than 2h.
pub(super) fn slope(f: impl Fn(f64) -> Vec<f64>) -> Vec<f64> {
    const H: f64 = 1e-3;
    let (near, far) = ((f(H), f(-H)), (f(2.0 * H), f(-2.0 * H)));
    let at = |i: usize| (8.0 * (near.0[i] - near.1[i]) - (far.0[i] - far.1[i])) / (12.0 * H);
    (0..near.0.len()).map(at).collect()
}

/// `x + t v`.
pub(super) fn displaced(x: &[Tensor], v: &Direction, t: f64) -> Vec<Tensor> {
    x.iter().zip(v).map(|(x, v)| v.as_ref().map_or_else(|| x.clone(), |v| x + &(v * t))).collect()
}

/// The elements of a tensor of any type.
pub(super) fn numbers(x: &Tensor) -> Vec<f64> {
    x.detach().cast(DType::F64).to_vec().expect("the host reads its own memory")
}

/// The elements of several tensors, one after the other.
pub(super) fn all_numbers(x: &[Tensor]) -> Vec<f64> {
    x.iter().flat_map(numbers).collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

pub(super) fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// ‖a − b‖ / max(‖b‖, 1).
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "a derivative has as many elements as what it is compared with");
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(b).max(1.0)
}

/// [`distance`] of two lists of tensors.
pub(super) fn apart(a: &[Tensor], b: &[Tensor]) -> f64 {
    distance(&all_numbers(a), &all_numbers(b))
}

/// A tensor of an array's elements, wherever they lie.
pub(super) fn copied(x: &Array) -> Tensor {
    Tensor::from_array(x.clone()).contiguous()
}
