//! A map stored as the product of two thin matrices.

use crate::device::{Tag, tagged};
use crate::module::{Dense, Map, Module, Parameter, Path};
use crate::tensor::Tensor;

/// `W = L R`: L [in, rank] at `factor_in`, R [rank, out] at `factor_out`. Applied as two products; W is never formed.
#[derive(Clone, Debug)]
pub struct Factored {
    /// L, [in, rank].
    pub factor_in: Parameter,
    /// R, [rank, out].
    pub factor_out: Parameter,
}
crate::module!(Factored: factor_in, factor_out);

impl Factored {
    /// The product of these, [in, rank] and [rank, out].
    #[track_caller]
    pub fn new(left: Tensor, right: Tensor) -> Factored {
        let fits = left.shape().len() == 2 && right.shape().len() == 2 && left.shape()[1] == right.shape()[0];
        assert!(fits, "factors of shapes {:?} and {:?} have no rank in common", left.shape(), right.shape());
        Factored { factor_in: Parameter::new(left), factor_out: Parameter::new(right) }
    }

    /// The same with factors that train, or do not.
    pub(super) fn training(mut self, trains: bool) -> Factored {
        if !trains {
            self.factor_in.freeze();
            self.factor_out.freeze();
        }
        self
    }

    /// Columns of L.
    pub fn rank(&self) -> usize {
        self.factor_in.tensor().shape()[1]
    }
}

/// Puts dense matrices in the place of factors, their products, stored as [out, in] where `transposed` says so of a layer's
/// path, tables aside. They train where the factors did. Returns the layers' paths.
pub fn multiply_out(model: &mut dyn Module, transposed: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut done = Vec::new();
    model.visit_maps(&Path::root(), &mut |path, map| {
        let Some(factors) = map.get::<Factored>() else { return };
        let [left, right] = [&factors.factor_in, &factors.factor_out].map(|factor| factor.tensor().detach());
        let path = path.to_string();
        let (transposed, trains) = (!map.is_embedding() && transposed(&path), factors.factor_in.trains());
        let product = tagged(Tag::Weights, || match transposed {
            true => right.t().matmul(&left.t()),
            false => left.matmul(&right),
        });
        let mut dense = Dense { weight: Parameter::new(product), transposed };
        if !trains {
            dense.weight.freeze();
        }
        map.replace(|_| dense);
        done.push(path);
    });
    done
}

impl Map for Factored {
    fn sizes(&self) -> [usize; 2] {
        [self.factor_in.tensor().shape()[0], self.factor_out.tensor().shape()[1]]
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        x.linear(self.factor_in.tensor(), None).linear(self.factor_out.tensor(), bias)
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        x.linear_transposed(self.factor_out.tensor(), None).linear_transposed(self.factor_in.tensor(), None)
    }

    fn rows(&self, ids: &Tensor) -> Tensor {
        self.factor_in.tensor().gather(ids).linear(self.factor_out.tensor(), None)
    }

    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        self.factor_in.tensor().slice(0, start, count).linear(self.factor_out.tensor(), None)
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}
