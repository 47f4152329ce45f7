//! Parameters, linear maps, and the visitor through which everything else sees a model: by path.

use crate::autograd::LeafId;
use crate::device::{Array, Device, Tag, tagged};
use crate::ops::linear::Linear;
use crate::tensor::Tensor;

/// A trainable tensor with an identity of its own: copies of it are the same leaf.
#[derive(Clone, Debug)]
pub struct Parameter {
    tensor: Tensor,
    id: LeafId,
}

impl Parameter {
    /// Counts the value under weights. Its gradient comes in factors where it is used as a linear map.
    pub fn new(value: Tensor) -> Parameter {
        let id = LeafId::new();
        let tensor = value.detach().tagged(Tag::Weights).leaf_as(id, true);
        Parameter { tensor, id }
    }

    /// What the model computes with.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Which leaf its gradients arrive under.
    pub fn id(&self) -> LeafId {
        self.id
    }

    /// Whether gradients are taken with respect to it.
    pub fn trains(&self) -> bool {
        self.tensor.is_traced()
    }

    /// Makes it a constant.
    pub fn freeze(&mut self) {
        self.tensor = self.tensor.detach();
    }

    /// Replaces the value.
    pub fn set(&mut self, value: Tensor) {
        let value = value.detach().tagged(Tag::Weights);
        self.tensor = if self.trains() { value.leaf_as(self.id, true) } else { value };
    }

    /// Lets the model compute with another tensor in its place, such as one that moves along a tangent.
    pub fn bind(&mut self, tensor: Tensor) {
        self.tensor = tensor;
    }

    /// The value, to change it: its own storage if nothing else refers to that, else a copy.
    pub fn value_mut(&mut self) -> &mut Array {
        if !self.tensor.value.owned() {
            let copy = tagged(Tag::Weights, || self.tensor.value.to_owned());
            self.tensor.value = copy;
        }
        &mut self.tensor.value
    }
}

/// A matrix that may only be multiplied by, forwards and transposed, or read by rows.
#[derive(Clone, Debug)]
pub enum LinearMap {
    /// The weight itself.
    Dense {
        /// [in, out], or [out, in] if transposed.
        weight: Parameter,
        /// Whether it is stored as [out, in].
        transposed: bool,
    },
}

impl LinearMap {
    /// A weight stored as [in, out].
    pub fn dense(weight: Tensor) -> LinearMap {
        LinearMap::Dense { weight: Parameter::new(weight), transposed: false }
    }

    /// A weight stored as [out, in].
    pub fn transposed(weight: Tensor) -> LinearMap {
        LinearMap::Dense { weight: Parameter::new(weight), transposed: true }
    }

    /// `x W + b`: [.., in] to [.., out].
    #[track_caller]
    pub fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let LinearMap::Dense { weight, transposed } = self;
        multiply(Linear { transposed: *transposed }, x, weight.tensor(), bias)
    }

    /// `x Wᵀ`: [.., out] to [.., in]; an embedding's map used so is a tied output head.
    #[track_caller]
    pub fn apply_transposed(&self, x: &Tensor) -> Tensor {
        let LinearMap::Dense { weight, transposed } = self;
        multiply(Linear { transposed: !*transposed }, x, weight.tensor(), None)
    }

    /// Rows `ids` of W: [..] indices below `in` to [.., out].
    #[track_caller]
    pub fn rows(&self, ids: &Tensor) -> Tensor {
        let LinearMap::Dense { weight, transposed } = self;
        assert!(!transposed, "an embedding is stored as [rows, width]");
        weight.tensor().gather(ids)
    }

    /// Rows `start` to `start + count` of W, [count, out], as a view.
    #[track_caller]
    pub fn rows_between(&self, start: usize, count: usize) -> Tensor {
        let LinearMap::Dense { weight, transposed } = self;
        assert!(!transposed, "an embedding is stored as [rows, width]");
        let weight = weight.tensor();
        // All of them are the weight itself: its gradient needs no padding.
        if (start, count) == (0, weight.shape()[0]) { weight.clone() } else { weight.slice(0, start, count) }
    }
}

#[track_caller]
fn multiply(op: Linear, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    match bias {
        Some(bias) => Tensor::apply(op, &[x, weight, bias]),
        None => Tensor::apply(op, &[x, weight]),
    }
}

/// Something with parameters, each at a path such as `h.0.attn.c_attn.weight`.
///
/// [`module!`](crate::module!) implements it from a list of fields.
pub trait Module {
    /// Shows every parameter below, with `path` before its own.
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter));
    /// The same, to change them, now or when all have been shown.
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter));

    /// Paths and parameters, in the order of the fields.
    fn parameters(&self) -> Vec<(String, Parameter)> {
        let mut all = Vec::new();
        self.visit(&Path::root(), &mut |path, parameter| all.push((path.to_string(), parameter.clone())));
        all
    }

    /// A copy of the same values that records nothing, for evaluation and generation. As long as it lives, updates of
    /// the original copy each parameter first.
    fn frozen(&self) -> Self
    where
        Self: Clone,
    {
        let mut copy = self.clone();
        copy.visit_mut(&Path::root(), &mut |_, parameter| parameter.freeze());
        copy
    }

    /// Number of elements of all parameters that train.
    fn trainable_parameters(&self) -> usize {
        let mut count = 0;
        self.visit(&Path::root(), &mut |_, p| count += if p.trains() { p.tensor().count() } else { 0 });
        count
    }

    /// Computes with `tensors`, in the order of [`Module::parameters`], in place of the parameters: how a model
    /// becomes a function of its parameters for `hvp`, `jvp` and `checkpoint`.
    fn bind(&mut self, tensors: &[Tensor]) {
        let mut tensors = tensors.iter();
        self.visit_mut(&Path::root(), &mut |path, parameter| {
            let tensor = tensors.next().unwrap_or_else(|| panic!("bind: no tensor for {path}"));
            parameter.bind(tensor.clone());
        });
        assert!(tensors.next().is_none(), "bind: more tensors than parameters");
    }
}

/// Where in a model something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// The model itself.
    pub fn root() -> Path {
        Path::default()
    }

    /// One step down.
    pub fn join(&self, name: impl std::fmt::Display) -> Path {
        if self.0.is_empty() { Path(name.to_string()) } else { Path(format!("{}.{name}", self.0)) }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Module for Parameter {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        see(path, self);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        see(path, self);
    }
}

impl Module for LinearMap {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        let LinearMap::Dense { weight, .. } = self;
        see(&path.join("weight"), weight);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        let LinearMap::Dense { weight, .. } = self;
        see(&path.join("weight"), weight);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        if let Some(module) = self {
            module.visit(path, see);
        }
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        if let Some(module) = self {
            module.visit_mut(path, see);
        }
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        for (i, module) in self.iter().enumerate() {
            module.visit(&path.join(i), see);
        }
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        for (i, module) in self.iter_mut().enumerate() {
            module.visit_mut(&path.join(i), see);
        }
    }
}

/// Implements [`Module`] for a struct: `module!(Block: ln_1, attn, ln_2, mlp)`. The paths are the fields' names.
#[macro_export]
macro_rules! module {
    ($name:ty: $($field:ident),* $(,)?) => {
        impl $crate::module::Module for $name {
            fn visit(
                &self,
                path: &$crate::module::Path,
                see: &mut dyn FnMut(&$crate::module::Path, &$crate::module::Parameter),
            ) {
                $($crate::module::Module::visit(&self.$field, &path.join(stringify!($field)), see);)*
            }
            fn visit_mut<'a>(
                &'a mut self,
                path: &$crate::module::Path,
                see: &mut dyn FnMut(&$crate::module::Path, &'a mut $crate::module::Parameter),
            ) {
                $($crate::module::Module::visit_mut(&mut self.$field, &path.join(stringify!($field)), see);)*
            }
        }
    };
}

/// A tensor of normal random numbers with mean 0, a function of the seed alone.
pub fn normal(shape: &[usize], deviation: f64, seed: crate::Seed, device: &Device) -> Tensor {
    use rand_distr::{Distribution, StandardNormal};
    let mut stream = seed.stream();
    let count = shape.iter().product();
    let draw = |_| (deviation * Distribution::<f64>::sample(&StandardNormal, &mut stream)) as f32;
    // A plan of a large model should not wait for numbers that nobody reads.
    let values: Vec<f32> = if device.computes() { (0..count).map(draw).collect() } else { vec![0.0; count] };
    tagged(Tag::Weights, || Tensor::new(&values, shape, device))
}
