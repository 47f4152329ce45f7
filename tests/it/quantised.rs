//! Matrices in fewer bits: their codes, products with them, and their memory.

use crate::lora::{assert_near, numbers, random};
use eckart::autograd::{Direction, grad, hvp};
use eckart::ops::Input;
use eckart::ops::quantised::{Format, NF4, Packed, Product, Rows};
use eckart::{DType, Device, Seed, Tensor};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    table: Vec<u32>,
    matrices: Vec<Matrix>,
}

#[derive(Deserialize)]
struct Matrix {
    shape: [usize; 2],
    bits: Vec<u32>,
    nf4: Expected,
    int8: Expected,
}

#[derive(Deserialize)]
struct Expected {
    codes: Vec<u32>,
    scales: Vec<f32>,
}

fn file() -> File {
    serde_json::from_str(include_str!("../fixtures/nf4.json")).unwrap()
}

/// The numbers of the published rule, by a script that knows nothing of this crate (`tests/fixtures/nf4.py`).
#[test]
fn the_numbers_of_nf4_are_the_published_ones() {
    assert_eq!(NF4.map(f32::to_bits).to_vec(), file().table);
}

fn code(codes: &[u32], format: Format, e: usize) -> u32 {
    match format {
        Format::Int8 => codes[e / 4] >> (8 * (e % 4)) & 255,
        _ => {
            let byte = codes[e / 8] >> (8 * (e / 2 % 4)) & 255;
            if e.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
        }
    }
}

/// Equal but next to the middle of two numbers, where either is as near.
#[test]
fn codes_are_those_of_the_published_rules() {
    let mut middles = 0;
    for Matrix { shape: [rows, columns], bits, nf4, int8 } in file().matrices {
        let at = |e: usize| f32::from_bits(bits[e]);
        for (format, expected) in [(Format::Nf4, nf4), (Format::Int8, int8)] {
            let packed = Packed { format, rows, columns };
            let found = packed.encode(|i, j| at(i * columns + j));
            assert_eq!(found.scales, expected.scales, "{format} {rows} by {columns}");
            assert_eq!(found.codes.len(), expected.codes.len());
            for e in 0..packed.count() {
                let [found, expected] = [&found.codes, &expected.codes].map(|codes| code(codes, format, e));
                if found == expected {
                    continue;
                }
                middles += 1;
                let group = if format == Format::Int8 { columns } else { 64 };
                let scaled = f64::from(at(e)) / f64::from(scale_of(&packed, &bits, e / group));
                let from_middle = match format {
                    Format::Int8 => scaled.abs().fract() - 0.5,
                    _ => scaled - (f64::from(NF4[found as usize]) + f64::from(NF4[expected as usize])) / 2.0,
                };
                let bound = if format == Format::Int8 { 127.0 } else { 1.0 } * 2_f64.powi(-22);
                assert!(from_middle.abs() <= bound, "{format} element {e}: {found}, not {expected}");
            }
        }
    }
    assert!(middles < 3, "{middles} codes differ");
}

/// The scale of a group.
fn scale_of(packed: &Packed, bits: &[u32], group: usize) -> f32 {
    packed.encode(|i, j| f32::from_bits(bits[i * packed.columns + j])).scales[group]
}

/// A matrix in fewer bits as operands, and what it stands for, in double precision, by hand.
fn matrix(packed: Packed, dtype: DType, device: &Device) -> ([Tensor; 2], Tensor) {
    let x = numbers(&random([packed.rows, packed.columns], 9, &Device::cpu()));
    let encoded = packed.encode(|i, j| x[i * packed.columns + j] as f32);
    let value = |e: usize| match packed.format {
        Format::F16 => half::f16::from_f64(x[e] as f32 as f64).to_f64(),
        Format::BF16 => half::bf16::from_f32(x[e] as f32).to_f64(),
        Format::Int8 => {
            let code = code(&encoded.codes, Format::Int8, e) as u8 as i8;
            f64::from(code) * f64::from(encoded.scales[e / packed.columns])
        }
        Format::Nf4 => {
            let code = code(&encoded.codes, Format::Nf4, e);
            f64::from(NF4[code as usize]) * f64::from(encoded.scales[e / 64])
        }
    };
    let dense: Vec<f64> = (0..packed.count()).map(value).collect();
    // Nearest numbers are near.
    let worst = dense.iter().zip(&x).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let bound = match packed.format {
        Format::F16 => 1e-3,
        Format::BF16 => 1e-2,
        Format::Int8 => 1e-2,
        Format::Nf4 => 0.25,
    };
    assert!(worst < bound, "{packed:?}: {worst}");
    let codes = Tensor::new(&encoded.codes, [encoded.codes.len()], device);
    let scales = Tensor::new(&encoded.scales, [encoded.scales.len()], device).cast(dtype);
    ([codes, scales], Tensor::new(&dense, [packed.rows, packed.columns], &Device::cpu()))
}

/// Some with rows that are no whole words or blocks, some of several panels in each direction.
const SIZES: [[usize; 2]; 7] = [[1, 1], [3, 5], [64, 33], [7, 129], [96, 64], [2100, 40], [37, 4133]];

fn each() -> impl Iterator<Item = Packed> {
    Format::ALL.into_iter().flat_map(|format| SIZES.map(|[rows, columns]| Packed { format, rows, columns }))
}

#[test]
fn products_are_those_with_the_matrix() {
    let device = Device::cpu();
    for packed in each() {
        let ([codes, scales], dense) = matrix(packed, DType::F64, &device);
        for transposed in [false, true] {
            let w = if transposed { dense.t() } else { dense.clone() };
            let x = random([2, 3, w.shape()[0]], 1, &device);
            let bias = random([w.shape()[1]], 2, &device);
            let product = Product { packed, transposed };
            let y = Tensor::apply(product, &[&x, &codes, &scales, &bias]);
            assert_near(&y, &(x.matmul(&w) + &bias), 1e-12);
            // What is shared has the sum of both gradients.
            let leaf = x.leaf();
            let apply = || Tensor::apply(product, &[&leaf, &codes, &scales]);
            let found = grad(&(apply().sin() + apply().cos()).sum_all(), &[&leaf], false);
            let z = || leaf.matmul(&w);
            let expected = grad(&(z().sin() + z().cos()).sum_all(), &[&leaf], false);
            assert_near(&found[0], &expected[0], 1e-12);
        }
    }
}

#[test]
fn rows_are_those_of_the_matrix() {
    let device = Device::cpu();
    for packed in each() {
        let ([codes, scales], dense) = matrix(packed, DType::F64, &device);
        let last = packed.rows as u32 - 1;
        let ids = Tensor::new(&[last, 0, last / 2, last], [2, 2], &device);
        let found = Tensor::apply(Rows { packed, range: None }, &[&codes, &scales, &ids]);
        assert_eq!(numbers(&found), numbers(&dense.gather(&ids)), "{packed:?}");
        let (start, count) = (packed.rows / 3, packed.rows / 2);
        let range = Some(start..start + count);
        let found = Tensor::apply(Rows { packed, range }, &[&codes, &scales]);
        assert_eq!(numbers(&found), numbers(&dense.slice(0, start, count)), "{packed:?}");
    }
}

/// Through a layer that is not linear, by the composition with a dense matrix.
#[test]
fn hessians_are_those_with_the_matrix() {
    let device = Device::cpu();
    for format in Format::ALL {
        let packed = Packed { format, rows: 9, columns: 14 };
        let ([codes, scales], dense) = matrix(packed, DType::F64, &device);
        let at = [random([4, 14], 3, &device)];
        let v: Direction = vec![Some(random([4, 14], 4, &device))];
        let product = |x: &Tensor, transposed| Tensor::apply(Product { packed, transposed }, &[x, &codes, &scales]);
        let found =
            hvp(|x| product(&product(&x[0], true).tanh(), false).sin().sum_all(), &at, std::slice::from_ref(&v));
        let expected = hvp(|x| x[0].matmul(&dense.t()).tanh().matmul(&dense).sin().sum_all(), &at, &[v]);
        assert_near(&found.products[0][0], &expected.products[0][0], 1e-12);
        assert_near(&found.gradient[0], &expected.gradient[0], 1e-12);
    }
}

#[test]
fn threads_change_no_bit() {
    let packed = Packed { format: Format::Nf4, rows: 130, columns: 515 };
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let ([codes, scales], _) = matrix(packed, DType::F32, &Device::cpu());
            let x = |side| Input::normal([600, side]).tensor(Seed(1), DType::F32, &Device::cpu());
            let product = |side, transposed| {
                numbers(&Tensor::apply(Product { packed, transposed }, &[&x(side), &codes, &scales]))
            };
            [product(515, true), product(130, false), numbers(&codes), numbers(&scales)]
        })
    };
    assert_eq!(bits(1), bits(3));
}

/// Files may hold any bits.
#[test]
fn any_codes_are_numbers_or_not() {
    for packed in Format::ALL.map(|format| Packed { format, rows: 3, columns: 32 }) {
        let words: Vec<u32> = (0..packed.words() as u32).map(|i| i.wrapping_mul(0x9e37_79b9) | 0x8000_7c00).collect();
        let codes = Tensor::new(&words, [words.len()], &Device::cpu());
        let scales = Tensor::new(&vec![f32::INFINITY; packed.scales()], [packed.scales()], &Device::cpu());
        let rows = Tensor::apply(Rows { packed, range: Some(0..3) }, &[&codes, &scales]);
        assert_eq!(rows.count(), 96);
    }
}

#[test]
#[should_panic(expected = "quantised: codes u32 [2], not u32 [3]")]
fn codes_of_another_number_are_refused() {
    let packed = Packed { format: Format::Nf4, rows: 4, columns: 5 };
    let zeros = |dtype, count: usize| Tensor::zeros([count], dtype, &Device::cpu());
    let x = Tensor::zeros([1, 5], DType::F32, &Device::cpu());
    Tensor::apply(Product { packed, transposed: true }, &[&x, &zeros(DType::U32, 2), &zeros(DType::F32, 1)]);
}

#[test]
#[should_panic(expected = "index 4 into 4 rows")]
fn indices_beyond_the_matrix_are_refused() {
    let packed = Packed { format: Format::F16, rows: 4, columns: 2 };
    let zeros = |dtype, count: usize| Tensor::zeros([count], dtype, &Device::cpu());
    let ids = Tensor::new(&[4_u32], [1], &Device::cpu());
    Tensor::apply(Rows { packed, range: None }, &[&zeros(DType::U32, 4), &zeros(DType::F32, 0), &ids]);
}
