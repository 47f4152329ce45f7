//! Second moments of what goes into layers, gathered batch by batch without keeping activations.

use super::names;
use super::watch::{Watch, Watched};
use crate::autograd::apply_onto;
use crate::error::Result;
use crate::module::{LinearMap, Module};
use crate::ops::matmul::Matmul;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Second moments E[x xᵀ] of layers' inputs, by the layers' paths.
#[derive(Default)]
pub struct Moments(BTreeMap<String, Sum>);

/// Σ x xᵀ and how many x there were.
#[derive(Clone, Default)]
struct Sum {
    /// [in, in]; none before the first.
    sum: Option<Tensor>,
    rows: u64,
}

impl Moments {
    /// E[x xᵀ], [in, in], in the type and on the device of the layer's inputs; none if it had no inputs.
    pub fn get(&self, path: &str) -> Option<Tensor> {
        let Sum { sum, rows } = self.0.get(path)?;
        Some(sum.as_ref()? * (1.0 / *rows as f64))
    }

    /// How many inputs of a layer were counted: one for each token.
    pub fn rows(&self, path: &str) -> u64 {
        self.0.get(path).map_or(0, |sum| sum.rows)
    }
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows", self.rows)
    }
}

/// Counts the inputs of a map.
#[derive(Debug, Default)]
struct Recorder(Mutex<Sum>);

impl Watch for Recorder {
    /// `sum += xᵀ x`, in its storage.
    fn apply(&self, map: &LinearMap, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let rows = x.detach().rows();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.rows += rows.shape()[0] as u64;
        seen.sum = Some(match seen.sum.take() {
            Some(sum) => apply_onto(Arc::new(Matmul), &[&rows.t(), &rows], sum),
            None => rows.t().matmul(&rows),
        });
        drop(seen);
        map.apply(x, bias)
    }
}

/// Second moments of the inputs of the layers that are meant (see [`bank`](super::bank())), over what `run` sends through
/// the model: batches of its own, forwards. One [in, in] sum for each layer is held, whatever the number of batches;
/// rows of the map and products with its transpose, as a tied embedding has them, are not inputs. Afterwards the model is
/// what it was. A name without a layer is an error, as is one that `run` returns.
pub fn moments<M: Module>(model: &mut M, names: &[&str], run: impl FnOnce(&M) -> Result<()>) -> Result<Moments> {
    let chosen = names::chosen(model, names)?;
    let recorders: BTreeMap<String, Arc<Recorder>> = chosen.into_iter().map(|path| (path, Arc::default())).collect();
    let watched = Watched::new(model, |path| recorders.get(path).map(|recorder| recorder.clone() as Arc<dyn Watch>));
    run(watched.model())?;
    drop(watched);
    let sum = |recorder: Arc<Recorder>| recorder.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Moments(recorders.into_iter().map(|(path, recorder)| (path, sum(recorder))).collect()))
}
