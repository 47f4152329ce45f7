use super::*;
use crate::Seed;
use crate::autograd::vjp;
use crate::device::Device;

/// Options with batch, time, dim and the shape of a mask.
fn cases() -> Vec<(Attention, [usize; 3], Option<Vec<usize>>)> {
    let grouped = |causal| Attention { kv_heads: 2, ..Attention::new(6, causal) };
    vec![
        (Attention::new(2, true), [2, 5, 3], None),
        (Attention::new(1, false), [1, 70, 8], None),
        (Attention::new(3, true), [2, 70, 33], None),
        (grouped(true), [2, 41, 8], None),
        (grouped(false), [1, 16, 3], Some(vec![1, 6, 16, 16])),
        (Attention::new(2, true), [3, 33, 4], Some(vec![3, 1, 1, 33])),
        (Attention { scale: Some(0.1), ..Attention::new(2, true) }, [2, 1, 3], None),
        (Attention::new(4, true), [9, 20, 16], Some(vec![20, 20])),
    ]
}

struct Trial {
    op: Attention,
    qkv: Tensor,
    mask: Option<Tensor>,
    c: Tensor,
}

fn trial((op, [batch, time, dim], mask): (Attention, [usize; 3], Option<Vec<usize>>)) -> Trial {
    let device = Device::cpu();
    let draw = |shape: &[usize], seed| Input::normal(shape).tensor(Seed(seed), DType::F64, &device);
    // Views with steps of their own: heads are stored before times.
    let qkv = draw(&[batch, op.heads + 2 * op.kv_heads, time, dim], 1).transpose(1, 2);
    let mask = mask.map(|shape| Input::index(&shape[..], 2).tensor(Seed(3), DType::F64, &device));
    Trial { op, qkv, mask, c: draw(&[batch, time, op.heads, dim], 2) }
}

impl Trial {
    fn fused(&self, qkv: &Tensor) -> Tensor {
        qkv.attention(self.op, self.mask.as_ref())
    }
    fn composed(&self, qkv: &Tensor) -> Tensor {
        let ins: Vec<Tensor> = std::iter::once(qkv.clone()).chain(self.mask.clone()).collect();
        self.op.composition(&ins)
    }
}

fn assert_close(a: &Tensor, b: &Tensor, what: &str) {
    let (a, b) = (a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(a.len() == b.len() && worst < 1e-12 && a.iter().all(|a| a.is_finite()), "{what}: {worst:e}");
}

#[test]
fn values_and_gradients_are_those_of_the_composition() {
    for case in cases() {
        let t = trial(case);
        let (a, b) = (t.qkv.leaf(), t.qkv.leaf());
        let (ya, yb) = (t.fused(&a), t.composed(&b));
        assert_close(&ya, &yb, "value");
        assert_close(&vjp(&ya, &t.c, &[&a], false)[0], &vjp(&yb, &t.c, &[&b], false)[0], "gradient");
    }
}

#[test]
#[ignore]
fn speed() {
    let device = Device::cpu();
    for (batch, time, heads, dim) in [(16, 128, 4, 32), (4, 512, 4, 64)] {
        let x = Input::normal([batch, time, 3 * heads, dim]).tensor(Seed(1), DType::F32, &device);
        let c = Input::normal([batch, time, heads, dim]).tensor(Seed(2), DType::F32, &device);
        let op = Attention::new(heads, true);
        let (mut f, mut b) = (f64::MAX, f64::MAX);
        for _ in 0..200 {
            let start = std::time::Instant::now();
            let leaf = x.leaf();
            let y = leaf.attention(op, None);
            f = f.min(start.elapsed().as_secs_f64());
            let start = std::time::Instant::now();
            let _g = vjp(&y, &c, &[&leaf], false);
            b = b.min(start.elapsed().as_secs_f64());
        }
        println!("{batch} {time} {heads} {dim}: forward {:.3} ms, backward {:.3} ms", f * 1e3, b * 1e3);
    }
}
