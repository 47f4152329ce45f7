//! What goes into layers and the cotangents of what comes out, for weights of any kind, frozen ones too: a tap adds zero
//! to a layer's output, and the gradient of that zero is the cotangent. No gradient of a weight is ever formed.

use super::losses::numbers;
use super::shift::{Direction, Shift};
use crate::autograd::{LeafId, Moving, backward};
use crate::error::{Error, Result};
use crate::lowrank::{Watch, chosen, watch};
use crate::module::{LinearMap, Module, Path};
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A model whose layers are tapped. As long as it lives, updates of the original copy each parameter first.
pub(super) struct Taps<M> {
    model: M,
    /// In the order of the model.
    pub layers: Vec<Layer>,
}

/// A tapped layer.
pub(super) struct Layer {
    pub path: String,
    /// `in` and `out`.
    pub sizes: [usize; 2],
    tap: Arc<Tap>,
}

/// One time that a layer was applied.
pub(super) struct Use {
    /// Input, [rows, in].
    pub x: Tensor,
    /// Cotangent of the output, [rows, out].
    pub dy: Tensor,
}

#[derive(Default)]
struct Tap(Mutex<State>);

#[derive(Default)]
struct State {
    probing: Option<Probing>,
    uses: Vec<Tapped>,
}

/// Directions that the layer's weight moves along, all at once.
#[derive(Clone)]
struct Probing {
    moving: Arc<Moving>,
    directions: Vec<Direction>,
}

struct Tapped {
    /// With its tangents, if it moves.
    x: Tensor,
    /// The zero that was added to the output.
    zero: LeafId,
    /// x V for each probe, [rows, out].
    moved: Vec<Tensor>,
    /// dY Vᵀ for each probe, [rows, in], once backward has come by.
    returned: Arc<Mutex<Vec<Tensor>>>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a tap")
    }
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Tap {
    fn apply(&self, map: &LinearMap, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let y = map.apply(x, bias);
        let zero = y.zeros_like().detach();
        let probing = self.state().probing.clone();
        let (moved, returned) = (Vec::new(), Arc::default());
        let mut used = Tapped { x: x.untraced(), zero: LeafId::new(), moved, returned };
        let added = match probing {
            None => zero.leaf_as(used.zero, false),
            Some(Probing { moving, directions }) => {
                let plain = moving.parts(x).0;
                used.moved = directions.iter().map(|v| v.forth(&plain, y.shape().last_size())).collect();
                let along = used.moved.iter().map(|moved| Some(moved.reshape(*y.shape()))).collect();
                let zero = moving.lifted(&zero, along).leaf_as(used.zero, false);
                let returned = used.returned.clone();
                Tensor::apply(Shift { moving, directions, returned }, &[&zero, x])
            }
        };
        self.state().uses.push(used);
        y.sum_with(added)
    }
}

impl<M: Module + Clone> Taps<M> {
    /// Taps the layers that are meant; an error names what is not there.
    pub fn new(model: &M, names: &[&str]) -> Result<Taps<M>> {
        let mut model = model.frozen();
        let chosen = chosen(&mut model, names)?;
        let (mut layers, mut table) = (Vec::new(), None);
        model.visit_maps(&Path::root(), &mut |path, map| {
            let path = path.to_string();
            if chosen.contains(&path) {
                table = table.take().or(map.is_embedding().then(|| path.clone()));
                layers.push(Layer { path, sizes: map.sizes(), tap: Arc::default() });
            }
        });
        if let Some(path) = table {
            return Err(Error::Config(format!(
                "{path} is an embedding, whose gains are not known: name linear layers"
            )));
        }
        watch(&mut model, |path| {
            let layer = layers.iter().find(|layer| layer.path == path)?;
            Some(layer.tap.clone() as Arc<dyn Watch>)
        });
        Ok(Taps { model, layers })
    }

    /// Shows what each layer was given and gave back, the last first, each before the next is computed.
    pub fn factors(
        &self,
        loss: impl FnOnce(&M) -> Result<Tensor>,
        see: &mut dyn FnMut(usize, Use) -> Result<()>,
    ) -> Result<()> {
        let loss = self.run(None, loss)?;
        self.walk(loss, &mut |layer, used, dy| see(layer, Use { x: used.x.detach().rows(), dy: dy.rows() }))
    }

    /// Gives ⟨V, H V⟩ for each probe and layer, with H the Hessian of the loss in the weights of all layers, which move at
    /// once, each along a V of its own: ⟨ẋ, dY Vᵀ⟩ + ⟨x V, dẎ⟩. With random signs an estimate of the trace of H in each
    /// layer's own weight. About 7/3 of a gradient for the first probe.
    pub fn curvatures(
        &self,
        probes: &[Vec<Direction>],
        loss: impl FnOnce(&M) -> Result<Tensor>,
    ) -> Result<Vec<Vec<f64>>> {
        let moving = Arc::new(Moving::new(probes.len()));
        let loss = self.run(Some((&moving, probes)), loss)?;
        let mut sums: Vec<Vec<Option<Tensor>>> = vec![vec![None; self.layers.len()]; probes.len()];
        self.walk(loss, &mut |layer, used, dy| {
            let (ddy, motion) = (moving.parts(&dy).1, moving.parts(&used.x).1);
            // None where nothing below moves, so that x does not either.
            let returned = used.returned.lock().unwrap_or_else(PoisonError::into_inner);
            for (k, sums) in sums.iter_mut().enumerate() {
                let above = ddy[k].as_ref().map(|ddy| used.moved[k].dot(&ddy.rows()));
                let below = motion[k].as_ref().zip(returned.get(k)).map(|(dx, back)| dx.rows().dot(back));
                let sum = &mut sums[layer];
                *sum = [sum.take(), above, below].into_iter().flatten().reduce(|a, b| a + b);
            }
            Ok(())
        })?;
        sums.iter().map(|layers| numbers(layers)).collect()
    }

    /// Random signs for each layer.
    pub fn signs(&self, seed: Seed) -> Vec<Direction> {
        self.layers.iter().map(|layer| Direction::Signs(seed.named(&layer.path))).collect()
    }

    /// Walks back, and shows for every time that a layer was applied what its tap holds and the cotangent of its output.
    fn walk(&self, loss: Tensor, see: &mut dyn FnMut(usize, Tapped, Tensor) -> Result<()>) -> Result<()> {
        let mut held = HashMap::new();
        for (number, layer) in self.layers.iter().enumerate() {
            for used in std::mem::take(&mut layer.tap.state().uses) {
                held.insert(used.zero, (number, used));
            }
        }
        let mut done = Ok(());
        backward(loss, &mut |leaf, gradient| {
            if let (Some((layer, used)), Some(dy)) = (held.remove(&leaf), gradient.densify())
                && done.is_ok()
            {
                done = see(layer, used, dy);
            }
        });
        done
    }

    /// Runs the model with all taps empty, and probing along `probes` if there are any.
    fn run(
        &self,
        probes: Option<(&Arc<Moving>, &[Vec<Direction>])>,
        loss: impl FnOnce(&M) -> Result<Tensor>,
    ) -> Result<Tensor> {
        for (i, layer) in self.layers.iter().enumerate() {
            let mut state = layer.tap.state();
            state.uses.clear();
            state.probing = probes.map(|(moving, probes)| {
                let directions = probes.iter().map(|probe| probe[i].clone()).collect();
                Probing { moving: moving.clone(), directions }
            });
        }
        loss(&self.model)
    }
}
