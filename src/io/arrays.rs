//! Named arrays in the safetensors format.

use crate::device::{Array, Device, Spec};
use crate::dtype::DType;
use crate::element;
use crate::error::{Error, Result};
use crate::module::{Module, Parameter, Path as ModulePath};
use crate::shape::MAX_DIMS;
use crate::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// Arrays on one device as the bytes of a safetensors file: the same arrays give the same bytes. Fails if their device
/// did.
pub fn encode<'a>(arrays: impl IntoIterator<Item = (String, &'a Array)>) -> Result<Vec<u8>> {
    let (names, arrays): (Vec<String>, Vec<&Array>) = arrays.into_iter().unzip();
    let held = Array::all_to_host(&arrays)?;
    let views = names.iter().zip(&held).map(|(name, array)| {
        let bytes: &[u8] = element!(array.dtype(), T => bytemuck::cast_slice(array.slice::<T>()));
        let view = TensorView::new(name_of(array.dtype()), array.shape().to_vec(), bytes);
        (name, view.expect("an array has as many bytes as its shape says"))
    });
    Ok(safetensors::serialize(views, None).expect("shapes of arrays that exist are no overflow"))
}

/// Arrays of a safetensors file read from `path`, put on a device.
pub fn decode(bytes: &[u8], path: &Path, device: &Device) -> Result<Arrays> {
    let problem = |problem: String| Error::Data { path: path.into(), problem };
    let file = SafeTensors::deserialize(bytes).map_err(|e| problem(format!("not a safetensors file: {e}")))?;
    let mut arrays = Arrays::new();
    for (name, view) in file.tensors() {
        let dtype = dtype_of(view.dtype()).ok_or_else(|| problem(format!("{name} is of type {:?}", view.dtype())))?;
        if view.shape().len() > MAX_DIMS {
            return Err(problem(format!("{name} has {} dimensions, at most {MAX_DIMS} are read", view.shape().len())));
        }
        arrays.insert(name, upload(&view, dtype, device));
    }
    Ok(arrays)
}

fn upload(view: &TensorView<'_>, dtype: DType, device: &Device) -> Array {
    // The file's bytes need not be aligned for the element type, so they are copied as bytes.
    element!(dtype, T => device.upload(&bytemuck::pod_collect_to_vec::<u8, T>(view.data()), view.shape().into()))
}

const NAMES: [(DType, Dtype); 5] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::U32, Dtype::U32),
];

fn name_of(dtype: DType) -> Dtype {
    NAMES[NAMES.iter().position(|(own, _)| *own == dtype).expect("every type has a name")].1
}

pub(super) fn dtype_of(name: Dtype) -> Option<DType> {
    NAMES.iter().find(|(_, theirs)| *theirs == name).map(|(own, _)| *own)
}

/// Writes a module's parameters, named by their paths.
pub fn save(module: &dyn Module, path: &Path) -> Result<()> {
    let parameters = module.parameters();
    let arrays = parameters.iter().map(|(name, parameter)| (name.clone(), parameter.tensor().array()));
    std::fs::write(path, encode(arrays)?).map_err(Error::file(path))
}

/// Reads a module's parameters from a safetensors file that has exactly these names, types and shapes.
pub fn load(module: &mut dyn Module, path: &Path) -> Result<()> {
    let Some((_, first)) = module.parameters().into_iter().next() else { return Ok(()) };
    let arrays = decode(&super::read(path)?, path, first.tensor().device())?;
    drop(first);
    restore(module, arrays, path)
}

/// Replaces a module's parameters by arrays with their names; an error lists all that does not fit.
pub fn restore(module: &mut dyn Module, arrays: Arrays, path: &Path) -> Result<()> {
    restore_those(module, arrays, path, |_| true)
}

/// The same, but parameters that do not train may be missing and then stay as they are.
pub fn restore_trained(module: &mut dyn Module, arrays: Arrays, path: &Path) -> Result<()> {
    restore_those(module, arrays, path, Parameter::trains)
}

fn restore_those(
    module: &mut dyn Module,
    mut arrays: Arrays,
    path: &Path,
    needed: impl Fn(&Parameter) -> bool,
) -> Result<()> {
    let mut problems = Vec::new();
    module.visit(&ModulePath::root(), &mut |name, parameter| {
        let wanted = parameter.tensor().spec();
        match arrays.get(&name.to_string()).map(Array::spec) {
            None if !needed(parameter) => {}
            None => problems.push(format!("{name} is missing")),
            Some(found) if found != wanted => {
                problems.push(format!("{name} is {}, the model has {}", words(&found), words(&wanted)));
            }
            Some(_) => {}
        }
    });
    let known: Vec<String> = module.parameters().into_iter().map(|(name, _)| name).collect();
    problems.extend(arrays.keys().filter(|name| !known.contains(name)).map(|name| format!("{name} is not known")));
    if !problems.is_empty() {
        return Err(Error::Data { path: path.into(), problem: problems.join("; ") });
    }
    module.visit_mut(&ModulePath::root(), &mut |name, parameter| {
        if let Some(array) = arrays.remove(&name.to_string()) {
            parameter.set(Tensor::from_array(array));
        }
    });
    Ok(())
}

fn words(spec: &Spec) -> String {
    format!("{} {:?}", spec.dtype, spec.shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two {
        a: Parameter,
        b: Parameter,
    }
    crate::module!(Two: a, b);

    fn two(values: [f32; 4], device: &Device) -> Two {
        let a = Parameter::new(Tensor::new(&values, [2, 2], device));
        Two { a, b: Parameter::new(Tensor::new(&[f64::MIN_POSITIVE], [], device)) }
    }

    #[test]
    fn a_module_comes_back_as_it_was() {
        let (device, folder) = (Device::cpu(), tempfile::tempdir().unwrap());
        let path = folder.path().join("two.safetensors");
        save(&two([1.0, -0.0, f32::MAX, f32::NAN], &device), &path).unwrap();
        let mut other = two([0.0; 4], &device);
        load(&mut other, &path).unwrap();
        let bits: Vec<u32> = other.a.tensor().to_vec::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, [1.0, -0.0, f32::MAX, f32::NAN].map(f32::to_bits));
        assert_eq!(other.b.tensor().item().unwrap(), f64::MIN_POSITIVE);
        assert!(other.a.trains(), "a loaded parameter still trains");
    }

    #[test]
    fn strided_arrays_of_every_type_are_written_in_order() {
        let device = Device::cpu();
        let x = Tensor::new(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3], &device);
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16, DType::U32] {
            let turned = x.cast(dtype).t();
            let bytes = encode([("x".to_string(), turned.array())]).unwrap();
            let back = decode(&bytes, Path::new("x"), &device).unwrap().remove("x").unwrap();
            let back = Tensor::from_array(back).cast(DType::F64).to_vec::<f64>().unwrap();
            assert_eq!(back, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0], "{dtype}");
        }
    }

    #[test]
    fn all_that_does_not_fit_is_listed() {
        let device = Device::cpu();
        let wrong = Tensor::new(&[0.0_f32; 3], [3], &device).into_array();
        let extra = wrong.clone();
        let arrays = Arrays::from([("a".to_string(), wrong), ("c".to_string(), extra)]);
        let error = restore(&mut two([0.0; 4], &device), arrays, Path::new("f")).unwrap_err().to_string();
        assert_eq!(error, "f: a is f32 [3], the model has f32 [2, 2]; b is missing; c is not known");
    }
}
