//! Layers that model families are built of.

use super::config::ModelConfig;
use crate::module;
use crate::module::{LinearMap, Module, Parameter, Path, normal};
use crate::ops::{dropout::Mask, rotary};
use crate::rng::Seed;
use crate::tensor::Tensor;
use crate::{DType, Device, Spec};

/// What a forward pass is for.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// What this pass's dropout keeps; none outside training.
    pub dropout: Option<Mask>,
    /// Keep the input of each block alone and run the block again in backward.
    pub recompute: bool,
}

/// A linear map, perhaps with a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The map, [in, out].
    pub map: LinearMap,
    /// `[out]`.
    pub bias: Option<Parameter>,
}

impl Module for Linear {
    fn visit(&self, path: &Path, see: &mut dyn FnMut(&Path, &Parameter)) {
        self.map.visit(path, see);
        self.bias.visit(&path.join("bias"), see);
    }
    fn visit_mut<'a>(&'a mut self, path: &Path, see: &mut dyn FnMut(&Path, &'a mut Parameter)) {
        self.map.visit_mut(path, see);
        self.bias.visit_mut(&path.join("bias"), see);
    }
    fn visit_maps(&mut self, path: &Path, see: &mut dyn FnMut(&Path, &mut LinearMap)) {
        self.map.visit_maps(path, see);
    }
}

impl Linear {
    /// Normal weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, deviation: f64, seed: Seed, device: &Device) -> Linear {
        let map = LinearMap::dense(normal(&[inputs, outputs], deviation, seed, device));
        Linear { map, bias: Some(zeros(outputs, device)) }
    }

    /// Normal weights stored as [out, in], and a zero bias if `biased`.
    pub fn transposed(sizes: [usize; 2], biased: bool, deviation: f64, seed: Seed, device: &Device) -> Linear {
        let [inputs, outputs] = sizes;
        let map = LinearMap::transposed(normal(&[outputs, inputs], deviation, seed, device));
        Linear { map, bias: biased.then(|| zeros(outputs, device)) }
    }

    /// `x W + b`: [.., in] to [.., out].
    #[track_caller]
    pub fn apply(&self, x: &Tensor) -> Tensor {
        self.map.apply(x, self.bias.as_ref().map(Parameter::tensor))
    }
}

/// Layer norm with scale and shift.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// Scale, `[width]`.
    pub weight: Parameter,
    /// Shift, `[width]`.
    pub bias: Parameter,
    epsilon: f64,
}
module!(LayerNorm: weight, bias);

impl LayerNorm {
    /// Scale 1, shift 0.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> LayerNorm {
        let weight = Parameter::new(constant(width, 1.0, device));
        LayerNorm { weight, bias: zeros(width, device), epsilon }
    }

    /// Over the last dimension.
    #[track_caller]
    pub fn apply(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.tensor(), self.bias.tensor(), self.epsilon)
    }
}

/// RMS norm with scale.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// Scale, `[width]`.
    pub weight: Parameter,
    epsilon: f64,
}
module!(RmsNorm: weight);

impl RmsNorm {
    /// Scale 1.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> RmsNorm {
        RmsNorm { weight: Parameter::new(constant(width, 1.0, device)), epsilon }
    }

    /// Over the last dimension.
    #[track_caller]
    pub fn apply(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.tensor(), self.epsilon)
    }
}

/// A vector of one value in a storage of its own.
fn constant(size: usize, value: f32, device: &Device) -> Tensor {
    module::weights(&[size], device, || vec![value; size])
}

fn zeros(size: usize, device: &Device) -> Parameter {
    Parameter::new(constant(size, 0.0, device))
}

/// Dropout with a mask of its own for `place`, in training; the tensor itself otherwise.
pub fn drop(x: Tensor, probability: f64, mask: Option<&Mask>, place: u64) -> Tensor {
    match mask {
        Some(mask) if probability > 0.0 => x.dropout_by(probability, &mask.fold(place)),
        _ => x,
    }
}

/// Runs block number `i`, or in a pass with recompute leaves it to be run again in backward. `run` is given a dropout mask
/// for the block, if there is dropout; what else it holds must be constants.
pub fn block<B, R>(block: &B, i: usize, x: Tensor, pass: &Pass, run: R) -> Tensor
where
    B: Module + Clone + Send + Sync + 'static,
    R: Fn(&B, &Tensor, Option<&Mask>) -> Tensor + Send + Sync + 'static,
{
    let mask = pass.dropout.as_ref().map(|mask| mask.fold(i as u64));
    if !pass.recompute {
        return run(block, &x, mask.as_ref());
    }
    let mut ins = vec![x];
    ins.extend(block.parameters().into_iter().map(|(_, parameter)| parameter.tensor().clone()));
    let shell = block.hollow();
    let segment = move |ins: &[Tensor]| {
        let mut copy = shell.clone();
        copy.bind(&ins[1..]);
        run(&copy, &ins[0], mask.as_ref())
    };
    crate::autograd::checkpoint(segment, &ins.iter().collect::<Vec<_>>())
}

/// What a causal model that classifies makes of its last state: logits of classes, without a bias.
pub fn score(config: &ModelConfig, seed: Seed, device: &Device) -> Option<LinearMap> {
    let labels = config.labels.as_ref()?;
    Some(LinearMap::transposed(normal(&[labels.len(), config.width], 0.02, seed.named("score"), device)))
}

/// Cosines and sines of rotary positions, [positions, frequencies, 2], computed in double precision, as a tensor that no
/// gradient flows to.
pub fn rotary_table(positions: usize, frequencies: &[f64], dtype: DType, device: &Device) -> Tensor {
    let shape = [positions, frequencies.len(), 2];
    crate::device::tagged(crate::Tag::Weights, || match dtype {
        _ if !device.computes() => Tensor::from_array(device.alloc(Spec::new(dtype, shape))),
        DType::F64 => Tensor::new(&rotary::rotary_table::<f64>(positions, frequencies), shape, device),
        _ => Tensor::new(&rotary::rotary_table::<f32>(positions, frequencies), shape, device),
    })
}
