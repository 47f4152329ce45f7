//! Data, as sensitivities see it.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::rng::Seed;
use crate::tensor::Tensor;
use rand::RngExt;

/// Batches, and what a model's loss on one is.
pub trait Losses<M> {
    /// Batches there are.
    fn batches(&self) -> u64;

    /// Targets of a batch that count: its loss is their mean, and it weighs so much among others.
    fn counted(&self, batch: u64) -> usize;

    /// Mean loss over the targets that count, a scalar.
    fn loss(&self, model: &M, batch: u64) -> Result<Tensor>;

    /// The same with targets that are drawn from what the model itself says of them, each for itself: what makes squared
    /// gradients an estimate of the Gauss-Newton matrix of cross-entropy.
    fn drawn(&self, model: &M, batch: u64, seed: Seed) -> Result<Tensor>;
}

/// The part that a batch has in the mean over all.
pub(super) fn share<M>(losses: &dyn Losses<M>, batch: u64) -> f64 {
    let all: usize = (0..losses.batches()).map(|batch| losses.counted(batch)).sum();
    losses.counted(batch) as f64 / all as f64
}

/// The only elements of these, 0 for none, in one transfer from the device; zeros on the null device, which has no numbers.
pub(super) fn numbers(all: &[Option<Tensor>]) -> Result<Vec<f64>> {
    let there: Vec<Tensor> = all.iter().flatten().map(|x| x.detach().reshape([1])).collect();
    let mut found = match there.first() {
        Some(first) if first.device().computes() => {
            let joined = Tensor::concat(&there.iter().collect::<Vec<_>>(), 0);
            joined.to_device(&Device::cpu())?.cast(DType::F64).to_vec::<f64>()?
        }
        _ => vec![0.0; there.len()],
    }
    .into_iter();
    Ok(all.iter().map(|x| x.as_ref().and_then(|_| found.next()).unwrap_or(0.0)).collect())
}

/// One index for each row of logits [rows, classes], drawn from their softmax by a seed; read on the host.
pub fn draw_targets(logits: &Tensor, seed: Seed) -> Result<Vec<u32>> {
    let logits = logits.detach().rows().cast(DType::F32);
    let (rows, classes) = (logits.shape()[0], logits.shape()[1]);
    if !logits.device().computes() {
        return Ok(vec![0; rows]);
    }
    let values = logits.to_vec::<f32>()?;
    let mut stream = seed.stream();
    Ok(values.chunks(classes).map(|row| draw(row, stream.random::<f64>())).collect())
}

/// The index at which softmax's sum passes `part` of 1.
fn draw(logits: &[f32], part: f64) -> u32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let weights = || logits.iter().map(|&x| (x as f64 - highest).exp());
    let mut left = part * weights().sum::<f64>();
    let passes = |weight: f64| {
        left -= weight;
        left < 0.0
    };
    weights().position(passes).unwrap_or(logits.len() - 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20,000 draws: each frequency within five standard deviations.
    #[test]
    fn draws_are_as_likely_as_softmax_says() {
        let row = [0.3_f32, -1.0, 1.4, 0.0];
        let logits = Tensor::new(&row.repeat(20_000), [20_000, 4], &Device::cpu());
        let mut counts = [0.0_f64; 4];
        draw_targets(&logits, Seed(1)).unwrap().iter().for_each(|&i| counts[i as usize] += 1.0);
        let all: f64 = row.iter().map(|x| (*x as f64).exp()).sum();
        for (count, x) in counts.iter().zip(row) {
            let p = (x as f64).exp() / all;
            assert!((count - 20_000.0 * p).abs() < 5.0 * (20_000.0 * p * (1.0 - p)).sqrt(), "{counts:?}");
        }
    }
}
