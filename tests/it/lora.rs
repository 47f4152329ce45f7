//! Linear maps with adapters: the ops and the map, against dense matrices in double precision, and their memory.

use eckart::autograd::{Direction, backward, grad, hvp};
use eckart::lowrank::{AdapterConfig, Lora, adapt};
use eckart::module::{Dense, Map};
use eckart::ops::dora::Dora;
use eckart::ops::{self, Input};
use eckart::{DType, Device, LinearMap, Module, Parameter, Seed, Shape, Tensor};

pub fn random(shape: impl Into<Shape>, seed: u64, device: &Device) -> Tensor {
    Input::normal(shape).tensor(Seed(seed), DType::F64, device)
}

pub fn numbers(x: &Tensor) -> Vec<f64> {
    x.detach().cast(DType::F64).to_vec().unwrap()
}

#[track_caller]
pub fn assert_near(found: &Tensor, expected: &Tensor, bound: f64) {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (numbers(found), numbers(expected));
    let size = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= bound * size, "{a} where {b} was expected, of {size}");
    }
}

/// x, W, A, B, factor, bias.
fn operands(rows: usize, [input, output, rank]: [usize; 3]) -> Vec<Tensor> {
    let device = Device::cpu();
    let shapes: [&[usize]; 6] =
        [&[rows, input], &[input, output], &[input, rank], &[rank, output], &[output], &[output]];
    shapes.iter().enumerate().map(|(i, shape)| random(*shape, i as u64, &device)).collect()
}

/// Value and gradients of ½‖f(x)‖² in all operands.
fn derivatives(f: impl Fn(&[Tensor]) -> Tensor, x: &[Tensor]) -> Vec<Tensor> {
    let leaves: Vec<Tensor> = x.iter().map(Tensor::leaf).collect();
    let y = f(&leaves);
    let found = grad(&((&y * &y).sum_all() * 0.5), &leaves.iter().collect::<Vec<_>>(), false);
    [vec![y.detach()], found].concat()
}

const SCALE: f64 = 0.3;

fn by_kernels(x: &[Tensor]) -> Tensor {
    let [x, w, a, b, factor, bias] = x else { panic!("six operands") };
    let op = ops::lora::Lora { scale: SCALE, transposed: false, adapter_transposed: false };
    x.lora(w, a, b, Some(bias), SCALE) + Tensor::apply(Dora(op), &[x, w, a, b, factor, bias])
}

fn by_hand(x: &[Tensor]) -> Tensor {
    let [x, w, a, b, factor, bias] = x else { panic!("six operands") };
    let z = x.matmul(w) + x.matmul(a).matmul(b) * SCALE;
    (&z + bias) + (&z * factor + bias)
}

/// Rows in one piece, in two, in many for each task; panels of DoRA that are whole and that are not.
#[test]
fn pieces_make_up_the_whole() {
    for (rows, sides) in [(40, [9, 7, 3]), (520, [64, 80, 4]), (9001, [16, 17, 2]), (300, [96, 96, 5])] {
        let x = operands(rows, sides);
        let (found, expected) = (derivatives(by_kernels, &x), derivatives(by_hand, &x));
        found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected, 1e-12));
    }
}

/// In single precision narrow products have a kernel of their own: every rank that it serves, and those beside.
#[test]
fn narrow_products_are_products() {
    for r in 1..10 {
        for (rows, sides) in [(1, [1, 1, r]), (7, [5, 2, r]), (30, [33, 18, r]), (70, [64, 31, r])] {
            let x = operands(rows, sides);
            let single: Vec<Tensor> = x.iter().map(|x| x.cast(DType::F32)).collect();
            for (found, expected) in derivatives(by_kernels, &single).iter().zip(derivatives(by_hand, &x)) {
                assert_near(found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let x: Vec<Tensor> = operands(9001, [16, 17, 2]).iter().map(|x| x.cast(DType::F32)).collect();
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| derivatives(by_kernels, &x)).iter().flat_map(numbers).collect::<Vec<f64>>()
    };
    assert_eq!(bits(1), bits(3));
}

/// Kernels that go over more rows than one panel, on whatever GPU there is.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_takes_panels_too() {
    let Ok(device) = Device::by_name("llvmpipe") else { return crate::skipped("no software GPU") };
    let x = operands(1100, [6, 5, 2]);
    let there: Vec<Tensor> = x.iter().map(|x| x.cast(DType::F32).to_device(&device).unwrap()).collect();
    let found = derivatives(by_kernels, &there);
    for (found, expected) in found.iter().zip(derivatives(by_hand, &x)) {
        assert_near(&found.to_device(&Device::cpu()).unwrap(), &expected, 3e-6);
    }
}

/// Maps [6, 5] with an adapter of rank 2, over bases of every kind, with W + s A B.
fn maps(dora: bool) -> Vec<(Lora, Tensor)> {
    let device = Device::cpu();
    let tensor = |shape: [usize; 2], seed| random(shape, seed, &device);
    let inner = Lora::new(LinearMap::dense(tensor([6, 5], 1)), tensor([6, 1], 2), tensor([1, 5], 3), 0.5);
    let below = tensor([6, 5], 1) + tensor([6, 1], 2).matmul(&tensor([1, 5], 3)) * 0.5;
    let mut bases = vec![
        (LinearMap::embedding(tensor([6, 5], 4)), tensor([6, 5], 4)),
        (LinearMap::transposed(tensor([5, 6], 5)), tensor([5, 6], 5).t()),
    ];
    if !dora {
        bases.push((LinearMap::new(inner), below));
    }
    let adapted = |(base, w): (LinearMap, Tensor)| {
        let (a, b) = (tensor([6, 2], 6), tensor([2, 5], 7));
        let sum = &w + a.matmul(&b) * SCALE;
        (Lora::new(base, a, b, SCALE), sum)
    };
    bases.into_iter().map(adapted).collect()
}

/// The map as it is, and with either factor frozen.
fn frozen_or_not(map: &Lora) -> Vec<Lora> {
    let frozen = |which: &[&str]| {
        let mut map = map.clone();
        map.visit_mut(&eckart::module::Path::root(), &mut |path, parameter: &mut Parameter| {
            if which.contains(&&*path.to_string()) {
                parameter.freeze();
            }
        });
        map
    };
    vec![
        frozen(&[]),
        frozen(&["lora_A", "lora_embedding_A"]),
        frozen(&["lora_B", "lora_embedding_B"]),
        frozen(&["weight"]),
    ]
}

#[test]
fn maps_are_the_sum_of_base_and_adapter() {
    let device = Device::cpu();
    let (x, c, bias) = (random([2, 3, 6], 10, &device), random([2, 3, 5], 11, &device), random([5], 12, &device));
    let ids = Tensor::new(&[5_u32, 0, 3, 3], [2, 2], &device);
    for (map, sum) in
        maps(false).iter().flat_map(|(map, sum)| frozen_or_not(map).into_iter().map(move |map| (map, sum)))
    {
        assert_near(&map.apply(&x, Some(&bias)), &(x.matmul(sum) + &bias), 1e-14);
        assert_near(&map.apply_transposed(&c), &c.matmul(&sum.t()), 1e-14);
        if map.base().get::<Dense>().is_none_or(|base| !base.transposed) {
            assert_near(&map.rows(&ids), &sum.gather(&ids), 1e-14);
            assert_near(&map.rows_between(1, 4), &sum.slice(0, 1, 4), 1e-14);
        }
    }
}

/// Gradients of every parameter that trains, and of x, by each way of use, against those of the dense sum.
#[test]
fn gradients_are_those_of_the_sum() {
    let device = Device::cpu();
    let (x, c) = (random([4, 6], 10, &device), random([4, 5], 11, &device));
    let ids = Tensor::new(&[5_u32, 0, 3, 3], [4], &device);
    for (map, _) in &maps(false)[..2] {
        let base = map.base().get::<Dense>().unwrap();
        let uses = |apply: &dyn Fn(&Tensor) -> Tensor, back: &dyn Fn(&Tensor) -> Tensor, rows: Option<Tensor>| {
            let y = apply(&x).sin().sum_all() + back(&c).sin().sum_all();
            rows.map_or(y.clone(), |rows| y + rows.sin().sum_all())
        };
        for map in frozen_or_not(map) {
            let parameters: Vec<Parameter> =
                map.parameters().into_iter().map(|(_, p)| p).filter(|p| p.trains()).collect();
            let wrt: Vec<&Tensor> = parameters.iter().map(Parameter::tensor).collect();
            let loss =
                uses(&|x| map.apply(x, None), &|c| map.apply_transposed(c), (!base.transposed).then(|| map.rows(&ids)));
            let w = map.base().parameters()[0].1.tensor().clone();
            let w = if base.transposed { w.t() } else { w };
            let sum = w + map.a().tensor().matmul(map.b().tensor()) * SCALE;
            let expected =
                uses(&|x| x.matmul(&sum), &|c| c.matmul(&sum.t()), (!base.transposed).then(|| sum.gather(&ids)));
            let (found, expected) = (grad(&loss, &wrt, false), grad(&expected, &wrt, false));
            found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected, 1e-13));
        }
    }
}

/// m ∘ (W + s A B)/‖W + s A B‖ by columns, with the norm a constant for gradients.
#[test]
fn dora_is_its_formula() {
    let device = Device::cpu();
    let (x, c, bias) = (random([7, 6], 10, &device), random([7, 5], 11, &device), random([5], 12, &device));
    for transposed in [false, true] {
        let stored = if transposed { [5, 6] } else { [6, 5] };
        let w = random(stored, 4, &device);
        let base = if transposed { LinearMap::transposed(w) } else { LinearMap::dense(w) };
        let mut net = Net { layer: base, bias: Parameter::new(bias.clone()) };
        let config = AdapterConfig { rank: 2, alpha: 3.0, dora: true, ..AdapterConfig::default() };
        adapt(&mut net, &config, Seed(1)).unwrap();
        // At the beginning nothing is changed.
        let turned = |w: &Tensor| if transposed { w.t() } else { w.clone() };
        let weight = |net: &Net| turned(net.parameters()[0].1.tensor());
        assert_near(&net.apply(&x), &(x.matmul(&weight(&net)) + &bias), 1e-14);
        eckart::lowrank::each::<Lora>(&mut net, |_, map| {
            map.visit_mut(&eckart::module::Path::root(), &mut |path, parameter| match &*path.to_string() {
                "lora_B" => parameter.set(random([2, 5], 20, &device)),
                "lora_magnitude_vector" => parameter.set(random([5], 21, &device)),
                _ => {}
            });
        });
        let parameters: Vec<Tensor> = net.parameters().iter().map(|(_, p)| p.tensor().clone()).collect();
        let [w, a, b, m, _] = &parameters[..] else { panic!("five parameters") };
        let sum = turned(w) + a.matmul(b) * 1.5;
        let norm = (&sum * &sum).sum(&[0]).sqrt().detach();
        let dense = &sum * (m / &norm);
        let loss = |y: &Tensor, back: &Tensor| y.sin().sum_all() + back.sin().sum_all();
        let map = net.layer.get::<Lora>().unwrap();
        let (y, back) = (map.apply(&x, Some(&bias)), map.apply_transposed(&c));
        let (want, want_back) = (x.matmul(&dense) + &bias, c.matmul(&dense.t()));
        assert_near(&y, &want, 1e-14);
        assert_near(&back, &want_back, 1e-14);
        if !transposed {
            let ids = Tensor::new(&[5_u32, 0, 3], [3], &device);
            assert_near(&map.rows(&ids), &dense.gather(&ids), 1e-14);
        }
        let found = grad(&loss(&y, &back), &[a, b, m], false);
        let expected = grad(&loss(&want, &want_back), &[a, b, m], false);
        found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected, 1e-13));
    }
}

/// A layer with a bias.
#[derive(Clone, Debug)]
pub struct Net {
    pub layer: LinearMap,
    pub bias: Parameter,
}
eckart::module!(Net: layer, bias);

impl Net {
    pub fn apply(&self, x: &Tensor) -> Tensor {
        self.layer.apply(x, Some(self.bias.tensor()))
    }
}

/// Hessian-vector products over A and B alone, through a layer above, against those of dense matrices.
#[test]
fn hessian_vector_products_over_the_adapter() {
    let device = Device::cpu();
    let (x, up) = (random([8, 6], 1, &device), random([5, 4], 2, &device));
    let w = random([6, 5], 3, &device);
    let at = [random([6, 2], 4, &device), random([2, 5], 5, &device)];
    let v: Direction = vec![Some(random([6, 2], 6, &device)), Some(random([2, 5], 7, &device))];
    let above = |y: Tensor, p: &[Tensor]| {
        // The adapter once more, so that its x moves too.
        let y = y.tanh();
        let z = y.matmul(&up).tanh().matmul(&up.t()).matmul(&w.t());
        z.lora(&w, &p[0], &p[1], None, SCALE).sin().sum_all()
    };
    let fused = |p: &[Tensor]| above(x.lora(&w, &p[0], &p[1], None, SCALE), p);
    let dense = |p: &[Tensor]| {
        let sum = &w + p[0].matmul(&p[1]) * SCALE;
        let y = x.matmul(&sum).tanh();
        y.matmul(&up).tanh().matmul(&up.t()).matmul(&w.t()).matmul(&sum).sin().sum_all()
    };
    let found = hvp(fused, &at, std::slice::from_ref(&v));
    let expected = hvp(dense, &at, &[v]);
    for (found, expected) in found.products[0].iter().zip(&expected.products[0]) {
        assert_near(found, expected, 1e-12);
    }
    for (found, expected) in found.gradient.iter().zip(&expected.gradient) {
        assert_near(found, expected, 1e-12);
    }
}

/// Nothing of the size of W is made on the way, and a plan counts what a run takes.
#[test]
fn memory_of_hessian_vector_products() {
    let peak = |device: &Device, [input, output]: [usize; 2]| {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).contiguous();
        let (x, w, bias) = (zeros(&[40, input]), zeros(&[input, output]), zeros(&[output]));
        let at = [zeros(&[input, 2]), zeros(&[2, output])];
        let v: Direction = vec![Some(zeros(&[input, 2])), Some(zeros(&[2, output]))];
        let before = device.ledger().live().total();
        device.ledger().reset_peak();
        hvp(|p| x.lora(&w, &p[0], &p[1], Some(&bias), SCALE).sin().sum_all(), &at, &[v]);
        device.ledger().peak().total() - before
    };
    assert_eq!(peak(&Device::null(), [96, 64]), peak(&Device::cpu(), [96, 64]));
    for device in [Device::null(), Device::null_gpu()] {
        let found = peak(&device, [2048, 2048]);
        assert!(found < 4 * 2048 * 2048 / 3, "{found} bytes");
    }
}

/// Most bytes during a layer's forward pass, and during its backward pass, x being kept and its gradient wanted.
fn peaks(device: &Device, rows: usize, [input, output]: [usize; 2], adapter: Option<AdapterConfig>) -> [u64; 2] {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device).contiguous();
    let mut net = Net { layer: LinearMap::dense(zeros(&[input, output])), bias: Parameter::new(zeros(&[output])) };
    match adapter {
        Some(config) => drop(adapt(&mut net, &config, Seed(0)).unwrap()),
        None => net = net.frozen(),
    }
    let (x, c) = (zeros(&[rows, input]).leaf(), zeros(&[rows, output]));
    device.ledger().reset_peak();
    let y = net.apply(&x);
    let forward = device.ledger().peak().total();
    let loss = (y * &c).sum_all();
    device.ledger().reset_peak();
    let mut held = Vec::new();
    backward(loss, &mut |_, gradient| held.push(gradient.densify()));
    [forward, device.ledger().peak().total()]
}

/// The same, above a frozen layer.
fn extra(device: fn() -> Device, rows: usize, sides: [usize; 2], adapter: AdapterConfig) -> [u64; 2] {
    let (with, without) = (peaks(&device(), rows, sides, Some(adapter)), peaks(&device(), rows, sides, None));
    [with[0] - without[0], with[1] - without[1]]
}

fn rank(rank: usize) -> AdapterConfig {
    AdapterConfig { rank, ..AdapterConfig::default() }
}

/// Sizes at which one matrix of the size of W would show at once.
fn sizes() -> impl Iterator<Item = (usize, [usize; 2], usize)> {
    let sides = [512, 1024, 2048].map(|side| [side, side + 128]);
    let rows = sides.into_iter().flat_map(|sides| [1024, 2048, 8192].map(|rows| (rows, sides)));
    rows.flat_map(|(rows, sides)| [1, 8, 32].map(|r| (rows, sides, r)))
}

/// Elements of a matrix [k, r] packed, where that is faster.
fn packed(k: usize, r: usize) -> usize {
    if (2..=8).contains(&r) { 8 * k } else { 0 }
}

/// Above a frozen layer, to the byte: the adapter and s x A; in backward the adapter's gradient, and in each task s dy Bᵀ of
/// a piece and sums of that gradient. Narrow matrices are packed.
#[test]
fn memory_of_an_adapter() {
    for (rows, sides, r) in sizes() {
        let (tasks, both) = ((rows / 256).min(16), sides[0] + sides[1]);
        let pieces = tasks * 256 * r;
        let kept = r * both + rows * r;
        let forward = kept + pieces + packed(sides[0], r);
        let backward = kept + (1 + tasks) * r * both + pieces + packed(sides[1], r);
        let expected = [forward, backward].map(|words| 4 * words as u64);
        assert_eq!(extra(Device::null, rows, sides, rank(r)), expected, "{sides:?}, rank {r}, {rows} rows");
    }
}

/// On a GPU: s A or s B in place of sums, and parts of thin products, which a card would not be busy with otherwise.
#[test]
fn memory_of_an_adapter_on_a_gpu() {
    for (rows, sides, r) in sizes() {
        let most = 9 * 4 * (r * (sides[0] + sides[1]) + rows * r) as u64;
        let found = extra(Device::null_gpu, rows, sides, rank(r));
        assert!(found.iter().all(|&bytes| bytes <= most), "{sides:?}, rank {r}, {rows} rows: {found:?} of {most}");
    }
}

/// Lengths, norms and their quotient are kept too; in backward there is a panel of 256 rows of the product before scaling,
/// and one set of sums.
#[test]
fn memory_of_dora() {
    for (rows, sides, r) in sizes() {
        let [tasks, both, output] = [(rows / 256).min(16), sides[0] + sides[1], sides[1]];
        let kept = r * both + rows * r + 3 * output;
        let forward = kept + tasks * 256 * r + packed(sides[0], r);
        let backward = kept + 2 * r * both + 256 * (output + r) + output + packed(output, r);
        let expected = [forward, backward].map(|words| 4 * words as u64);
        let config = AdapterConfig { dora: true, ..rank(r) };
        assert_eq!(extra(Device::null, rows, sides, config), expected, "{sides:?}, rank {r}, {rows} rows");
    }
}

/// With A frozen, what is kept is as narrow as the adapter.
#[test]
fn a_frozen_a_keeps_no_input() {
    let held = |freeze_a| {
        let device = Device::null();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &device).contiguous();
        let mut net = Net { layer: LinearMap::dense(zeros(&[64, 80])), bias: Parameter::new(zeros(&[80])) };
        adapt(&mut net, &AdapterConfig { freeze_a, ..rank(4) }, Seed(0)).unwrap();
        let live = || device.ledger().live().total();
        let x = zeros(&[300, 64]).leaf() * 2.0;
        let (before, x_bytes) = (live(), 4 * x.count() as u64);
        let y = net.apply(&x);
        drop(x);
        live() - 4 * y.count() as u64 - (before - x_bytes)
    };
    // And the number s.
    assert_eq!(held(true), 4 * 300 * 4 + 4);
    assert_eq!(held(false), 4 * 300 * (4 + 64));
}

/// A plan counts what a run takes.
#[test]
fn null_counts_like_the_host() {
    for dora in [false, true] {
        for freeze_a in [false, true] {
            let config = || Some(AdapterConfig { dora, freeze_a, ..rank(3) });
            for rows in [40, 600] {
                let [null, cpu] =
                    [Device::null(), Device::cpu()].map(|device| peaks(&device, rows, [96, 64], config()));
                assert_eq!(null, cpu, "dora {dora}, frozen A {freeze_a}, {rows} rows");
            }
        }
    }
}
