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
