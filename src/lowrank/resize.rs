//! Adapters of another rank.

use super::Lora;
use super::start::Site;
use super::svd::{Svd, orthonormal, svd};
use crate::error::{Error, Result};
use crate::rng::Seed;
use crate::tensor::Tensor;

impl Lora {
    /// Gives the adapter rank `rank` without a change of what it computes: new columns of A are drawn as at a uniform
    /// start, new rows of B are zero (in the place of an embedding the other way round, B normal), and s stays. Call
    /// [`Optimizer::resize`](crate::optim::Optimizer::resize) after, so that the optimizer knows the new shapes.
    ///
    /// A rank below the present one or above the smaller side is an error, as is an adapter that is merged.
    pub fn grow(&mut self, rank: usize, seed: Seed) -> Result<()> {
        self.apart()?;
        let [input, output] = self.base.sizes();
        let (old, most) = (self.rank(), input.min(output));
        if rank < old || rank > most {
            return Err(Error::Config(format!(
                "an adapter of rank {old} grown to {rank}: give one from {old} to {most}"
            )));
        }
        if rank == old {
            return Ok(());
        }
        let site = self.site(rank - old, seed);
        let start = super::Start::Uniform.factors(&site)?;
        let a = Tensor::concat(&[&self.a.tensor().detach(), &start.a], 1);
        let b = Tensor::concat(&[&self.b.tensor().detach(), &start.b], 0);
        self.a.set(a);
        self.b.set(b);
        Ok(())
    }

    /// Gives the adapter one rank more for each of these columns [in, k], of length 1, without a change of what it computes:
    /// they become columns of A, as long as those of a uniform start, and new rows of B are zero, so that the first step
    /// moves along them; s stays. Call [`Optimizer::resize`](crate::optim::Optimizer::resize) after.
    ///
    /// An adapter that is merged is an error, as is a rank above the smaller side.
    #[track_caller]
    pub fn grow_along(&mut self, columns: &Tensor) -> Result<()> {
        self.apart()?;
        let [input, output] = self.base.sizes();
        assert_eq!(columns.shape()[0], input, "columns of shape {:?} for a map [{input}, {output}]", columns.shape());
        let (old, rank) = (self.rank(), self.rank() + columns.shape()[1]);
        if rank > input.min(output) {
            let most = input.min(output);
            return Err(Error::Config(format!(
                "an adapter of rank {old} grown to {rank}: its layer has {most} at most"
            )));
        }
        let (a, b) = (self.a.tensor().detach(), self.b.tensor().detach());
        let zeros = Tensor::zeros([rank - old, output], b.dtype(), b.device());
        self.a.set(Tensor::concat(&[&a, &(columns * (1.0 / 3.0_f64).sqrt())], 1));
        self.b.set(Tensor::concat(&[&b, &zeros], 0));
        Ok(())
    }

    /// Keeps the first `rank` columns of A and rows of B; with none, the layer is as it was without an adapter.
    pub(crate) fn cut(&mut self, rank: usize) {
        let (a, b) = (self.a.tensor().detach(), self.b.tensor().detach());
        // In storages of their own: a view would keep what is cut off.
        let own = |x: Tensor| Tensor::from_array(x.array().to_owned());
        self.a.set(own(a.slice(1, 0, rank)));
        self.b.set(own(b.slice(0, 0, rank)));
    }

    /// Gives the adapter rank `rank` and factors of zero, to be filled: what a checkpoint of a model that has grown needs.
    pub(crate) fn emptied(&mut self, rank: usize) {
        let [input, output] = self.base.sizes();
        let like = self.a.tensor();
        let zeros = |shape: [usize; 2]| Tensor::zeros(shape, like.dtype(), like.device()).contiguous();
        let (a, b) = (zeros([input, rank]), zeros([rank, output]));
        self.a.set(a);
        self.b.set(b);
    }

    fn apart(&self) -> Result<()> {
        match self.is_merged() {
            true => Err(Error::Config("an adapter that is merged keeps its rank: unmerge it first".into())),
            false => Ok(()),
        }
    }

    /// What a start has to know to draw `rank` columns more.
    fn site(&self, rank: usize, seed: Seed) -> Site<'_> {
        let (dtype, device) = (self.a.tensor().dtype(), self.a.tensor().device().clone());
        let (sizes, embedding) = (self.base.sizes(), self.base.is_embedding());
        Site { path: "", sizes, embedding, dense: None, rank, scale: self.scale, dtype, device, seed }
    }

    /// Gives the adapter rank `rank` with as little change of A B as can be, in the Frobenius norm: by singular values of
    /// A B, see [`product_svd`]; s stays. State
    /// that an optimizer has of A and B means nothing for the new ones, see
    /// [`Optimizer::resize`](crate::optim::Optimizer::resize).
    ///
    /// A rank of 0 or above the present one is an error, as are factors that are not finite and an adapter that is merged.
    pub fn shrink(&mut self, rank: usize) -> Result<()> {
        self.apart()?;
        let old = self.rank();
        if rank == 0 || rank > old {
            return Err(Error::Config(format!("an adapter of rank {old} shrunk to {rank}: give one from 1 to {old}")));
        }
        let found = product_svd(&self.a.tensor().detach(), &self.b.tensor().detach())?.truncated(rank);
        let root = found.s.sqrt();
        self.a.set(found.u * &root);
        self.b.set((found.v * &root).t().contiguous());
        Ok(())
    }
}

/// The singular value decomposition of A B, for A [in, r] and B [r, out], with min(r, in, out) values: found from that of
/// a matrix of r rows and columns between orthonormal bases of A and of Bᵀ. A B itself is formed only where r is above one
/// of its sides.
///
/// Factors that are not finite are an error.
#[track_caller]
pub fn product_svd(a: &Tensor, b: &Tensor) -> Result<Svd> {
    let (input, output, rank) = (a.shape()[0], b.shape()[1], a.shape()[1]);
    if rank > input.min(output) {
        return svd(&a.matmul(b));
    }
    let (left, right) = (orthonormal(a)?, orthonormal(&b.t())?); // [in, r], [out, r]
    let core = left.t().matmul(a).matmul(&b.matmul(&right)); // [r, r]
    let found = svd(&core)?;
    Ok(Svd { u: left.matmul(&found.u), s: found.s, v: right.matmul(&found.v) })
}
