//! Maps that something looks over while a model runs.

use crate::module::{LinearMap, Map, Module, Parameter, Path};
use crate::tensor::Tensor;
use std::fmt::Debug;
use std::sync::Arc;

/// What looks over a map.
pub(crate) trait Watch: Debug + Send + Sync {
    /// `x W + b` by `map`, and whatever is to be seen on the way. Rows of the map and products with its transpose, as a tied
    /// embedding has them, go by unseen.
    fn apply(&self, map: &LinearMap, x: &Tensor, bias: Option<&Tensor>) -> Tensor;
}

/// A map and who looks over it.
#[derive(Debug)]
struct Watcher {
    map: LinearMap,
    by: Arc<dyn Watch>,
}

impl Module for Watcher {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.map.visit(path, see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.map.visit_mut(path, see);
    }
}

impl Map for Watcher {
    fn sizes(&self) -> [usize; 2] {
        self.map.sizes()
    }
    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.by.apply(&self.map, x, bias)
    }
    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        self.map.apply_transposed(x)
    }
    fn rows(&self, ids: &Tensor) -> Tensor {
        self.map.rows(ids)
    }
    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        self.map.rows_between(start, count)
    }
    fn boxed(&self) -> Box<dyn Map> {
        Box::new(Watcher { map: self.map.clone(), by: self.by.clone() })
    }
}

/// Has maps of a model watched from now on: `by` says who watches the one at a path, if anyone.
pub(crate) fn watch(model: &mut impl Module, mut by: impl FnMut(&str) -> Option<Arc<dyn Watch>>) {
    model.visit_maps(&Path::root(), &mut |path, map| {
        if let Some(by) = by(&path.to_string()) {
            map.replace(|map| Watcher { map, by });
        }
    });
}

/// A model some of whose maps are watched as long as this lives.
pub(super) struct Watched<'a, M: Module>(&'a mut M);

impl<'a, M: Module> Watched<'a, M> {
    /// See [`watch`].
    pub(super) fn new(model: &'a mut M, by: impl FnMut(&str) -> Option<Arc<dyn Watch>>) -> Watched<'a, M> {
        watch(model, by);
        Watched(model)
    }

    /// The model, watched.
    pub(super) fn model(&self) -> &M {
        self.0
    }
}

impl<M: Module> Drop for Watched<'_, M> {
    fn drop(&mut self) {
        self.0.visit_maps(&Path::root(), &mut |_, map| {
            if let Some(watcher) = map.get::<Watcher>() {
                *map = watcher.map.clone();
            }
        });
    }
}
