//! Frozen weights in fewer bits, beside which adapters train (Dettmers et al., "QLoRA", 2023).

use super::Lora;
use super::names::chosen;
use crate::device::{Array, Device, Spec, Tag, tagged};
use crate::dtype::{DType, Element, f16};
use crate::element;
use crate::error::{Error, Result};
use crate::float;
use crate::module::{Dense, LinearMap, Map, Module, Parameter, Path};
use crate::ops::quantised::{Encoded, Format, Packed, Product, Rows};
use crate::tensor::Tensor;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

/// A constant matrix in fewer bits. Products with it unpack what they need at a time: never the whole matrix, forwards or
/// backwards.
///
/// Parameters are `codes`, u32 words as [`Format`] says, and `scales`, empty for halves; both are frozen. What is stored
/// row by row is the matrix as [out, in]; in the place of an embedding, [rows, width].
#[derive(Clone, Debug)]
pub struct Quantised {
    codes: Parameter,
    scales: Parameter,
    packed: Packed,
    transposed: bool,
}
crate::module!(Quantised: codes, scales);

impl Quantised {
    /// A matrix in fewer bits, from codes and scales as [`Packed`] says; `transposed` if it is stored as [out, in]. What
    /// it is multiplied with has the type of the scales.
    #[track_caller]
    pub fn new(packed: Packed, codes: Tensor, scales: Tensor, transposed: bool) -> Quantised {
        let fits = codes.shape()[..] == [packed.words()] && scales.shape()[..] == [packed.scales()];
        assert!(fits, "codes {:?} and scales {:?} of {packed:?}", codes.shape(), scales.shape());
        let frozen = |value: Tensor| {
            let mut parameter = Parameter::new(value);
            parameter.freeze();
            parameter
        };
        Quantised { codes: frozen(codes), scales: frozen(scales), packed, transposed }
    }

    /// How it is stored.
    pub fn packed(&self) -> Packed {
        self.packed
    }

    /// Whether it is stored as [out, in].
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The matrix of a dense map in fewer bits, of which `element` gives the numbers, in the order in which the map stores
    /// them: how a weight is packed as it is read from a file. Of the map's own weight only the shape is asked for. On the
    /// device nothing is made but the result, in single precision; on a null device nothing is read.
    ///
    /// A map that is not dense, and numbers that are not finite or too large for the format, are errors that name `path`.
    pub fn read(
        path: &str,
        map: &LinearMap,
        format: Format,
        device: &Device,
        element: impl Fn(usize) -> f32 + Sync,
    ) -> Result<Quantised> {
        let dense = dense_at(path, map)?;
        if device.computes() {
            let most = (0..dense.weight.tensor().count()).into_par_iter().with_min_len(1 << 16);
            fits(path, format, most.map(|e| size(element(e).into())).reduce(|| 0.0, f64::max))?;
        }
        Ok(Order::of(dense, map.is_embedding(), format).packed(DType::F32, device, element))
    }

    /// The nearest matrix of a dense map's, in its type. Its device's ledger counts no more than the result.
    fn of(dense: &Dense, embedding: bool, format: Format) -> Result<Quantised> {
        let weight = dense.weight.tensor();
        let (dtype, device, order) = (weight.dtype(), weight.device(), Order::of(dense, embedding, format));
        if !device.computes() {
            return Ok(order.packed(dtype, device, |_| unreachable!("nothing is read")));
        }
        let held = weight.array().to_host()?;
        Ok(float!(dtype, T => {
            let numbers = held.slice::<T>();
            order.packed(dtype, device, |e| numbers[e].to_f64() as f32)
        }))
    }

    /// Rows of the matrix as it is stored, as numbers.
    pub(super) fn stored(&self, range: Range<usize>) -> Tensor {
        let rows = Rows { packed: self.packed, range: Some(range) };
        Tensor::apply(rows, &[self.codes.tensor(), self.scales.tensor()])
    }

    /// The matrix itself, stored in the same order.
    fn dense(&self) -> Dense {
        let mut weight = Parameter::new(self.stored(0..self.packed.rows));
        weight.freeze();
        Dense { weight, transposed: self.transposed }
    }

    fn multiply(&self, x: &Tensor, bias: Option<&Tensor>, transposed: bool) -> Tensor {
        let product = Product { packed: self.packed, transposed };
        let ins = [Some(x), Some(self.codes.tensor()), Some(self.scales.tensor()), bias];
        Tensor::apply(product, &ins.into_iter().flatten().collect::<Vec<_>>())
    }
}

/// How a dense map's matrix is packed.
struct Order {
    packed: Packed,
    transposed: bool,
    /// Whether rows that are packed are those of what the map stores.
    by_rows: bool,
}

impl Order {
    fn of(dense: &Dense, embedding: bool, format: Format) -> Order {
        let ([input, output], transposed) = (dense.sizes(), !embedding);
        let [rows, columns] = if transposed { [output, input] } else { [input, output] };
        Order { packed: Packed { format, rows, columns }, transposed, by_rows: dense.transposed == transposed }
    }

    fn packed(self, dtype: DType, device: &Device, element: impl Fn(usize) -> f32 + Sync) -> Quantised {
        let Order { packed, transposed, by_rows } = self;
        if !device.computes() {
            let zeros = |dtype, count: usize| Tensor::from_array(device.alloc(Spec::new(dtype, [count])));
            let [codes, scales] =
                tagged(Tag::Weights, || [zeros(DType::U32, packed.words()), zeros(dtype, packed.scales())]);
            return Quantised::new(packed, codes, scales, transposed);
        }
        let Packed { rows, columns, .. } = packed;
        let Encoded { codes, scales } =
            packed.encode(|i, j| element(if by_rows { i * columns + j } else { j * rows + i }));
        let codes = tagged(Tag::Weights, || Tensor::new(&codes, [codes.len()], device));
        let scales = float!(dtype, T => {
            let scales: Vec<T> = scales.into_iter().map(|x| <T as Element>::from_f64(x.into())).collect();
            tagged(Tag::Weights, || Tensor::new(&scales, [scales.len()], device))
        });
        Quantised::new(packed, codes, scales, transposed)
    }
}

impl Map for Quantised {
    fn sizes(&self) -> [usize; 2] {
        let Packed { rows, columns, .. } = self.packed;
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }

    fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.multiply(x, bias, self.transposed)
    }

    fn apply_transposed(&self, x: &Tensor) -> Tensor {
        self.multiply(x, None, !self.transposed)
    }

    fn rows(&self, ids: &Tensor) -> Tensor {
        assert!(!self.transposed, "an embedding is stored as [rows, width]");
        let rows = Rows { packed: self.packed, range: None };
        Tensor::apply(rows, &[self.codes.tensor(), self.scales.tensor(), ids])
    }

    fn rows_between(&self, start: usize, count: usize) -> Tensor {
        assert!(!self.transposed, "an embedding is stored as [rows, width]");
        self.stored(start..start + count)
    }

    fn boxed(&self) -> Box<dyn Map> {
        Box::new(self.clone())
    }
}

/// What an adapter is beside, or the map itself.
fn base(map: &mut LinearMap) -> &mut LinearMap {
    // Asked twice, because what is borrowed to be given back cannot be let go of.
    match map.get::<Lora>().is_some_and(|lora| !lora.is_merged()) {
        true => &mut map.get_mut::<Lora>().expect("it was one a moment ago").base,
        false => map,
    }
}

/// Goes over the maps that are meant, or the bases of those that have adapters.
fn walk(
    model: &mut dyn Module,
    paths: &BTreeSet<String>,
    see: &mut dyn FnMut(&str, bool, &mut LinearMap) -> Result<()>,
) -> Result<()> {
    let mut found = Ok(());
    model.visit_maps(&Path::root(), &mut |path, map| {
        let path = path.to_string();
        if found.is_ok() && paths.contains(&path) {
            let embedding = map.is_embedding();
            found = see(&path, embedding, base(map));
        }
    });
    found
}

/// Puts matrices in fewer bits in the place of dense ones, one after the other, so that a model is never there twice: of
/// layers named as in [`adapt`](super::adapt()), of their bases where they have adapters. They are constants from then
/// on. Returns the layers' paths.
///
/// Fails, with nothing changed, on a name that means no layer, a layer that is not dense, and numbers that are not finite
/// or too large for the format; errors name the layer.
///
/// ```
/// # use eckart::lowrank::{ALL_LINEAR, AdapterConfig, adapt, quantise};
/// # use eckart::nn::{Arch, Model, ModelConfig};
/// # use eckart::{Device, Seed, Tag, ops::quantised::Format};
/// let device = Device::cpu();
/// let mut model = Model::new(&ModelConfig::new(Arch::Gpt2, 65, 64, 2, 4, 128), Seed(0), &device)?;
/// let before = device.ledger().live()[Tag::Weights];
/// quantise(&mut model, Format::Nf4, &[ALL_LINEAR])?;
/// assert!(device.ledger().live()[Tag::Weights] < before / 4);
/// adapt(&mut model, &AdapterConfig::default(), Seed(1))?; // What trains from here on.
/// # Ok::<(), eckart::Error>(())
/// ```
pub fn quantise(model: &mut dyn Module, format: Format, names: &[&str]) -> Result<Vec<String>> {
    let meant = chosen(model, names)?;
    let paths = meant.iter().cloned().collect();
    walk(model, &paths, &mut |path, _, map| verify(path, map, format))?;
    walk(model, &paths, &mut |_, embedding, map| {
        let quantised = Quantised::of(map.get::<Dense>().expect("it was checked"), embedding, format)?;
        map.replace(|_| quantised);
        Ok(())
    })?;
    Ok(meant)
}

fn dense_at<'a>(path: &str, map: &'a LinearMap) -> Result<&'a Dense> {
    let problem = || format!("{path}: it is not a dense matrix, which alone can be stored in fewer bits");
    map.get().ok_or_else(|| Error::Config(problem()))
}

fn verify(path: &str, map: &LinearMap, format: Format) -> Result<()> {
    let weight = dense_at(path, map)?.weight.tensor();
    if !weight.dtype().computes() {
        return Err(Error::Config(format!("{path}: a weight of type {}: cast it to f32 first", weight.dtype())));
    }
    fits(path, format, if weight.device().computes() { largest(weight.array())? } else { 0.0 })
}

/// Fails if numbers of at most this magnitude cannot be stored so.
fn fits(path: &str, format: Format, largest: f64) -> Result<()> {
    let most = if format == Format::F16 { f16::MAX.to_f64() } else { f32::MAX.into() };
    match largest {
        x if x <= most => Ok(()),
        x if x.is_finite() => Err(Error::Config(format!("{path}: {x:e} is too large for {format}: take bf16 or nf4"))),
        _ => Err(Error::NotFinite(format!("{path}: the weight is not finite; nothing was quantised"))),
    }
}

/// The largest magnitude; infinite if a number is not finite.
fn largest(weight: &Array) -> Result<f64> {
    let held = weight.to_host()?;
    Ok(element!(held.dtype(), T => held.slice::<T>().iter().fold(0.0, |most: f64, x| most.max(size(x.to_f64())))))
}

/// Magnitude; infinite for what is not finite.
fn size(x: f64) -> f64 {
    if x.is_finite() { x.abs() } else { f64::INFINITY }
}

/// Puts dense matrices in the place of those in fewer bits, with the numbers that these stand for, one after the other:
/// what adapters can be [merged](super::merge()) into. They stay frozen. Returns the layers' paths.
///
/// Fails, with nothing changed, on a name that means no layer, and where none of those meant is in fewer bits.
pub fn dequantise(model: &mut dyn Module, names: &[&str]) -> Result<Vec<String>> {
    let paths: BTreeSet<String> = chosen(model, names)?.into_iter().collect();
    let mut done = Vec::new();
    walk(model, &paths, &mut |path, _, map| {
        if let Some(dense) = map.get::<Quantised>().map(Quantised::dense) {
            map.replace(|_| dense);
            done.push(path.to_owned());
        }
        Ok(())
    })?;
    match done.is_empty() {
        true => Err(Error::Config(format!("none of {} is in fewer bits", names.join(", ")))),
        false => Ok(done),
    }
}

/// Type and device of what a map is multiplied with: codes are words, which no number is of the type of.
pub(super) fn kind(map: &LinearMap) -> (DType, Device) {
    let parameters = map.parameters();
    let tensors = || parameters.iter().map(|(_, parameter)| parameter.tensor());
    let first = tensors().find(|tensor| tensor.dtype() != DType::U32).or_else(|| tensors().next());
    let first = first.expect("a map has parameters");
    (first.dtype(), first.device().clone())
}
