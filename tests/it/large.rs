//! Sizes beyond every threshold at which kernels split their work: the whole is what its parts give, however its
//! operands lie and however many threads there are.

use eckart::autograd::{Derivative, hvp, jvp, vjp};
use eckart::ops::attention::Attention;
use eckart::ops::cross_entropy::IGNORED;
use eckart::ops::rotary::{rotary_frequencies, rotary_table};
use eckart::ops::{Input, Op};
use eckart::{DType, Device, Seed, Shape, Tensor};

type Function = dyn Fn(&[Tensor]) -> Tensor + Sync;

/// How the results of parts make that of the whole.
#[derive(Clone, Copy, PartialEq)]
enum Join {
    /// Behind each other along the first dimension.
    Rows,
    /// Added up.
    Sum,
}
use Join::{Rows, Sum};

/// A function that can be computed a few rows at a time.
struct Case {
    name: &'static str,
    inputs: Vec<Input>,
    /// Operands that are cut along their first dimension.
    cut: &'static [usize],
    join: Join,
    f: Box<Function>,
}

/// Rows and columns, with several pieces of rows and of whole tensors between them.
const LARGE: [usize; 2] = [400, 131];

impl Case {
    fn new(
        name: &'static str,
        inputs: impl Into<Vec<Input>>,
        cut: &'static [usize],
        join: Join,
        f: impl Fn(&[Tensor]) -> Tensor + Sync + 'static,
    ) -> Case {
        Case { name, inputs: inputs.into(), cut, join, f: Box::new(f) }
    }

    fn point(&self) -> Point<'_> {
        let device = Device::cpu();
        let draw = |input: &Input, seed: u64| input.tensor(Seed(seed), DType::F64, &device);
        let like = |t: &Tensor, seed: u64| draw(&Input::normal(*t.shape()), seed);
        let x: Vec<Tensor> = self.inputs.iter().zip(1..).map(|(input, i)| draw(input, i)).collect();
        let moving: Vec<usize> = (0..x.len()).filter(|&i| self.inputs[i].differentiable).collect();
        let y = (self.f)(&x);
        let v = x.iter().zip(11..).map(|(x, i)| like(x, i)).collect();
        Point { f: &self.f, moving, v, c: like(&y, 8), dc: like(&y, 9), x }
    }

    /// The same, computed `step` rows at a time.
    fn by_parts(&self, step: usize) -> Vec<Tensor> {
        let whole = self.point();
        let count = whole.x[self.cut[0]].shape()[0];
        let parts = (0..count).step_by(step).map(|first| whole.part(self, first, step.min(count - first)).outcomes());
        let parts: Vec<Vec<Tensor>> = parts.collect();
        (0..parts[0].len()).map(|k| self.joined(&whole.moving, k, &parts)).collect()
    }

    fn joined(&self, moving: &[usize], k: usize, parts: &[Vec<Tensor>]) -> Tensor {
        let rows = if k < 2 { self.join == Rows } else { self.cut.contains(&moving[k / 2 - 1]) };
        let parts: Vec<&Tensor> = parts.iter().map(|part| &part[k]).collect();
        if rows { Tensor::concat(&parts, 0) } else { parts[1..].iter().fold(parts[0].clone(), |sum, &part| sum + part) }
    }
}

/// A function with operands, cotangent, and a direction of both.
struct Point<'a> {
    f: &'a Function,
    x: Vec<Tensor>,
    moving: Vec<usize>,
    v: Vec<Tensor>,
    c: Tensor,
    dc: Tensor,
}

impl Point<'_> {
    fn part(&self, case: &Case, first: usize, count: usize) -> Point<'_> {
        let rows = |t: &Tensor| t.slice(0, first, count).contiguous();
        let operand = |(i, t): (usize, &Tensor)| if case.cut.contains(&i) { rows(t) } else { t.clone() };
        let result = |t: &Tensor| if case.join == Rows { rows(t) } else { t.clone() };
        let (x, v) = (self.x.iter().enumerate().map(operand), self.v.iter().enumerate().map(operand));
        let (x, v, moving) = (x.collect(), v.collect(), self.moving.clone());
        Point { f: self.f, x, v, moving, c: result(&self.c), dc: result(&self.dc) }
    }

    fn at(&self, moved: &[Tensor]) -> Tensor {
        let mut x = self.x.clone();
        self.moving.iter().zip(moved).for_each(|(&i, t)| x[i] = t.clone());
        (self.f)(&x)
    }

    /// Value and tangent; then, for each operand that moves, its cotangent and how that moves.
    fn outcomes(&self) -> Vec<Tensor> {
        let x: Vec<Tensor> = self.moving.iter().map(|&i| self.x[i].clone()).collect();
        if x.is_empty() {
            return vec![self.at(&x)];
        }
        let v: Vec<Option<Tensor>> = self.moving.iter().map(|&i| Some(self.v[i].clone())).collect();
        let (y, mut tangents) = jvp(|x| self.at(x), &x, std::slice::from_ref(&v));
        let leaves: Vec<Tensor> = x.iter().map(Tensor::leaf).collect();
        let pulled = vjp(&self.at(&leaves), &self.c, &leaves.iter().collect::<Vec<_>>(), false);
        let variables = [x, vec![self.c.clone()]].concat();
        let direction = [v, vec![Some(self.dc.clone())]].concat();
        let loss = |x: &[Tensor]| (self.at(x) * x.last().unwrap()).sum_all();
        let products = hvp(loss, &variables, &[direction]).products.remove(0);
        let first = [y, tangents.remove(0)].into_iter();
        first.chain(pulled.into_iter().zip(products).flat_map(|(pulled, product)| [pulled, product])).collect()
    }
}

fn elementwise() -> Vec<Case> {
    let x = || Input::normal(LARGE);
    let mask = || Input::index(LARGE, 2);
    vec![
        Case::new("gelu", [x()], &[0], Rows, |x| x[0].gelu()),
        Case::new("exp", [x()], &[0], Rows, |x| x[0].exp()),
        Case::new("times a row", [x(), Input::normal([131])], &[0], Rows, |x| &x[0] * &x[1]),
        Case::new("over a column", [x(), Input::away([400, 1], 0.5, 2.0)], &[0, 1], Rows, |x| &x[0] / &x[1]),
        Case::new("minus a number", [x(), Input::normal([])], &[0], Rows, |x| &x[0] - &x[1]),
        Case::new("select", [mask(), x(), x()], &[0, 1, 2], Rows, |x| x[0].select(&x[1], &x[2])),
        Case::new("greater", [x().constant(), x().constant()], &[0, 1], Rows, |x| x[0].greater(&x[1])),
        // Cotangents of two uses are added up, the second time as they lie.
        Case::new("two uses", [x()], &[0], Rows, |x| x[0].exp() + x[0].sin()),
        Case::new("two layouts", [x()], &[0], Rows, |x| x[0].exp() + x[0].t().contiguous().sin().t()),
    ]
}

fn by_rows() -> Vec<Case> {
    let (x, w) = (|| Input::normal(LARGE), || Input::normal([131]));
    let targets: Vec<u32> = (0..400).map(|i| if i % 5 == 3 { IGNORED } else { i * 37 % 131 }).collect();
    let targets = Input::indices([400], targets);
    let narrow = [Input::normal([2100, 9]), Input::normal([9]), Input::normal([9])];
    vec![
        Case::new("softmax", [x()], &[0], Rows, |x| x[0].softmax(-1)),
        Case::new("log_softmax", [x()], &[0], Rows, |x| x[0].log_softmax(-1)),
        Case::new("layer_norm", [x(), w(), w()], &[0], Rows, |x| x[0].layer_norm(&x[1], &x[2], 1e-2)),
        Case::new("narrow layer_norm", narrow, &[0], Rows, |x| x[0].layer_norm(&x[1], &x[2], 1e-2)),
        Case::new("rms_norm", [x(), w()], &[0], Rows, |x| x[0].rms_norm(&x[1], 1e-2)),
        Case::new("cross_entropy", [x(), targets], &[0, 1], Sum, |x| x[0].cross_entropy_sum(&x[1])),
        Case::new("max", [Input::distinct(LARGE, 0.01)], &[0], Rows, |x| x[0].max(&[1])),
        Case::new("min", [Input::distinct(LARGE, 0.01)], &[0], Rows, |x| x[0].min(&[1])),
        Case::new("argmax", [x().constant()], &[0], Rows, |x| x[0].argmax(1)),
    ]
}

fn sums() -> Vec<Case> {
    let x = || [Input::normal([400, 200])];
    vec![
        Case::new("sum of all", x(), &[0], Sum, |x| x[0].sum_all()),
        Case::new("sum of columns", x(), &[0], Sum, |x| x[0].sum(&[0])),
        Case::new("sum of rows", x(), &[0], Rows, |x| x[0].sum(&[1])),
        Case::new("sum between", [Input::normal([60, 37, 50])], &[0], Rows, |x| x[0].sum(&[1])),
        Case::new("sum of many rows", [Input::normal([2100, 9])], &[0], Sum, |x| x[0].sum(&[0])),
    ]
}

fn products() -> Vec<Case> {
    let wide = [Input::normal([70, 60]), Input::normal([60, 600])];
    let tall = [Input::normal([600, 60]), Input::normal([60, 70])];
    let linear = [Input::normal([40, 15, 60]), Input::normal([60, 70]), Input::normal([70])];
    let batch = [Input::normal([60, 20, 30]), Input::normal([60, 30, 7])];
    let ids = || Input::index([400], 50);
    let table = [Input::normal([50, 131]), ids()];
    vec![
        Case::new("wide matmul", wide, &[0], Rows, |x| x[0].matmul(&x[1])),
        Case::new("tall matmul", tall, &[0], Rows, |x| x[0].matmul(&x[1])),
        Case::new("matmul of a batch", batch, &[0, 1], Rows, |x| x[0].matmul(&x[1])),
        Case::new("linear", linear, &[0], Rows, |x| x[0].linear(&x[1], Some(&x[2]))),
        Case::new("gather", table, &[1], Rows, |x| x[0].gather(&x[1])),
        Case::new("scatter_add", [Input::normal(LARGE), ids()], &[0, 1], Sum, |x| x[0].scatter_add(&x[1], 50)),
    ]
}

fn moved() -> Vec<Case> {
    let x = || Input::normal([60, 20, 30]);
    vec![
        Case::new("concat", [x(), x()], &[0, 1], Rows, |x| Tensor::concat(&[&x[0], &x[1]], 1)),
        Case::new("pad", [x()], &[0], Rows, |x| x[0].pad(2, 3, 1)),
        Case::new("permute", [x()], &[0], Rows, |x| x[0].permute(&[0, 2, 1]).contiguous()),
        Case::new("slice", [x()], &[0], Rows, |x| x[0].slice(1, 3, 11).exp()),
    ]
}

fn heads() -> Vec<Case> {
    let grouped = Attention { kv_heads: 2, scale: Some(0.6), ..Attention::new(4, true) };
    let table = || Input::values([47, 8, 2], rotary_table(47, &rotary_frequencies(16, 100.0))).constant();
    vec![
        // More pairs of batch and key head than share scratch.
        Case::new("attention", [Input::normal([20, 19, 8, 5])], &[0], Rows, move |x| x[0].attention(grouped, None)),
        Case::new(
            "masked attention",
            [Input::normal([20, 19, 8, 5]), Input::index([20, 4, 19, 19], 2)],
            &[0, 1],
            Rows,
            move |x| x[0].attention(grouped, Some(&x[1])),
        ),
        Case::new("rotary", [Input::normal([7, 43, 8, 16]), table()], &[0], Rows, |x| x[0].rotary(&x[1], 3, 5)),
    ]
}

fn cases() -> Vec<Case> {
    [elementwise(), by_rows(), sums(), products(), moved(), heads()].into_iter().flatten().collect()
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.detach().cast(DType::F64).to_vec().unwrap()
}

fn assert_near(found: &[Tensor], expected: &[Tensor], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (k, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a.spec(), b.spec(), "{what}, outcome {k}");
        let (a, b) = (numbers(a), numbers(b));
        let scale = b.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
        let error = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error <= 1e-12 * scale && a.iter().all(|x| x.is_finite()), "{what}, outcome {k}: {error:e}");
    }
}

/// Parts so small that nothing in them is split.
fn step(case: &Case) -> usize {
    case.inputs[case.cut[0]].shape[0].div_ceil(7).min(57)
}

#[test]
fn the_whole_is_what_its_parts_give() {
    for case in cases() {
        assert_near(&case.point().outcomes(), &case.by_parts(step(&case)), case.name);
    }
}

/// The same numbers in another order of storage, and as parts of something larger.
#[test]
fn large_operands_may_lie_anyhow() {
    let transposed = |t: &Tensor| if t.shape().len() > 1 { t.t().contiguous().t() } else { t.clone() };
    let within = |t: &Tensor| match t.shape().len() {
        0 => t.clone(),
        _ => t.pad(-1, 2, 1).slice(-1, 2, t.shape().last_size()),
    };
    for case in cases() {
        let expected = case.point().outcomes();
        for lay in [transposed, within] {
            let mut point = case.point();
            point.x.iter_mut().chain(&mut point.v).for_each(|t| *t = lay(t));
            (point.c, point.dc) = (lay(&point.c), lay(&point.dc));
            assert_near(&point.outcomes(), &expected, case.name);
        }
    }
}

fn bits(case: &Case, threads: usize) -> Vec<Vec<u64>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let all = || case.point().outcomes().iter().map(|t| numbers(t).into_iter().map(f64::to_bits).collect()).collect();
    pool.install(all)
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for case in cases().into_iter().chain([dropped()]) {
        assert!(bits(&case, 1) == bits(&case, 3), "{}", case.name);
    }
}

const SEED: Seed = Seed(5);

/// The mask belongs to the whole, so that this cannot be cut.
fn dropped() -> Case {
    Case::new("dropout", [Input::normal(LARGE)], &[], Rows, |x| x[0].dropout(0.25, SEED))
}

#[test]
fn dropout_masks_by_position() {
    let case = dropped();
    let point = case.point();
    let kept = |i: usize| SEED.block(i as u64 / 4)[i % 4] >= 1 << 30;
    let expected = |x: &Tensor| -> Vec<f64> {
        numbers(x).iter().enumerate().map(|(i, x)| if kept(i) { x * (1.0 / 0.75) } else { 0.0 }).collect()
    };
    let found = point.outcomes();
    for (found, operand) in found.iter().zip([&point.x[0], &point.v[0], &point.c, &point.dc]) {
        assert_eq!(numbers(found), expected(operand));
    }
}

fn long_attentions() -> Vec<(Attention, [usize; 3], Option<Shape>)> {
    let grouped = |causal| Attention { kv_heads: 2, ..Attention::new(4, causal) };
    let scaled = |op: Attention| Attention { scale: Some(0.21), ..op };
    vec![
        (grouped(true), [2, 150, 33], None),
        (scaled(grouped(true)), [1, 81, 16], Some([81, 81].into())),
        (scaled(Attention::new(2, false)), [1, 75, 7], Some([1, 2, 1, 75].into())),
        (grouped(false), [2, 64, 17], None),
    ]
}

/// Many tiles of queries and keys, some of them partly filled.
#[test]
fn long_attention_is_its_composition() {
    for (op, [batch, time, dim], mask) in long_attentions() {
        let x = Input::normal([batch, time, op.heads + 2 * op.kv_heads, dim]);
        let inputs: Vec<Input> = [x].into_iter().chain(mask.map(|mask| Input::index(mask, 3))).collect();
        let kernels = Case::new("attention", inputs.clone(), &[0], Rows, move |x| x[0].attention(op, x.get(1)));
        let composed = Case::new("composition", inputs, &[0], Rows, move |x| match op.derivative() {
            Derivative::Fused(rule) => rule.composition(x),
            _ => unreachable!("attention is fused"),
        });
        assert_near(&kernels.point().outcomes(), &composed.point().outcomes(), &format!("{op:?}"));
    }
}
