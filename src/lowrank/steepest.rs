//! Singular vectors of weights' gradients without the gradients: what LoRA-GA starts from, at the cost of some backward
//! passes with adapters.

use super::adapt::freeze_base;
use super::start::{ITERATIONS, SKETCH, by_directions, sketch_width};
use super::svd::{Svd, orthonormal, svd};
use super::{AdapterConfig, Initial, Lora, quantised::kind};
use crate::device::{Tag, tagged};
use crate::error::{Error, Result};
use crate::module::{LinearMap, Module, Parameter, Path, normal};
use crate::optim::Gradients;
use crate::rng::Seed;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Factors to [start](super::Start::Given) from as [`Start::Gradient`](super::Start::Gradient) makes them, where no weight
/// has a gradient: with an adapter beside it, a map hands over products of the gradient G of its weight, G Bᵀ as that of
/// an A that is zero and Aᵀ G as that of a B that is zero. So the singular vectors are found as by
/// [`randomized`](super::svd::randomized), for all layers at once, and what is held is an adapter's of four times the
/// rank. Maps may be of any kind; those in fewer bits have the gradients of what they stand for.
///
/// `gradients` gives the gradients of all that trains in the model it is shown, each time of the same loss; it is asked
/// ten times. All but adapters is frozen after, and the model otherwise what it was.
///
/// Fails where [`adapt`](super::adapt()) does, on a rank above half of a layer's smaller side, on gradients that are
/// missing or not finite, and where `gradients` does.
pub fn steepest<M: Module>(
    model: &mut M,
    config: &AdapterConfig,
    seed: Seed,
    gradients: &mut dyn FnMut(&M) -> Result<Gradients>,
) -> Result<Initial> {
    let places = config.places(model)?;
    let mut probes: BTreeMap<String, Probe> = BTreeMap::new();
    let mut found = Ok(());
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if let Some((_, rank)) = places.iter().find(|(place, _)| *place == path).filter(|_| found.is_ok()) {
            found = Probe::of(&path, map, *rank, seed).map(|probe| drop(probes.insert(path, probe)));
        }
    });
    found?;
    freeze_base(model);
    let result = Probed { model, probes: &probes, gradients }.factors();
    model.visit_maps(&Path::root(), &mut |path, map| {
        if probes.contains_key(&path.to_string())
            && let Some(base) = map.get::<Lora>().map(|probe| probe.base.clone())
        {
            *map = base;
        }
    });
    result
}

/// What is to be known of a layer.
struct Probe {
    sizes: [usize; 2],
    rank: usize,
    /// Ω, [out, columns of the sketch].
    sketch: Tensor,
}

impl Probe {
    fn of(path: &str, map: &LinearMap, rank: usize, seed: Seed) -> Result<Probe> {
        if map.get::<Lora>().is_some() {
            return Err(Error::Config(format!("{path}: it has an adapter already: merge and bake that first")));
        }
        let (sizes, (dtype, device)) = (map.sizes(), kind(map));
        let width = sketch_width(path, sizes, rank)?;
        let sketch = normal(&[sizes[1], width], 1.0, seed.named(path).named(SKETCH), &device);
        Ok(Probe { sizes, rank, sketch: sketch.tagged(Tag::Workspace).cast(dtype) })
    }
}

/// A matrix for each layer.
type Matrices = BTreeMap<String, Tensor>;

/// A model, and how its gradients are had.
struct Probed<'a, M: Module> {
    model: &'a mut M,
    probes: &'a BTreeMap<String, Probe>,
    gradients: &'a mut dyn FnMut(&M) -> Result<Gradients>,
}

impl<M: Module> Probed<'_, M> {
    fn factors(mut self) -> Result<Initial> {
        let sketches = self.probes.iter().map(|(path, probe)| (path.clone(), probe.sketch.clone())).collect();
        let mut q = bases(self.times(sketches)?)?;
        for _ in 0..ITERATIONS {
            let z = bases(self.times_transposed(q)?)?;
            q = bases(self.times(z)?)?;
        }
        let inner = self.times_transposed(q.clone())?;
        let of = |(path, inner): (String, Tensor)| {
            let (probe, q) = (&self.probes[&path], &q[&path]);
            let found = svd(&inner.t())?.truncated(2 * probe.rank);
            let found = Svd { u: q.matmul(&found.u), ..found };
            let (a, b) = tagged(Tag::Weights, || by_directions(&found, probe.sizes[1]));
            Ok((path, [a, b]))
        };
        inner.into_iter().map(of).collect()
    }

    /// G Z, [in, k], for Z [out, k].
    fn times(&mut self, z: Matrices) -> Result<Matrices> {
        self.put(z, |probe, z| {
            let mut adapter =
                Factors { a: zeros([probe.sizes[0], z.shape()[1]], z), b: Parameter::new(z.t().contiguous()) };
            adapter.b.freeze();
            adapter
        });
        self.pass(|probe| &probe.a)
    }

    /// Gᵀ Q, [out, k], for Q [in, k].
    fn times_transposed(&mut self, q: Matrices) -> Result<Matrices> {
        self.put(q, |probe, q| {
            let mut adapter = Factors { a: Parameter::new(q.clone()), b: zeros([q.shape()[1], probe.sizes[1]], q) };
            adapter.a.freeze();
            adapter
        });
        let found = self.pass(|probe| &probe.b)?;
        Ok(found.into_iter().map(|(path, b)| (path, b.t().contiguous())).collect())
    }

    /// Gives each layer the adapter that is made of its matrix.
    fn put(&mut self, mut matrices: Matrices, make: fn(&Probe, &Tensor) -> Factors) {
        let probes = self.probes;
        self.model.visit_maps(&Path::root(), &mut |path, map| {
            let path = path.to_string();
            let Some(matrix) = matrices.remove(&path) else { return };
            let Factors { a, b } = make(&probes[&path], &matrix);
            let base = map.get::<Lora>().map_or_else(|| map.clone(), |probe| probe.base.clone());
            let mut probe = Lora::new(base, a.tensor().detach(), b.tensor().detach(), 1.0);
            (probe.a, probe.b) = (a, b);
            map.replace(|_| probe);
        });
    }

    /// The gradients of one side's factors.
    fn pass(&mut self, side: fn(&Lora) -> &Parameter) -> Result<Matrices> {
        let gradients = (self.gradients)(self.model)?;
        let (probes, mut found) = (self.probes, Matrices::new());
        self.model.visit_maps(&Path::root(), &mut |path, map| {
            let path = path.to_string();
            let probe = map.get::<Lora>().filter(|_| probes.contains_key(&path));
            if let Some(gradient) = probe.and_then(|probe| gradients.get(side(probe).id())) {
                found.insert(path, Tensor::from_array(gradient.clone()));
            }
        });
        match probes.keys().find(|path| !found.contains_key(*path)) {
            Some(path) => Err(Error::Config(format!("{path}: the loss does not depend on it, so it has no gradient"))),
            None => Ok(found),
        }
    }
}

/// An adapter's, of which one trains.
struct Factors {
    a: Parameter,
    b: Parameter,
}

fn zeros(shape: [usize; 2], like: &Tensor) -> Parameter {
    Parameter::new(Tensor::zeros(shape, like.dtype(), like.device()).contiguous())
}

/// Orthonormal bases of their columns.
fn bases(matrices: Matrices) -> Result<Matrices> {
    let basis = |(path, matrix): (String, Tensor)| {
        let named = |error| match error {
            Error::NotFinite(problem) => Error::NotFinite(format!("{path}: its gradient: {problem}")),
            other => other,
        };
        let basis = orthonormal(&matrix).map_err(named)?;
        Ok((path, basis))
    };
    matrices.into_iter().map(basis).collect()
}
