//! Elements of a file as single-precision numbers on a device.

use crate::device::{Array, Device, Spec, Tag, tagged};
use crate::dtype::{DType, Element};
use crate::element;
use crate::shape::Shape;
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements that a task converts.
const CHUNK: usize = 1 << 16;

/// A weight of `shape` from the bytes of a file, which hold elements of type `from`; on a null device without reading
/// them. What is single precision already keeps its bits.
pub fn upload(bytes: &[u8], from: DType, shape: Shape, device: &Device) -> Array {
    let mut array = tagged(Tag::Weights, || device.alloc(Spec::new(DType::F32, shape)));
    if device.is_gpu() && device.computes() {
        array.fill_from(&singles(bytes, from));
    } else if device.computes() {
        widen(bytes, from, array.slice_mut());
    }
    array
}

/// The file's own bytes where they can serve.
fn singles(bytes: &[u8], from: DType) -> Cow<'_, [f32]> {
    if let (DType::F32, Ok(own)) = (from, bytemuck::try_cast_slice(bytes)) {
        return Cow::Borrowed(own);
    }
    let mut wide = vec![0.0; bytes.len() / from.size()];
    widen(bytes, from, &mut wide);
    Cow::Owned(wide)
}

/// Element `i` of the bytes of a file, which need not be aligned for it.
pub fn element<T: Element>(bytes: &[u8], i: usize) -> f32 {
    let size = size_of::<T>();
    single::<T>(&bytes[i * size..][..size])
}

fn single<T: Element>(bytes: &[u8]) -> f32 {
    bytemuck::pod_read_unaligned::<T>(bytes).to_f64() as f32
}

fn widen(bytes: &[u8], from: DType, to: &mut [f32]) {
    if from == DType::F32 {
        return bytemuck::cast_slice_mut(to).copy_from_slice(bytes);
    }
    let parts = to.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * from.size()));
    element!(from, T => parts.for_each(|(to, bytes)| widen_part::<T>(bytes, to)))
}

fn widen_part<T: Element>(bytes: &[u8], to: &mut [f32]) {
    to.iter_mut().zip(bytes.chunks_exact(size_of::<T>())).for_each(|(to, x)| *to = single::<T>(x));
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_type_is_read_at_any_address() {
        let values = [1.5_f32, -0.0, 0.333, f32::INFINITY, 6e-8, f32::from_bits(0x7fa0_0001)];
        let stored: [(DType, Vec<u8>, Vec<f32>); 4] = [
            (DType::F32, bytemuck::cast_slice(&values).into(), values.into()),
            (DType::F64, values.iter().flat_map(|x| (*x as f64).to_le_bytes()).collect(), values.into()),
            (DType::F16, values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(), {
                values.map(|x| f16::from_f32(x).to_f32()).into()
            }),
            (DType::BF16, values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(), {
                values.map(|x| bf16::from_f32(x).to_f32()).into()
            }),
        ];
        for (dtype, bytes, expected) in stored {
            for shift in 0..3 {
                let moved = [vec![0; shift], bytes.clone()].concat();
                let array = upload(&moved[shift..], dtype, [6].into(), &Device::cpu());
                let found = array.slice::<f32>();
                let same = |(a, b): (&f32, &f32)| {
                    a.to_bits() == b.to_bits() || (dtype != DType::F32 && a.is_nan() && b.is_nan())
                };
                assert!(found.iter().zip(&expected).all(same), "{dtype} at {shift}: {found:?}");
                assert_eq!(
                    &*singles(&moved[shift..], dtype).iter().map(|x| x.is_nan()).collect::<Vec<_>>(),
                    [false, false, false, false, false, true]
                );
            }
        }
    }

    #[test]
    fn long_weights_are_converted_in_parts() {
        let count = 2 * CHUNK + 3;
        let bytes: Vec<u8> = (0..count).flat_map(|i| (i as f64).to_le_bytes()).collect();
        let array = upload(&bytes, DType::F64, [count].into(), &Device::cpu());
        assert!(array.slice::<f32>().iter().enumerate().all(|(i, x)| *x == i as f32));
    }
}
