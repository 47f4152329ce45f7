//! What an op does not take, it says so: wrong types, wrong sizes, indices that point nowhere.

use eckart::ops::{self, Op};
use eckart::{DType, Device, Seed, Spec, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The first sampled op of each name.
fn ops_by_name() -> BTreeMap<&'static str, Arc<dyn Op>> {
    ops::samples().into_iter().rev().map(|sample| (sample.op.name(), sample.op)).collect()
}

fn real(shape: &[usize]) -> Spec {
    Spec::new(DType::F64, shape)
}

fn index(shape: &[usize]) -> Spec {
    Spec::new(DType::U32, shape)
}

/// Name, operands that do not fit, operands that just do.
type Row = (&'static str, Vec<Vec<Spec>>, Vec<Vec<Spec>>);

fn moving() -> Vec<Row> {
    vec![
        ("reshape", vec![vec![real(&[13])], vec![real(&[2, 5])]], vec![vec![real(&[12])]]),
        ("permute", vec![vec![real(&[2, 3])], vec![real(&[2, 3, 4, 1])]], vec![vec![real(&[5, 6, 7])]]),
        ("broadcast_to", vec![vec![real(&[2, 4])], vec![real(&[5, 2, 3, 4])]], vec![vec![real(&[4])], vec![real(&[])]]),
        ("slice", vec![vec![real(&[3, 2])], vec![real(&[3, 0])]], vec![vec![real(&[3, 3])]]),
        (
            "concat",
            vec![
                vec![real(&[3, 4]), real(&[2, 4])],
                vec![real(&[3, 4]), real(&[3, 4, 1])],
                vec![real(&[3, 4]), Spec::new(DType::F32, [3, 4])],
            ],
            vec![vec![real(&[3, 4]), real(&[3, 0]), real(&[3, 1])]],
        ),
    ]
}

fn arithmetic() -> Vec<Row> {
    let pairs = || vec![vec![real(&[3, 4]), real(&[3])], vec![real(&[3]), Spec::new(DType::F32, [3])]];
    let fits = || vec![vec![real(&[3, 1]), real(&[4])]];
    let masked = |mask: Spec| vec![real(&[3, 4]), real(&[4]), mask];
    vec![
        ("plus", [pairs(), vec![vec![index(&[3]), index(&[3])]]].concat(), fits()),
        ("less", pairs(), [fits(), vec![vec![index(&[3]), index(&[1])]]].concat()),
        ("select", vec![masked(real(&[3, 4])), masked(index(&[2, 4]))], vec![masked(index(&[2, 1, 1]))]),
        ("max", vec![vec![real(&[0, 4, 2])], vec![index(&[3, 4, 2])]], vec![vec![real(&[0, 4, 0])]]),
        ("argmax", vec![vec![real(&[])], vec![real(&[3, 0])], vec![index(&[3])]], vec![vec![real(&[0, 1])]]),
    ]
}

fn products() -> Vec<Row> {
    let f32s = |shape: &[usize]| Spec::new(DType::F32, shape);
    vec![
        (
            "matmul",
            vec![
                vec![real(&[3, 4]), real(&[5, 4])],
                vec![real(&[4]), real(&[4, 5])],
                vec![real(&[3, 4]), real(&[4])],
                vec![real(&[2, 3, 4]), real(&[3, 4, 5])],
                vec![real(&[3, 4]), f32s(&[4, 5])],
                vec![index(&[3, 4]), index(&[4, 5])],
            ],
            vec![vec![real(&[2, 1, 3, 4]), real(&[7, 4, 5])], vec![real(&[3, 0]), real(&[0, 5])]],
        ),
        (
            "linear",
            vec![
                vec![real(&[3, 4]), real(&[5, 4])],
                vec![real(&[]), real(&[4, 5])],
                vec![real(&[3, 4]), real(&[4])],
                vec![real(&[3, 4]), real(&[1, 4, 5])],
                vec![real(&[3, 4]), f32s(&[4, 5])],
                vec![real(&[3, 4]), real(&[4, 5]), f32s(&[5])],
                vec![real(&[3, 4]), real(&[4, 5]), real(&[4])],
                vec![real(&[3, 4]), real(&[4, 5]), real(&[1, 5])],
                vec![index(&[3, 4]), index(&[4, 5])],
            ],
            vec![vec![real(&[4]), real(&[4, 5]), real(&[5])]],
        ),
        (
            "project",
            vec![vec![real(&[36, 2])], vec![real(&[37])], vec![real(&[37, 2, 1])], vec![index(&[37, 2])]],
            vec![vec![real(&[37, 1])], vec![real(&[37, 0])]],
        ),
        (
            "gather",
            vec![vec![real(&[5, 3]), real(&[2])], vec![real(&[]), index(&[2])]],
            vec![vec![real(&[5]), index(&[])]],
        ),
        (
            "scatter_add",
            vec![
                vec![real(&[6, 3]), real(&[6])],
                vec![real(&[6, 3]), index(&[5])],
                vec![real(&[6, 3]), index(&[6, 1])],
                vec![real(&[]), index(&[1])],
            ],
            vec![vec![real(&[6]), index(&[6])]],
        ),
    ]
}

fn fused() -> Vec<Row> {
    let packed = |mask: Spec| vec![real(&[2, 5, 6, 3]), mask];
    let turned = |shape: &[usize], table: &[usize]| vec![real(shape), real(table)];
    vec![
        (
            "layer_norm",
            vec![
                vec![real(&[2, 4]), real(&[4]), real(&[5])],
                vec![real(&[2, 4]), real(&[2, 4]), real(&[4])],
                vec![real(&[2, 4]), Spec::new(DType::F32, [4]), real(&[4])],
                vec![real(&[]), real(&[]), real(&[])],
                vec![index(&[2, 4]), index(&[4]), index(&[4])],
            ],
            vec![vec![real(&[4]), real(&[4]), real(&[4])]],
        ),
        (
            "cross_entropy",
            vec![
                vec![real(&[3, 7]), real(&[3])],
                vec![index(&[3, 7]), index(&[3])],
                vec![real(&[3, 7]), index(&[7])],
                vec![real(&[3, 7]), index(&[3, 7])],
                vec![real(&[]), index(&[])],
            ],
            vec![vec![real(&[7]), index(&[])]],
        ),
        (
            "attention",
            vec![
                vec![real(&[2, 5, 7, 3])],
                vec![real(&[5, 6, 3])],
                vec![real(&[2, 5, 6, 0])],
                vec![index(&[2, 5, 6, 3])],
                packed(real(&[5, 5])),
                packed(index(&[4, 5])),
                packed(index(&[3, 2, 5, 5])),
                packed(index(&[1, 2, 2, 5, 5])),
            ],
            vec![packed(index(&[2, 2, 5, 5])), packed(index(&[5, 1]))],
        ),
        (
            "rotary",
            vec![
                turned(&[2, 5, 2, 4], &[4, 2, 2]),
                turned(&[2, 3, 1, 4], &[4, 2, 2]),
                turned(&[2, 3, 2, 6], &[4, 2, 2]),
                turned(&[2, 3, 2, 4], &[4, 2, 1]),
                turned(&[3, 2, 4], &[4, 2, 2]),
                vec![real(&[2, 3, 2, 4]), Spec::new(DType::F32, [4, 2, 2])],
                vec![index(&[2, 3, 2, 4]), index(&[4, 2, 2])],
            ],
            vec![turned(&[2, 4, 2, 4], &[4, 2, 2])],
        ),
    ]
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let ops = ops_by_name();
    for (name, wrong, right) in [moving(), arithmetic(), products(), fused()].concat() {
        for specs in wrong {
            assert!(ops[name].infer(&specs).is_err(), "{name} took {specs:?}");
        }
        for specs in right {
            assert!(ops[name].infer(&specs).is_ok(), "{name} refused {specs:?}");
        }
    }
}

/// Half precision is for storage: what computes refuses it, what only moves or looks at elements does not.
#[test]
fn storage_types_do_not_compute() {
    const INDIFFERENT: [&str; 15] = [
        "contiguous",
        "alias",
        "reshape",
        "permute",
        "broadcast_to",
        "slice",
        "pad",
        "concat",
        "cast",
        "gather",
        "select",
        "at_least",
        "greater",
        "less",
        "equal",
    ];
    for sample in ops::samples() {
        let ins = sample.tensors(Seed(0), DType::BF16, &Device::cpu());
        let specs: Vec<Spec> = ins.iter().map(Tensor::spec).collect();
        let name = sample.op.name();
        assert_eq!(sample.op.infer(&specs).is_ok(), INDIFFERENT.contains(&name), "{name} of {specs:?}");
    }
}

fn ids(ids: &[u32]) -> Tensor {
    Tensor::new(ids, [ids.len()], &Device::cpu())
}

fn ones(shape: [usize; 2]) -> Tensor {
    Tensor::full(1.0, Spec::new(DType::F64, shape), &Device::cpu())
}

#[test]
#[should_panic(expected = "index 3 into 3 rows")]
fn gather_refuses_indices_beyond_the_table() {
    ones([3, 2]).gather(&ids(&[0, 3]));
}

#[test]
#[should_panic(expected = "index 4 into 4 rows")]
fn scatter_add_refuses_indices_beyond_the_table() {
    ones([2, 3]).scatter_add(&ids(&[1, 4]), 4);
}

#[test]
#[should_panic(expected = "target 3 of 3 classes")]
fn cross_entropy_refuses_unknown_classes() {
    ones([2, 3]).cross_entropy(&ids(&[2, 3]));
}

#[test]
#[should_panic(expected = "probability 1 is not in [0, 1)")]
fn dropout_keeps_something() {
    ones([2, 3]).dropout(1.0, Seed(0));
}

#[test]
#[should_panic(expected = "3 query heads cannot share 2 key heads")]
fn key_heads_divide_query_heads() {
    let op = ops::attention::Attention { kv_heads: 2, ..ops::attention::Attention::new(3, true) };
    Tensor::full(1.0, Spec::new(DType::F64, [1, 2, 7, 4]), &Device::cpu()).attention(op, None);
}
