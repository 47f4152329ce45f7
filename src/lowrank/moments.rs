//! Second moments of what goes into layers, gathered batch by batch without keeping activations.

use super::names;
use crate::autograd::apply_onto;
use crate::error::Result;
use crate::module::{LinearMap, Map, Module, Parameter, Path};
use crate::ops::matmul::Matmul;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

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

/// Counts the inputs of a map, and is that map otherwise.
#[derive(Debug)]
struct Recorder {
    inner: LinearMap,
    seen: Arc<Mutex<Sum>>,
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows", self.rows)
    }
}

fn lock(sum: &Mutex<Sum>) -> MutexGuard<'_, Sum> {
    sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Recorder {
    /// `sum += xᵀ x`, in its storage.
    fn note(&self, x: &Tensor) {
        let x = x.detach().rows();
        let mut seen = lock(&self.seen);
        seen.rows += x.shape()[0] as u64;
        seen.sum = Some(match seen.sum.take() {
            Some(sum) => apply_onto(Arc::new(Matmul), &[&x.t(), &x], sum),
            None => x.t().matmul(&x),
        });
    }
}

impl Module for Recorder {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.inner.visit(path, see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.inner.visit_mut(path, see);
    }
}

impl Map for Recorder {
    fn sizes(&self) -> [usize; 2] {
        self.inner.sizes()
    }
    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.note(x);
        self.inner.apply(x, bias)
    }
    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        self.inner.apply_transposed(x)
    }
    fn rows(&self, ids: &Tensor) -> Tensor {
        self.inner.rows(ids)
    }
    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        self.inner.rows_between(start, count)
    }
    fn boxed(&self) -> Box<dyn Map> {
        Box::new(Recorder { inner: self.inner.clone(), seen: self.seen.clone() })
    }
}

/// A model whose maps are recorded as long as this lives.
struct Recorded<'a, M: Module>(&'a mut M);

impl<M: Module> Drop for Recorded<'_, M> {
    fn drop(&mut self) {
        self.0.visit_maps(&Path::root(), &mut |_, map| {
            if let Some(recorder) = map.get::<Recorder>() {
                *map = recorder.inner.clone();
            }
        });
    }
}

/// Second moments of the inputs of the layers that are meant (see [`bank`](super::bank())), over what `run` sends through
/// the model: batches of its own, forwards. One [in, in] sum for each layer is held, whatever the number of batches;
/// rows of the map and products with its transpose, as a tied embedding has them, are not inputs. Afterwards the model is
/// what it was. A name without a layer is an error, as is one that `run` returns.
pub fn moments<M: Module>(model: &mut M, names: &[&str], run: impl FnOnce(&M) -> Result<()>) -> Result<Moments> {
    let chosen = names::chosen(model, names)?;
    let mut sums: BTreeMap<String, Arc<Mutex<Sum>>> = BTreeMap::new();
    let recorded = Recorded(model);
    recorded.0.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if chosen.contains(&path) {
            let seen = Arc::default();
            *map = LinearMap::new(Recorder { inner: map.clone(), seen: Arc::clone(&seen) });
            sums.insert(path, seen);
        }
    });
    run(recorded.0)?;
    drop(recorded);
    Ok(Moments(sums.into_iter().map(|(path, sum)| (path, lock(&sum).clone())).collect()))
}
