//! Attention's kernels on a GPU at sizes around their tiles, against double precision on the host.

use super::gpu::device;
use eckart::autograd::{jvp, vjp};
use eckart::ops::Input;
use eckart::ops::attention::Attention;
use eckart::{DType, Device, Seed, Tensor};

/// An attention, its sizes, and the shape of a mask.
struct Case {
    op: Attention,
    batch: usize,
    time: usize,
    dim: usize,
    mask: Option<[usize; 4]>,
}

impl Case {
    fn new(time: usize, dim: usize, kv_heads: usize, causal: bool) -> Case {
        Case { op: Attention { kv_heads, ..Attention::new(4, causal) }, batch: 2, time, dim, mask: None }
    }

    fn mask(self, mask: [usize; 4]) -> Case {
        Case { mask: Some(mask), ..self }
    }

    /// The packed operand, its direction, the cotangent and its direction, all of single precision, and of one sequence
    /// more than needed: tests take the later ones, which do not begin their storages.
    fn operands(&self) -> [Tensor; 4] {
        let slots = self.op.heads + 2 * self.op.kv_heads;
        let draw = |slots, seed| {
            let shape = [self.batch + 1, self.time, slots, self.dim];
            Input::normal(shape).tensor(Seed(seed), DType::F32, &Device::cpu())
        };
        [draw(slots, 1), draw(slots, 2), draw(self.op.heads, 3), draw(self.op.heads, 4)]
    }

    fn attend(&self, qkv: &Tensor) -> Tensor {
        let mask = self.mask.map(|shape| Input::index(shape, 2).tensor(Seed(5), DType::F64, qkv.device()));
        qkv.attention(self.op, mask.as_ref())
    }

    fn name(&self) -> String {
        format!("{:?}, [{}, {}, {}], mask {:?}", self.op, self.batch, self.time, self.dim, self.mask)
    }
}

/// Cases that come after those of all lengths and dimensions.
const SPECIAL: usize = 3;

/// Every length with every dimension, causal and not; numbers of key heads in turn.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, time) in [1, 7, 64, 65, 130].into_iter().enumerate() {
        for (j, dim) in [4, 16, 64, 80].into_iter().enumerate() {
            let batch = if time > 7 { 1 } else { 2 };
            cases.push(Case { batch, ..Case::new(time, dim, [4, 2, 1][(i + j) % 3], (i + j) % 2 == 0) });
            cases.push(Case { batch, ..Case::new(time, dim, [2, 1, 4][(i + j) % 3], (i + j) % 2 == 1) });
        }
    }
    // More dimensions than a workgroup sums, of a number that nothing divides.
    cases.push(Case { batch: 1, ..Case::new(33, 139, 2, true) });
    cases.push(Case::new(70, 16, 2, true).mask([2, 4, 70, 70]));
    cases.push(Case::new(70, 16, 4, false).mask([2, 1, 1, 70]));
    cases
}

/// Runs `f` on the host in double precision and on a GPU, for one case of `step`, and for the special ones.
fn compare(what: &str, step: usize, f: impl Fn(&Case, [Tensor; 4]) -> Vec<Tensor>) {
    let Some(gpu) = device() else { return };
    let cases = cases();
    let special = cases.len() - SPECIAL;
    for (_, case) in cases.into_iter().enumerate().filter(|(i, _)| i % step == 0 || *i >= special) {
        let before = gpu.gpu().expect("it is one").counters().host_ops;
        let later = |x: Tensor| x.slice(0, 1, case.batch);
        let there = |x: Tensor| Tensor::new(&x.to_vec::<f32>().unwrap(), *x.shape(), &gpu);
        let found = f(&case, case.operands().map(there).map(later));
        assert_eq!(gpu.gpu().expect("it is one").counters().host_ops, before, "{what} runs on the host");
        let wanted = f(&case, case.operands().map(|x| x.cast(DType::F64)).map(later));
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            close(found, wanted, &format!("{what} of {}", case.name()));
        }
    }
}

fn close(found: &Tensor, wanted: &Tensor, what: &str) {
    let (found, wanted) = (found.to_vec::<f32>().unwrap(), wanted.to_vec::<f64>().unwrap());
    assert_eq!(found.len(), wanted.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let gap = norm(&mut found.iter().zip(&wanted).map(|(&a, b)| a as f64 - b));
    let size = norm(&mut wanted.iter().copied()).max(1.0);
    assert!(gap <= 1e-5 * size, "{what}: {gap:e} of {size:e}");
}

#[test]
fn values() {
    compare("value", 1, |case, [qkv, ..]| vec![case.attend(&qkv)]);
}

#[test]
fn gradients() {
    compare("gradient", 1, |case, [qkv, _, c, _]| {
        let qkv = qkv.leaf();
        vjp(&case.attend(&qkv), &c, &[&qkv], false)
    });
}

#[test]
fn tangents() {
    compare("tangent", 3, |case, [qkv, v, ..]| jvp(|x| case.attend(&x[0]), &[qkv], &[vec![Some(v)]]).1);
}

/// Directions move the operand, the cotangent, and both.
#[test]
fn second_derivatives() {
    compare("tangent of the gradient", 3, |case, [qkv, v, c, dc]| {
        let directions = [vec![Some(v.clone()), None], vec![None, Some(dc.clone())], vec![Some(v), Some(dc)]];
        let gradient = |x: &[Tensor]| {
            let qkv = x[0].leaf();
            vjp(&case.attend(&qkv), &x[1], &[&qkv], false).remove(0)
        };
        jvp(gradient, &[qkv, c], &directions).1
    });
}

/// The tangent of the gradient at `qkv` along itself.
fn bend(op: Attention, qkv: &Tensor) -> Tensor {
    let gradient = |x: &[Tensor]| {
        let qkv = x[0].leaf();
        let y = qkv.attention(op, None);
        vjp(&y, &y.detach(), &[&qkv], false).remove(0)
    };
    jvp(gradient, std::slice::from_ref(qkv), &[vec![Some(qkv.clone())]]).1.remove(0)
}

/// The scores of all heads would be 8 MiB.
#[test]
fn no_matrix_of_time_by_time_and_the_same_bits_each_time() {
    let Some(gpu) = device() else { return };
    let op = Attention { kv_heads: 1, ..Attention::new(8, true) };
    let qkv = Input::normal([1, 512, 10, 4]).tensor(Seed(1), DType::F32, &gpu);
    gpu.ledger().reset_peak();
    let first = bend(op, &qkv).to_vec::<f32>().unwrap();
    assert!(gpu.ledger().peak().total() < 2 << 20, "{:?}", gpu.ledger().peak());
    assert_eq!(first, bend(op, &qkv).to_vec::<f32>().unwrap());
}
