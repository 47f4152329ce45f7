//! Memory is counted, byte for byte.

use eckart::autograd::{backward, grad};
use eckart::device::tagged;
use eckart::{Bytes, DType, Device, Spec, Tag, Tensor};

const KIB: usize = 1024;

fn array(kib: usize, device: &Device) -> eckart::Array {
    device.alloc(Spec::new(DType::F32, [kib * KIB / 4]))
}

fn by_tag(bytes: Bytes) -> Vec<(&'static str, u64)> {
    bytes.by_tag().filter(|(_, bytes)| *bytes > 0).map(|(tag, bytes)| (tag.name(), bytes / KIB as u64)).collect()
}

#[test]
fn tags_belong_to_storages() {
    let device = Device::cpu();
    let weights = tagged(Tag::Weights, || array(3, &device));
    let nested = tagged(Tag::Weights, || tagged(Tag::Optimizer, || array(5, &device)));
    let other = array(7, &device);
    let view = weights.clone();
    assert_eq!(by_tag(device.ledger().live()), [("weights", 3), ("optimizer", 5), ("activations", 7)]);
    other.retag(Tag::Gradients);
    drop(weights);
    assert_eq!(by_tag(device.ledger().live()), [("weights", 3), ("gradients", 7), ("optimizer", 5)]);
    drop((view, nested, other));
    assert_eq!(device.ledger().live().total(), 0);
}

/// The breakdown is that of the moment when the total was highest, not the highest of each tag.
#[test]
fn peak_is_one_moment() {
    let device = Device::cpu();
    let weights = tagged(Tag::Weights, || array(10, &device));
    let activations = array(4, &device);
    drop(weights);
    let more = array(5, &device);
    assert_eq!(by_tag(device.ledger().peak()), [("weights", 10), ("activations", 4)]);
    device.ledger().reset_peak();
    assert_eq!(by_tag(device.ledger().peak()), [("activations", 9)]);
    drop((activations, more));
    assert_eq!(by_tag(device.ledger().peak()), [("activations", 9)]);
    assert_eq!(device.ledger().highest(), 14 * KIB as u64);
}

/// A few layers with everything in them that the core has: shared operands, reductions, views, a tied weight.
fn network(device: &Device) -> Vec<Tensor> {
    let weight = |sizes: [usize; 2]| tagged(Tag::Weights, || device.alloc(Spec::new(DType::F32, sizes)));
    let filled = |sizes: [usize; 2]| Tensor::from_array(weight(sizes));
    vec![filled([64, 64]), filled([64, 32]), filled([32, 64])]
}

fn loss(w: &[Tensor], device: &Device) -> Tensor {
    let ids = Tensor::new(&[3_u32, 1, 4, 1, 5, 9, 2, 6], [2, 4], device);
    let mut x = w[0].gather(&ids);
    for _ in 0..3 {
        let h = x.matmul(&w[1]).gelu();
        x = &x + &h.linear(&w[2], None);
        let scale = (&x * &x).mean(&[-1]).unsqueeze(2);
        x = &x * &(scale + 1e-5).rsqrt();
    }
    let logits = x.matmul(&w[0].t());
    let half = logits.slice(2, 0, 32).contiguous();
    (half.exp() + logits.slice(2, 32, 32).tanh().transpose(0, 1).transpose(0, 1)).mean_all()
}

fn counts(device: &Device, run: impl FnOnce(&[Tensor], &Device)) -> (Bytes, Bytes) {
    let w = network(device);
    run(&w, device);
    (device.ledger().live(), device.ledger().peak())
}

fn streamed(w: &[Tensor], device: &Device) {
    let leaves: Vec<Tensor> = w.iter().map(Tensor::leaf).collect();
    let loss = loss(&leaves, device);
    drop(leaves);
    backward(loss, &mut |_, gradient| drop(gradient.densify()));
}

fn twice(w: &[Tensor], device: &Device) {
    let leaves: Vec<Tensor> = w.iter().map(Tensor::leaf).collect();
    let wrt: Vec<&Tensor> = leaves.iter().collect();
    let gradient = grad(&loss(&leaves, device), &wrt, true);
    let square = gradient.iter().map(|g| (g * g).sum_all()).reduce(|a, b| a + b).unwrap();
    grad(&square, &wrt, false);
}

/// A plan is a step on the null device, so it must allocate what the host allocates, and free it as early.
#[test]
fn null_counts_like_the_host() {
    type Run = fn(&[Tensor], &Device);
    for run in [streamed as Run, twice] {
        let (cpu, null) = (counts(&Device::cpu(), run), counts(&Device::null(), run));
        assert!(cpu.1.total() > cpu.0.total());
        assert_eq!(cpu, null);
    }
}

#[test]
fn everything_is_given_back() {
    let device = Device::cpu();
    counts(&device, streamed);
    counts(&device, twice);
    assert_eq!(device.ledger().live().total(), 0);
    device.trim();
    assert_eq!(device.reserved(), 0);
}

/// Backward frees what it has used: far less than all gradients and all activations at once.
#[test]
fn backward_frees_as_it_goes() {
    let device = Device::cpu();
    let layers: Vec<Tensor> = (0..8).map(|_| Tensor::zeros([64, 64], DType::F32, &device) + 0.1).collect();
    device.ledger().reset_peak();
    let before = device.ledger().live().total();
    let leaves: Vec<Tensor> = layers.iter().map(Tensor::leaf).collect();
    let x = Tensor::zeros([1, 64], DType::F32, &device);
    let loss = leaves.iter().fold(x, |x, w| x.matmul(w).tanh()).sum_all();
    drop(leaves);
    backward(loss, &mut |_, gradient| drop(gradient.densify()));
    let one = 64 * 64 * 4;
    let extra = device.ledger().peak().total() - before;
    assert!(extra < 2 * one, "{extra} bytes beside the weights, a gradient has {one}");
}

/// Products of one input, as those for queries, keys and values: their gradients are summed where the first one lies.
#[test]
fn gradients_of_a_shared_input_are_summed_in_place() {
    let device = Device::null();
    let fill = |shape: [usize; 2]| Tensor::from_array(device.alloc(Spec::new(DType::F32, shape)));
    let peak = |products: usize| {
        let (x, w) = (fill([1024, 64]).leaf(), fill([64, 64]));
        let loss = (0..products).map(|_| x.linear(&w, None).sum_all()).reduce(|a, b| a + b).unwrap();
        let before = device.ledger().live().total();
        device.ledger().reset_peak();
        grad(&loss, &[&x], false);
        device.ledger().peak().total() - before
    };
    assert_eq!(peak(3), peak(1));
    assert_eq!(peak(1), 4 * 1024 * 64 + 4);
}

/// Once the sizes repeat, the pool holds little more than was ever alive.
#[test]
fn pool_holds_little_more_than_the_peak() {
    let device = Device::cpu();
    for step in 0..4 {
        counts(&device, streamed);
        // A batch of another size now and then must not pile up on the shelves.
        drop(array(300 + step, &device));
    }
    let (reserved, highest) = (device.reserved() as f64, device.ledger().highest() as f64);
    assert!(reserved <= 1.15 * highest, "{reserved} bytes reserved, {highest} at most alive");
}
