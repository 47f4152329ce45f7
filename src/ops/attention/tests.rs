use super::*;
use crate::Seed;
use crate::autograd::{hvp, jvp, vjp};
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
fn tangents_are_those_of_the_composition() {
    for case in cases() {
        let t = trial(case);
        let v = Input::normal(*t.qkv.shape()).tensor(Seed(4), DType::F64, &Device::cpu());
        let along =
            |f: &dyn Fn(&Tensor) -> Tensor| jvp(|x| f(&x[0]), std::slice::from_ref(&t.qkv), &[vec![Some(v.clone())]]).1;
        assert_close(&along(&|x| t.fused(x))[0], &along(&|x| t.composed(x))[0], "tangent");
    }
}

/// Directions move the operand, the cotangent, and both.
#[test]
fn second_derivatives_are_those_of_the_composition() {
    for case in cases() {
        let t = trial(case);
        let v = Input::normal(*t.qkv.shape()).tensor(Seed(4), DType::F64, &Device::cpu());
        let dc = Input::normal(*t.c.shape()).tensor(Seed(5), DType::F64, &Device::cpu());
        let directions = [vec![Some(v.clone()), None], vec![None, Some(dc.clone())], vec![Some(v), Some(dc)]];
        for power in [1, 2] {
            let products = |f: &dyn Fn(&Tensor) -> Tensor| {
                let loss = |x: &[Tensor]| {
                    let y = f(&x[0]);
                    (&x[1] * &if power == 1 { y } else { &y * &y }).sum_all()
                };
                hvp(loss, &[t.qkv.clone(), t.c.clone()], &directions).products
            };
            let (fused, composed) = (products(&|x| t.fused(x)), products(&|x| t.composed(x)));
            for (a, b) in fused.iter().flatten().zip(composed.iter().flatten()) {
                assert_close(a, b, "Hessian-vector product");
            }
        }
    }
}

/// Against central differences of values, and of gradients along v.
#[test]
fn derivatives_are_those_of_finite_differences() {
    let t = trial((Attention { kv_heads: 1, ..Attention::new(2, true) }, [1, 6, 3], Some(vec![6, 6])));
    let v = Input::normal(*t.qkv.shape()).tensor(Seed(4), DType::F64, &Device::cpu());
    let h = 1e-5;
    let gradient = |x: &Tensor| {
        let x = x.leaf();
        vjp(&t.fused(&x), &t.c, &[&x], false).remove(0)
    };
    let slope = |f: &dyn Fn(&Tensor) -> Tensor| (f(&(&t.qkv + &(&v * h))) - f(&(&t.qkv - &(&v * h)))) * (0.5 / h);
    let tangent = |f: &dyn Fn(&Tensor) -> Tensor| {
        jvp(|x| f(&x[0]), std::slice::from_ref(&t.qkv), &[vec![Some(v.clone())]]).1.remove(0)
    };
    let near = |a: Tensor, b: Tensor| {
        let gap = (a - b).abs().to_vec::<f64>().unwrap().into_iter().fold(0.0, f64::max);
        assert!(gap < 1e-8, "{gap:e}");
    };
    near(tangent(&|x| t.fused(x)), slope(&|x| t.fused(x)));
    near((gradient(&t.qkv) * &v).sum_all(), slope(&|x| (t.fused(x) * &t.c).sum_all()));
    near(tangent(&gradient), slope(&gradient));
}

#[test]
fn a_query_that_sees_nothing_gives_zeros_and_takes_no_gradient() {
    let device = Device::cpu();
    let qkv = Input::normal([1, 4, 3, 2]).tensor(Seed(1), DType::F32, &device);
    let mask = Tensor::new(&[1_u32, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0], [4, 4], &device);
    let leaf = qkv.leaf();
    let y = leaf.attention(Attention::new(1, true), Some(&mask));
    let g = vjp(&y, &y.ones_like(), &[&leaf], false).remove(0);
    let (row, gradient) = (y.slice(1, 3, 1).to_vec::<f32>().unwrap(), g.slice(1, 3, 1).to_vec::<f32>().unwrap());
    assert_eq!((row, gradient), (vec![0.0; 2], vec![0.0; 6]));
    assert!(g.to_vec::<f32>().unwrap().iter().all(|g| g.is_finite()));
}

#[test]
fn results_have_the_same_bits_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let x = Input::normal([5, 50, 12, 8]).tensor(Seed(1), DType::F32, &Device::cpu()).leaf();
            let y = x.attention(Attention { kv_heads: 2, ..Attention::new(8, true) }, None);
            let g = vjp(&y, &y.untraced(), &[&x], false).remove(0);
            (y.to_vec::<f32>().unwrap(), g.to_vec::<f32>().unwrap())
        })
    };
    assert_eq!(run(1), run(3));
}

/// The scores of all heads would be 8 MiB; operands, results and scratch together stay well below that.
#[test]
fn second_derivatives_keep_no_matrix_of_time_by_time() {
    let device = Device::cpu();
    let op = Attention { kv_heads: 1, ..Attention::new(8, true) };
    let x = Input::normal([1, 512, 10, 4]).tensor(Seed(1), DType::F32, &device);
    device.ledger().reset_peak();
    let loss = |x: &[Tensor]| {
        let y = x[0].attention(op, None);
        (&y * &y).sum_all()
    };
    hvp(loss, std::slice::from_ref(&x), &[vec![Some(x.clone())]]);
    assert!(device.ledger().peak().total() < 2 << 20, "{:?}", device.ledger().peak());
}
