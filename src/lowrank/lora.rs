//! A linear map with an adapter beside it.

use super::dora::factor;
use super::dropout::Narrow;
use super::merge::Merged;
use crate::autograd::{apply_onto, checkpoint};
use crate::module::{Dense, LinearMap, Map, Module, Parameter, Path};
use crate::ops;
use crate::ops::dora::Dora;
use crate::ops::dropout::Mask;
use crate::ops::linear::Linear;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Products with A and with B, as they are stored.
const AS_STORED: Linear = Linear { transposed: false };

/// `x (W + s A B)`, computed as `x W + s (x A) B` (Hu et al., "LoRA", 2021); with lengths of its outputs' own, DoRA (Liu
/// et al. 2024): `m ∘ x (W + s A B) / ‖W + s A B‖`, with a norm for each output that no gradient flows through.
///
/// Parameters are those of W, and beside them `lora_A` [in, r], `lora_B` [r, out] and, for DoRA, `lora_magnitude_vector`
/// `[out]`; in the place of an embedding `lora_embedding_A` and `lora_embedding_B`.
#[derive(Clone, Debug)]
pub struct Lora {
    pub(super) base: LinearMap,
    pub(super) a: Parameter,
    pub(super) b: Parameter,
    pub(super) magnitude: Option<Parameter>,
    pub(super) scale: f64,
    pub(super) merged: Option<Merged>,
    /// Probability that training drops an element of what the adapter is given.
    pub(super) dropout: f64,
    /// Of the pass that runs, see [`with_dropout`](super::with_dropout).
    pub(super) mask: Option<Mask>,
    /// Whether s A₀ B₀ was taken from the base when the adapter was put on.
    pub(super) moved_base: bool,
    /// Whether an output head that shares the table multiplies by the base alone.
    pub(super) rows_only: bool,
}

impl Lora {
    /// An adapter of `base` from A [in, r] and B [r, out].
    #[track_caller]
    pub fn new(base: LinearMap, a: Tensor, b: Tensor, scale: f64) -> Lora {
        let [input, output] = base.sizes();
        let fits = |rank: usize| a.shape()[..] == [input, rank] && b.shape()[..] == [rank, output];
        let shapes = (a.shape(), b.shape());
        assert!(fits(*b.shape().first().unwrap_or(&0)), "an adapter {shapes:?} of a map [{input}, {output}]");
        let (a, b) = (Parameter::new(a), Parameter::new(b));
        let (magnitude, merged, mask) = (None, None, None);
        Lora { base, a, b, magnitude, scale, merged, dropout: 0.0, mask, moved_base: false, rows_only: false }
    }

    /// What is adapted.
    pub fn base(&self) -> &LinearMap {
        &self.base
    }

    /// A [in, r].
    pub fn a(&self) -> &Parameter {
        &self.a
    }

    /// B [r, out].
    pub fn b(&self) -> &Parameter {
        &self.b
    }

    /// Lengths of the outputs, if they have their own.
    pub fn magnitude(&self) -> Option<&Parameter> {
        self.magnitude.as_ref()
    }

    /// Factor on A B.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Rank r.
    pub fn rank(&self) -> usize {
        self.b.tensor().shape()[0]
    }

    /// Probability that training drops an element of what the adapter is given.
    pub fn dropout(&self) -> f64 {
        self.dropout
    }

    /// Whether s A₀ B₀ of the first factors was taken from the base, see [`Start`](super::Start).
    pub fn moved_base(&self) -> bool {
        self.moved_base
    }

    /// Whether an output head that shares this table does without the adapter, see [`Ready`](super::Ready).
    pub fn rows_only(&self) -> bool {
        self.rows_only
    }

    /// Whether the base holds the adapter at present, see [`merge`](super::merge()).
    pub fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    /// Whether the base is all there is: it holds the adapter, or the adapter is still to grow.
    fn is_base(&self) -> bool {
        self.is_merged() || (self.rank() == 0 && self.magnitude.is_none())
    }

    fn names(&self) -> [&'static str; 2] {
        if self.base.is_embedding() { ["lora_embedding_A", "lora_embedding_B"] } else { ["lora_A", "lora_B"] }
    }

    /// The base, if kernels can go over it and the adapter together. Where B trains and A does not, they would keep x,
    /// which then nothing needs; and they drop nothing.
    fn dense(&self) -> Option<&Dense> {
        let only_b = self.b.trains() && !self.a.trains() && self.magnitude.is_none();
        self.base.get::<Dense>().filter(|_| !only_b && self.mask.is_none())
    }

    fn narrow(&self, product: Linear) -> Narrow {
        Narrow { product, scale: self.scale, drop: self.mask.clone().map(|mask| (self.dropout, mask)) }
    }

    /// `z + s (x A) B`, in the place of z.
    fn beside(&self, z: Tensor, x: &Tensor) -> Tensor {
        self.up(z, &self.narrow(AS_STORED).keeping_x(x, self.a.tensor()))
    }

    /// `z + h B`, in the place of z.
    fn up(&self, z: Tensor, h: &Tensor) -> Tensor {
        apply_onto(Arc::new(AS_STORED), &[h, self.b.tensor()], z)
    }

    /// `f ∘ (x W + s drop(x) A B)`, of which backward computes again what would be kept.
    fn scaled_beside(&self, x: &Tensor, factor: &Tensor) -> Tensor {
        let (base, narrow) = (self.base.hollow(), self.narrow(AS_STORED));
        let weights: Vec<Tensor> = self.base.parameters().into_iter().map(|(_, p)| p.tensor().clone()).collect();
        let segment = move |ins: &[Tensor]| {
            let mut base = base.clone();
            base.bind(&ins[4..]);
            let h = narrow.apply(&ins[0], &ins[1]);
            apply_onto(Arc::new(AS_STORED), &[&h, &ins[2]], base.apply(&ins[0], None)) * &ins[3]
        };
        let mut ins = vec![x, self.a.tensor(), self.b.tensor(), factor];
        ins.extend(&weights);
        checkpoint(segment, &ins)
    }

    /// Rows times that, if outputs have lengths of their own.
    fn scaled(&self, rows: Tensor) -> Tensor {
        match self.factor() {
            Some(factor) => rows * factor,
            None => rows,
        }
    }

    /// `m / ‖W + s A B‖`, if outputs have lengths of their own.
    fn factor(&self) -> Option<Tensor> {
        self.magnitude.as_ref().map(|magnitude| factor(self, magnitude.tensor()))
    }
}

impl Module for Lora {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        let [a, b] = self.names();
        self.base.visit(path, see);
        self.a.visit(&path.join(a), see);
        self.b.visit(&path.join(b), see);
        self.magnitude.iter().for_each(|magnitude| magnitude.visit(&path.join("lora_magnitude_vector"), see));
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        let [a, b] = self.names();
        self.base.visit_mut(path, see);
        self.a.visit_mut(&path.join(a), see);
        self.b.visit_mut(&path.join(b), see);
        if let Some(magnitude) = &mut self.magnitude {
            magnitude.visit_mut(&path.join("lora_magnitude_vector"), see);
        }
    }
}

impl Map for Lora {
    fn sizes(&self) -> [usize; 2] {
        self.base.sizes()
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        if self.is_base() {
            return self.base.apply(x, bias);
        }
        let factor = self.factor();
        let Some(base) = self.dense() else {
            return match factor {
                None => self.beside(self.base.apply(x, bias), x),
                Some(factor) => with(self.scaled_beside(x, &factor), bias),
            };
        };
        let op = ops::lora::Lora { scale: self.scale, transposed: base.transposed, adapter_transposed: false };
        let ins = [x, base.weight.tensor(), self.a.tensor(), self.b.tensor()].map(Some);
        let ins = ins.into_iter().chain([factor.as_ref(), bias]).flatten().collect::<Vec<_>>();
        if factor.is_some() { Tensor::apply(Dora(op), &ins) } else { Tensor::apply(op, &ins) }
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        if self.is_base() || self.rows_only {
            return self.base.apply_transposed(x);
        }
        let x = self.scaled(x.clone());
        let (a, b) = (self.a.tensor(), self.b.tensor());
        let Some(base) = self.base.get::<Dense>().filter(|_| self.mask.is_none()) else {
            let back = Linear { transposed: true };
            let h = self.narrow(back).keeping_x(&x, b);
            return apply_onto(Arc::new(back), &[&h, a], self.base.apply_transposed(&x));
        };
        let op = ops::lora::Lora { scale: self.scale, transposed: !base.transposed, adapter_transposed: true };
        Tensor::apply(op, &[&x, base.weight.tensor(), b, a])
    }

    fn rows(&self, ids: &Tensor) -> Tensor {
        if self.is_base() {
            return self.base.rows(ids);
        }
        self.scaled(self.up(self.base.rows(ids), &(self.a.tensor().gather(ids) * self.scale)))
    }

    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        if self.is_base() {
            return self.base.rows_between(start, count);
        }
        let rows = self.base.rows_between(start, count).contiguous();
        self.scaled(self.up(rows, &(self.a.tensor().slice(0, start, count) * self.scale)))
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

fn with(y: Tensor, bias: Option<&Tensor>) -> Tensor {
    match bias {
        Some(bias) => y + bias,
        None => y,
    }
}
