//! A map stored as the product of two thin matrices.

use crate::module::{Map, Parameter};
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

    /// Columns of L.
    pub fn rank(&self) -> usize {
        self.factor_in.tensor().shape()[1]
    }
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
