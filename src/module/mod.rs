//! Parameters, linear maps, and the visitor through which everything else sees a model: by path.

mod linear_map;
mod parameter;

pub use linear_map::{Dense, LinearMap, Map};
pub use parameter::Parameter;

use crate::device::{Device, Spec, Tag, tagged};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Something with parameters, each at a path such as `h.0.attn.c_attn.weight`.
///
/// [`module!`](crate::module!) implements it from a list of fields.
pub trait Module {
    /// Shows every parameter below, with `path` before its own.
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter));
    /// The same, to change them, now or when all have been shown.
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter));

    /// Shows every linear map below, to put another in its place: how a model of any kind gets adapters or factors.
    fn visit_maps(&mut self, _path: &Path, _see: &mut dyn FnMut(&Path, &mut LinearMap)) {}

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

    /// The same without its values, for who [binds](Module::bind) them anew each time: a copy that held on to them would
    /// keep updates from being made in place.
    fn hollow(&self) -> Self
    where
        Self: Clone,
    {
        let mut shell = self.clone();
        let empty = |t: &Tensor| Tensor::from_array(t.device().alloc(Spec::new(t.dtype(), [0])));
        let nothing: Vec<Tensor> = shell.parameters().iter().map(|(_, p)| empty(p.tensor())).collect();
        shell.bind(&nothing);
        shell
    }

    /// Number of elements of all parameters.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, parameter)| parameter.tensor().count()).sum()
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
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        if let Some(module) = self {
            module.visit_maps(path, see);
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
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        for (i, module) in self.iter_mut().enumerate() {
            module.visit_maps(&path.join(i), see);
        }
    }
}

/// Implements [`Module`] for a struct: `module!(Block: ln_1, attn, ln_2, mlp)`. The paths are the fields' names, or what
/// stands behind `as`: `module!(Block: attention as "attention.self", norm as "LayerNorm")`.
#[macro_export]
macro_rules! module {
    (@path $field:ident) => {
        stringify!($field)
    };
    (@path $field:ident $path:literal) => {
        $path
    };
    ($name:ty: $($field:ident $(as $path:literal)?),* $(,)?) => {
        impl $crate::module::Module for $name {
            fn visit(
                &self,
                path: &$crate::module::Path,
                see: &mut dyn FnMut(&$crate::module::Path, &$crate::module::Parameter),
            ) {
                $($crate::module::Module::visit(&self.$field, &path.join($crate::module!(@path $field $($path)?)), see);)*
            }
            fn visit_mut<'a>(
                &'a mut self,
                path: &$crate::module::Path,
                see: &mut dyn FnMut(&$crate::module::Path, &'a mut $crate::module::Parameter),
            ) {
                $($crate::module::Module::visit_mut(
                    &mut self.$field,
                    &path.join($crate::module!(@path $field $($path)?)),
                    see,
                );)*
            }
            fn visit_maps(
                &mut self,
                path: &$crate::module::Path,
                see: &mut dyn FnMut(&$crate::module::Path, &mut $crate::module::LinearMap),
            ) {
                $($crate::module::Module::visit_maps(
                    &mut self.$field,
                    &path.join($crate::module!(@path $field $($path)?)),
                    see,
                );)*
            }
        }
    };
}

/// A tensor of normal random numbers with mean 0, a function of the seed alone.
pub fn normal(shape: &[usize], deviation: f64, seed: crate::Seed, device: &Device) -> Tensor {
    use rand_distr::{Distribution, StandardNormal};
    let mut stream = seed.stream();
    let draw = |_| (deviation * Distribution::<f64>::sample(&StandardNormal, &mut stream)) as f32;
    weights(shape, device, || (0..shape.iter().product()).map(draw).collect())
}

/// A tensor counted under weights. Its values are asked for only where they are stored: a plan of a large model should
/// not wait for numbers that nobody reads, nor make room for them.
pub(crate) fn weights(shape: &[usize], device: &Device, values: impl FnOnce() -> Vec<f32>) -> Tensor {
    tagged(Tag::Weights, || match device.computes() {
        true => Tensor::new(&values(), shape, device),
        false => Tensor::from_array(device.alloc(Spec::new(DType::F32, shape))),
    })
}
