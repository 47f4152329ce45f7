//! Models of files whose weights are packed into fewer bits as they are read.

use crate::hub::{folder, names};
use eckart::io::{Files, hub};
use eckart::lowrank::{ALL_LINEAR, quantise};
use eckart::nn::{Arch, Model, ModelConfig};
use eckart::ops::quantised::Format;
use eckart::{DType, Device, Module, Seed};
use std::path::{Path, PathBuf};

/// Path, type, and the elements' bits of every parameter.
fn bits(model: &Model) -> Vec<(String, DType, Vec<u32>)> {
    let of = |(path, parameter): (String, eckart::Parameter)| {
        let tensor = parameter.tensor();
        let bits = match tensor.dtype() {
            DType::U32 => tensor.to_vec::<u32>().unwrap(),
            _ => tensor.to_vec::<f32>().unwrap().iter().map(|x| x.to_bits()).collect(),
        };
        (path, tensor.dtype(), bits)
    };
    model.parameters().into_iter().map(of).collect()
}

fn sizes(folder: &Path) -> ModelConfig {
    hub::read_config(folder, 16).unwrap()
}

fn packed(format: Format, folder: &Path, device: &Device) -> Model {
    hub::load_in(format, folder, &sizes(folder), None, device).unwrap().0
}

/// A model with layers of many sizes, in a folder.
fn large(home: &Path) -> PathBuf {
    let config = ModelConfig { tied: false, ..ModelConfig::new(Arch::Llama, 50, 16, 3, 4, 64) };
    let path = home.join("large");
    hub::save(&Model::new(&config, Seed(3), &Device::cpu()).unwrap(), &path, &Files::new()).unwrap();
    path
}

#[test]
fn the_bits_are_those_of_quantising_afterwards() {
    let device = Device::cpu();
    for name in names() {
        let (folder, config) = (folder(name), sizes(&folder(name)));
        for format in Format::ALL {
            let packed = packed(format, &folder, &device);
            let mut after = hub::load(&folder, &config, &device).unwrap();
            let layers = quantise(&mut after, format, &[ALL_LINEAR]).unwrap();
            assert!(!layers.is_empty());
            assert_eq!(bits(&packed), bits(&after), "{name} {format}");
            let each = hub::load_by_layer(&folder, &config, None, &device, &mut |model, path| {
                if layers.iter().any(|layer| layer == path) {
                    quantise(model, format, &[path]).map(drop)
                } else {
                    Ok(())
                }
            });
            assert_eq!(bits(&each.unwrap().0), bits(&after), "{name} {format}, layer by layer");
        }
    }
}

/// Never the whole model in single precision: packed as it is read, nothing but the result; with each weight shown as it
/// is, one of them more.
pub fn peaks(device: fn() -> Device) {
    let home = tempfile::tempdir().unwrap();
    let folder = large(home.path());
    let config = sizes(&folder);
    for format in Format::ALL {
        let whole = device();
        let model = packed(format, &folder, &whole);
        let [live, peak] = [whole.ledger().live(), whole.ledger().peak()].map(|bytes| bytes.total());
        assert_eq!(peak, live, "{format}");
        drop(model);
        let single = device();
        let model = hub::load(&folder, &config, &single).unwrap();
        assert!(live < 2 * single.ledger().live().total() / 3, "{format}: {live}");
        drop(model);
        let each = device();
        let all = eckart::lowrank::chosen(&mut hub::load(&folder, &config, &Device::null()).unwrap(), &[ALL_LINEAR]);
        let all = all.unwrap();
        let model = hub::load_by_layer(&folder, &config, None, &each, &mut |model, path| {
            if all.iter().any(|layer| layer == path) { quantise(model, format, &[path]).map(drop) } else { Ok(()) }
        });
        assert_eq!(each.ledger().live().total(), live);
        let largest = 4 * config.width * config.hidden;
        let highest = each.ledger().peak().total();
        assert!(highest > live && highest <= live + largest as u64, "{format}: {highest} for {live} and {largest}");
        drop(model);
    }
}

#[test]
fn opening_takes_no_more_than_what_is_opened() {
    peaks(Device::cpu);
    peaks(Device::null);
    peaks(Device::null_gpu);
}

#[cfg(feature = "gpu")]
#[test]
fn opening_takes_no_more_on_a_gpu() {
    let Some(device) = crate::gpu::device() else { return };
    peaks(|| crate::gpu::device().expect("it was there a moment ago"));
    let folder = folder("qwen2");
    for format in Format::ALL {
        let here = packed(format, &folder, &Device::cpu());
        assert_eq!(bits(&packed(format, &folder, &device)), bits(&here), "{format}");
    }
}

#[test]
fn what_cannot_be_packed_is_named() {
    let home = tempfile::tempdir().unwrap();
    let folder = large(home.path());
    let spoilt = |value: f32| {
        let mut model = hub::open(&folder, None, &Device::cpu()).unwrap();
        let set = |path: &eckart::module::Path, parameter: &mut eckart::Parameter| {
            if path.to_string() == "model.layers.1.mlp.up_proj.weight" {
                let mut values = parameter.tensor().to_vec::<f32>().unwrap();
                values[77] = value;
                parameter.set(eckart::Tensor::new(&values, *parameter.tensor().shape(), &Device::cpu()));
            }
        };
        model.visit_mut(&eckart::module::Path::root(), &mut { set });
        let path = home.path().join(format!("spoilt {value}"));
        hub::save(&model, &path, &Files::new()).unwrap();
        path
    };
    let error = |value, format| {
        let path = spoilt(value);
        let error = hub::load_in(format, &path, &sizes(&path), None, &Device::cpu()).map(drop).unwrap_err().to_string();
        std::fs::remove_dir_all(path).unwrap();
        error
    };
    assert_eq!(error(1e6, Format::F16), "model.layers.1.mlp.up_proj: 1e6 is too large for f16: take bf16 or nf4");
    for format in Format::ALL {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let found = error(value, format);
            assert!(found.contains("model.layers.1.mlp.up_proj: the weight is not finite"), "{found}");
        }
    }
}
