//! Where kernels may go wrong at the edges: views that begin inside a storage, nothing at all, sizes around those of
//! workgroups and beyond one side of a grid.

use crate::gpu;
use eckart::autograd::vjp;
use eckart::device::gpu::Options;
use eckart::module::Path;
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::ops::attention::Attention;
use eckart::optim::{Adam, Gradients, Group, Momentum, Optimizer};
use eckart::{DType, Device, Module, Seed, Tensor, check, ops::Input};

fn random(shape: &[usize], seed: u64, device: &Device) -> Tensor {
    let x = Input::normal(shape).tensor(Seed(seed), DType::F32, &Device::cpu());
    Tensor::new(&x.to_vec::<f32>().unwrap(), shape, device)
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

fn near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    for (i, (a, b)) in numbers(found).into_iter().zip(numbers(expected)).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: {a}, not {b}, at {i}");
    }
}

/// `f` on the GPU is `f` on the host.
fn agree(device: &Device, what: &str, f: impl Fn(&Device) -> Tensor) {
    near(&f(device), &f(&Device::cpu()), what);
}

/// A view with a storage of its own that begins behind its start.
fn behind(x: &Tensor) -> Tensor {
    x.pad(0, 1, 0).slice(0, 1, x.shape()[0])
}

/// Cotangents that are added up in place.
#[test]
fn sums_do_not_start_where_a_view_does() {
    let Some(device) = gpu::device() else { return };
    // A cotangent that is part of one nobody else holds; what it is of is used twice, or three times.
    let part = |x: &Tensor| Tensor::concat(&[&random(&[1, 5], 1, x.device()), x], 0);
    agree(&device, "sum", |device| {
        let x = random(&[3, 5], 2, device).leaf();
        vjp(&(part(&x).exp() + part(&x).sin()), &random(&[4, 5], 3, device), &[&x], false).remove(0)
    });
    agree(&device, "onto a sum", |device| {
        let (w, ids) = (random(&[3, 5], 4, device).leaf(), Tensor::new(&[1_u32, 1, 2, 0], [4], device));
        let y = part(&w).exp() + w.gather(&ids) + w.matmul(&random(&[5, 5], 5, device)).gather(&ids);
        vjp(&y, &random(&[4, 5], 6, device), &[&w], false).remove(0)
    });
    agree(&device, "gradient", |device| {
        let w = eckart::Parameter::new(random(&[3, 5], 7, device));
        let (x, ids) = (random(&[4, 3], 8, device), Tensor::new(&[1_u32, 1, 2, 0], [4], device));
        let mut gradients = Gradients::new();
        gradients.add((part(w.tensor()).exp() + w.tensor().gather(&ids) + x.linear(w.tensor(), None)).sum_all());
        Tensor::from_array(gradients.get(w.id()).unwrap().clone())
    });
}

/// Three steps of a small model whose weights, and one gradient, are parts of larger storages, or are not.
fn learned(optimizer: fn(Vec<Group>) -> Optimizer, parts: bool, device: &Device) -> Vec<Vec<f32>> {
    let mut model = Model::new(&ModelConfig::new(Arch::Gpt2, 17, 8, 1, 2, 16), Seed(0), device).unwrap();
    if parts {
        model.visit_mut(&Path::root(), &mut |_, parameter| parameter.set(behind(parameter.tensor())));
    }
    let ids = Tensor::new(&[1_u32; 16], [2, 8], device);
    let mut optimizer = optimizer(Group::decay_matrices(0.1));
    for step in 0..3 {
        let mut gradients = Gradients::new();
        gradients.add(model.loss(&ids, &ids, &Pass::default()));
        if parts {
            let leaf = model.parameters()[0].1.id();
            let gradient = behind(&Tensor::from_array(gradients.get(leaf).unwrap().clone()));
            gradients.insert(leaf, gradient.into_array());
        }
        assert!(optimizer.step(&mut model, gradients, step, 0.1, Some(1.0)).taken);
    }
    model.parameters().iter().map(|(_, parameter)| numbers(parameter.tensor())).collect()
}

#[test]
fn optimizers_step_what_begins_inside_a_storage() {
    let Some(device) = gpu::device() else { return };
    let optimizers: [fn(Vec<Group>) -> Optimizer; 2] = [
        |groups| Optimizer::new(Adam { epsilon: 0.1, ..Adam::default() }, groups),
        |groups| Optimizer::new(Momentum { beta: 0.9 }, groups),
    ];
    for optimizer in optimizers {
        let (parts, wholes) = (learned(optimizer, true, &device), learned(optimizer, false, &device));
        let pairs = parts.iter().flatten().zip(wholes.iter().flatten());
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "off by {apart}");
    }
}

type Make<'a> = &'a dyn Fn(&Device) -> Tensor;
type Apply<'a> = &'a dyn Fn(&[Tensor]) -> Tensor;

/// Results that have elements, of operands that have none.
#[test]
fn nothing_can_be_bound() {
    let Some(device) = gpu::device() else { return };
    let cases: [(&str, Make<'_>); 9] = [
        ("product", &|d| random(&[3, 0], 1, d).matmul(&random(&[0, 2], 2, d))),
        ("batches", &|d| random(&[2, 3, 0], 1, d).matmul(&random(&[2, 0, 4], 2, d))),
        ("linear", &|d| random(&[3, 0], 1, d).linear(&random(&[0, 5], 2, d), Some(&random(&[5], 3, d)))),
        ("no outputs", &|d| random(&[3, 4], 1, d).linear(&random(&[4, 0], 2, d), Some(&random(&[0], 3, d)))),
        ("sum", &|d| random(&[0, 3], 1, d).sum(&[0])),
        ("concat", &|d| Tensor::concat(&[&random(&[2, 0], 1, d), &random(&[2, 3], 2, d)], 1)),
        ("pad", &|d| random(&[0, 3], 1, d).pad(0, 1, 1)),
        ("scatter_add", &|d| random(&[0, 3], 1, d).scatter_add(&Tensor::new::<u32>(&[], [0], d), 2)),
        ("softmax", &|d| random(&[3, 0], 1, d).softmax(1)),
    ];
    for (what, f) in cases {
        agree(&device, what, f);
        device.gpu().unwrap().check().unwrap();
    }
    let pulled: [(&str, Apply<'_>, &[&[usize]]); 4] = [
        ("product", &|x| x[0].matmul(&x[1]), &[&[3, 0], &[0, 2]]),
        ("linear", &|x| x[0].linear(&x[1], Some(&x[2])), &[&[3, 0], &[0, 5], &[5]]),
        ("no rows", &|x| x[0].layer_norm(&x[1], &x[2], 1e-5), &[&[0, 4], &[4], &[4]]),
        ("no columns", &|x| x[0].rms_norm(&x[1], 1e-5), &[&[3, 0], &[0]]),
    ];
    for (what, f, shapes) in pulled {
        for k in 0..shapes.len() {
            agree(&device, what, |d| {
                let x: Vec<Tensor> = shapes.iter().map(|shape| random(shape, 1, d).leaf()).collect();
                let y = f(&x);
                vjp(&y, &random(y.shape(), 2, d), &[&x[k]], false).remove(0)
            });
        }
        device.gpu().unwrap().check().unwrap();
    }
    let loss = |d: &Device| random(&[0, 4], 1, d).cross_entropy(&Tensor::new::<u32>(&[], [0], d));
    agree(&device, "cross_entropy", loss);
    // Rows that do not exist are no numbers, as elsewhere.
    let lost = random(&[0, 3], 1, &device).gather(&Tensor::new(&[0_u32], [1], &device));
    assert!(numbers(&lost).iter().all(|x| x.is_nan()));
    device.gpu().unwrap().check().unwrap();
}

/// Views that begin inside a word, nothing at all, and more than is read at once.
#[test]
fn arrays_are_read_together() {
    use eckart::io::encode;
    let Some(device) = gpu::device() else { return };
    let read = |make: &dyn Fn(&Device) -> Vec<Tensor>, waits: u64| {
        let file = |device: &Device| {
            let tensors = make(device);
            encode(tensors.iter().enumerate().map(|(i, x)| (format!("{i}"), x.array()))).unwrap()
        };
        let before = device.gpu().unwrap().counters();
        assert!(file(&device) == file(&Device::cpu()), "bytes differ");
        assert_eq!(device.gpu().unwrap().counters().since(&before).reads, waits);
    };
    let small = |device: &Device| {
        let x = random(&[5, 3], 1, device);
        let half = x.cast(DType::BF16).reshape([15]);
        let halves = [half.slice(0, 1, 3), half.slice(0, 4, 1), half.slice(0, 2, 6)];
        [vec![x.t(), x.slice(0, 1, 0), x.slice(1, 1, 2), x.index(0, 3).index(0, 1)], halves.to_vec(), vec![x]].concat()
    };
    read(&small, 1);
    read(&|device| vec![random(&[3], 1, device).slice(0, 0, 0)], 1);
    read(&|_| Vec::new(), 0);
    let large = |device: &Device| {
        let x = |megabytes: usize, value| Tensor::scalar(value, device).broadcast_to([megabytes << 18]).contiguous();
        vec![x(40, 1.0_f32), x(24, 2.0), x(1, 3.0), x(70, 4.0)]
    };
    read(&large, 3);
}

#[test]
fn elementwise_kernels_take_any_number_of_elements() {
    let Some(device) = gpu::device() else { return };
    for n in [1, 3, 4, 5, 255, 256, 257, 1023, 1024, 1025, 4097] {
        agree(&device, "dense", |d| random(&[n], 1, d).exp() + random(&[n], 2, d));
        agree(&device, "strided", |d| random(&[n, 2], 1, d).index(1, 1).exp() * random(&[n, 3], 2, d).index(1, 0));
        agree(&device, "halves", |d| random(&[n, 2], 1, d).cast(DType::BF16).index(1, 1).contiguous().cast(DType::F32));
        agree(&device, "mixed", |d| random(&[n], 1, d) * random(&[1], 2, d) + random(&[n, 2], 3, d).index(1, 0));
        let dropped = |d: &Device| random(&[n, 2], 1, d).index(1, 1).dropout(0.5, Seed(1));
        agree(&device, "dropout", dropped);
    }
}

/// More workgroups than one side of a grid has.
#[test]
fn copies_may_be_larger_than_a_grid_is_wide() {
    let Some(device) = gpu::device() else { return };
    let (rows, columns) = (1025, 16_500);
    let column = Tensor::new(&Vec::from_iter((0..columns).map(|i| i as f32)), [columns, 1], &device);
    let row = Tensor::new(&Vec::from_iter((0..rows).map(|i| (i * 17 % 101) as f32)), [rows], &device);
    let x = &column * &row; // [columns, rows]
    let apart = x.t().contiguous() - row.unsqueeze(1) * column.reshape([columns]);
    assert_eq!(apart.abs().sum_all().item().unwrap(), 0.0);
    assert_eq!(x.t().contiguous().slice(0, rows - 1, 1).sum_all().item().unwrap() > 0.0, (rows - 1) * 17 % 101 > 0);
}

#[test]
fn there_may_be_more_products_than_a_grid_is_wide() {
    let Some(device) = gpu::device() else { return };
    agree(&device, "products", |d| random(&[70_000, 2, 3], 1, d).matmul(&random(&[70_000, 3, 2], 2, d)));
}

#[test]
#[ignore = "long"]
fn there_may_be_more_sequences_than_a_grid_is_wide() {
    let Some(device) = gpu::device() else { return };
    let [all, alone] = [70_000, 1].map(|batch| {
        let qkv = random(&[1, 2, 3, 4], 3, &device).broadcast_to([batch, 2, 3, 4]).leaf();
        let y = qkv.attention(Attention::new(1, true), None);
        let c = random(&[1, 2, 1, 4], 4, &device).broadcast_to([batch, 2, 1, 4]);
        let grad = vjp(&y, &c, &[&qkv], false).remove(0);
        [y.detach(), grad]
    });
    for (all, one) in all.into_iter().zip(alone) {
        assert_eq!((all - one).abs().sum_all().item().unwrap(), 0.0);
    }
}

/// Structures lie otherwise in a uniform than among immediates.
#[test]
#[ignore = "long"]
fn parameters_from_a_uniform_are_those_of_immediates() {
    let Some(device) = gpu::device_with(Options { immediates: false, ..Options::default() }) else { return };
    let rows = check::device(&device).unwrap();
    let failed: Vec<String> = rows.iter().filter(|row| !row.passed).map(|row| format!("{row:?}")).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
