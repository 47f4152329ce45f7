//! Symmetric matrices that can only be multiplied by, such as a Hessian, and the vectors that they take: in pieces, one
//! tensor for each parameter.

use super::losses::{Losses, numbers, share};
use crate::autograd::hvp;
use crate::device::{Device, Spec};
use crate::error::Result;
use crate::float;
use crate::module::Module;
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::cell::RefCell;

/// A vector in pieces.
pub type Vector = Vec<Tensor>;

/// A symmetric matrix that can only be multiplied by.
pub trait Symmetric {
    /// Types and shapes of the pieces of a vector.
    fn pieces(&self) -> Vec<Spec>;

    /// Where vectors lie.
    fn device(&self) -> Device;

    /// Products with several vectors, which may be cheaper together.
    fn times(&self, vectors: &[Vector]) -> Result<Vec<Vector>>;

    /// Rows and columns.
    fn size(&self) -> usize {
        self.pieces().iter().map(|spec| spec.shape.count()).sum()
    }
}

/// The Hessian of a model's loss, averaged over batches, in the parameters that train. A product is about two gradients, its
/// memory that of a gradient and as much again for each vector.
pub struct Hessian<'a, M> {
    model: M,
    losses: &'a dyn Losses<M>,
}

impl<'a, M: Module + Clone> Hessian<'a, M> {
    /// Of this model at its present parameters.
    pub fn new(model: &M, losses: &'a dyn Losses<M>) -> Hessian<'a, M> {
        Hessian { model: model.clone(), losses }
    }

    fn trained(&self) -> Vec<Tensor> {
        let trains =
            |(_, parameter): (String, crate::Parameter)| parameter.trains().then(|| parameter.tensor().detach());
        self.model.parameters().into_iter().filter_map(trains).collect()
    }

    /// Loss of a batch, with these in the place of what trains.
    fn loss(&self, trained: &[Tensor], batch: u64) -> Result<Tensor> {
        let mut trained = trained.iter();
        let bound: Vec<Tensor> = self
            .model
            .parameters()
            .iter()
            .map(|(_, p)| if p.trains() { trained.next().expect("one for each").clone() } else { p.tensor().clone() })
            .collect();
        let mut model = self.model.clone();
        model.bind(&bound);
        self.losses.loss(&model, batch)
    }
}

impl<M: Module + Clone> Symmetric for Hessian<'_, M> {
    fn pieces(&self) -> Vec<Spec> {
        self.trained().iter().map(Tensor::spec).collect()
    }

    fn device(&self) -> Device {
        self.model.parameters()[0].1.tensor().device().clone()
    }

    fn times(&self, vectors: &[Vector]) -> Result<Vec<Vector>> {
        let parameters = self.trained();
        let directions: Vec<_> = vectors.iter().map(|v| v.iter().cloned().map(Some).collect()).collect();
        let mut sums: Vec<Vector> = vec![Vec::new(); vectors.len()];
        for batch in 0..self.losses.batches() {
            // The function cannot fail, so that it hands a failure over beside a scalar.
            let failure = RefCell::new(None);
            let loss = |p: &[Tensor]| {
                self.loss(p, batch).unwrap_or_else(|error| {
                    *failure.borrow_mut() = Some(error);
                    p[0].sum_all()
                })
            };
            let found = hvp(loss, &parameters, &directions);
            failure.into_inner().map_or(Ok(()), Err)?;
            let share = share(self.losses, batch);
            for (sum, product) in sums.iter_mut().zip(found.products) {
                let parts: Vector = product.iter().map(|part| part * share).collect();
                *sum = if sum.is_empty() { parts } else { sum.iter().zip(&parts).map(|(a, b)| a + b).collect() };
            }
        }
        Ok(sums)
    }
}

/// ⟨a, b⟩.
pub(super) fn dot(a: &Vector, b: &Vector) -> Result<f64> {
    let products: Vec<Option<Tensor>> = a.iter().zip(b).map(|(a, b)| Some(a.dot(b))).collect();
    Ok(numbers(&products)?.into_iter().sum())
}

/// `a + factor b`.
pub(super) fn plus(a: &Vector, factor: f64, b: &Vector) -> Vector {
    a.iter().zip(b).map(|(a, b)| a + b * factor).collect()
}

pub(super) fn scaled(a: &Vector, factor: f64) -> Vector {
    a.iter().map(|a| a * factor).collect()
}

/// Random signs, a function of the seed.
pub(super) fn signs(of: &dyn Symmetric, seed: Seed) -> Vector {
    let (device, mut stream) = (of.device(), seed.stream());
    let mut sign = || if rand::Rng::next_u32(&mut stream) & 1 == 0 { 1.0 } else { -1.0 };
    let piece = |spec: Spec| {
        float!(spec.dtype, T => {
            let values: Vec<T> = (0..spec.shape.count()).map(|_| sign() as T).collect();
            Tensor::new(&values, spec.shape, &device)
        })
    };
    of.pieces().into_iter().map(piece).collect()
}

/// `v` without its parts along an orthonormal basis; twice, because once leaves what rounding makes.
pub(super) fn orthogonal(mut v: Vector, basis: &[Vector]) -> Result<Vector> {
    for _ in 0..2 {
        for q in basis {
            v = plus(&v, -dot(q, &v)?, q);
        }
    }
    Ok(v)
}
