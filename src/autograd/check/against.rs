//! A device against the host: every op in single precision there, in double precision here, on the same numbers.

use super::layouts::Layout;
use super::report::larger;
use super::sizes::sizes;
use super::subject::{norm, numbers};
use crate::autograd::{Derivative, Direction, jvp, vjp};
use crate::device::Device;
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::ops::{self, Input, Sample};
use crate::rng::Seed;
use crate::shape::Shape;
use crate::tensor::Tensor;
use serde::Serialize;
use std::collections::BTreeMap;

/// One op on one device: its worst comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the op.
    pub op: &'static str,
    /// How many samples, layouts and results were compared.
    pub comparisons: usize,
    /// Error of the comparison that came closest to its bound, or went furthest beyond.
    pub error: f64,
    /// That comparison's bound.
    pub bound: f64,
    /// What was compared there: layout and result.
    pub case: String,
    /// Whether all comparisons are within their bounds.
    pub passed: bool,
}

/// An error beside what is allowed.
struct Comparison {
    error: f64,
    bound: f64,
    case: String,
}

impl Comparison {
    /// Error as a part of what is allowed.
    fn share(&self) -> f64 {
        self.error / self.bound
    }
}

/// Runs every op's samples on `device` in single precision and compares values, cotangents and tangents with double
/// precision on the host: contiguous, transposed, sliced and broadcast operands, all in the middle of storages (there
/// tangents of cotangents as well), empty ones, and single elements.
///
/// Sums of products may be off by 4√K 2⁻²⁴ Σ|a||b|, element by element, with K the number of products; everything
/// else by 10⁻⁵ of max(‖y‖, 1) as a whole. Fails if the device does, or cannot be read.
pub fn device(device: &Device) -> Result<Vec<Row>> {
    let mut rows: BTreeMap<&'static str, Row> = BTreeMap::new();
    for sample in ops::samples() {
        for comparison in compare(&sample, device)? {
            let row = rows.entry(sample.op.name()).or_insert_with(|| Row::new(sample.op.name()));
            row.note(comparison);
        }
    }
    Ok(rows.into_values().collect())
}

impl Row {
    fn new(op: &'static str) -> Row {
        Row { op, comparisons: 0, error: 0.0, bound: 1.0, case: String::new(), passed: true }
    }

    fn note(&mut self, comparison: Comparison) {
        let passed = comparison.error <= comparison.bound;
        let share = comparison.share();
        if self.comparisons == 0 || share.is_nan() || share > self.error / self.bound {
            (self.error, self.bound, self.case) = (comparison.error, comparison.bound, comparison.case);
        }
        self.comparisons += 1;
        self.passed &= passed;
    }
}

/// All comparisons for one sample.
fn compare(sample: &Sample, device: &Device) -> Result<Vec<Comparison>> {
    let mut found = Vec::new();
    for (name, sample) in sizes(sample) {
        let ins = sample.tensors(Seed(0), DType::F32, &Device::cpu());
        let specs: Vec<_> = ins.iter().map(Tensor::spec).collect();
        // Double precision exists on the host alone.
        if !sample.op.infer(&specs).is_ok_and(|spec| spec.dtype != DType::F64) {
            continue;
        }
        found.extend(case(&name, &sample, &ins, Laid::Plain, device)?);
        found.extend(case(&format!("{name}, all shifted"), &sample, &ins, Laid::Shifted, device)?);
        for i in 0..ins.len() {
            let alone = |layout: &Layout| *layout != Layout::Shifted && !evens_rows(*layout, &ins[i]);
            for layout in Layout::of(&ins[i]).into_iter().filter(alone) {
                let name = format!("{name}, operand {i} {layout:?}").to_lowercase();
                found.extend(case(&name, &sample, &ins, Laid::One(i, layout), device)?);
            }
        }
    }
    Ok(found)
}

/// How elements lie: in plain copies, one operand otherwise, or everything, cotangents and tangents too, without gaps
/// but not from a storage's start on.
#[derive(Clone, Copy, PartialEq)]
enum Laid {
    Plain,
    One(usize, Layout),
    Shifted,
}

/// Rows of equal elements have no variance, and what norms make of them is rounding errors alone.
fn evens_rows(layout: Layout, x: &Tensor) -> bool {
    x.shape().len() > 1 && layout == Layout::Broadcast(x.shape().len() - 1)
}

/// Value, cotangents and tangents on the device against those on the host, with operands laid out as said.
fn case(name: &str, sample: &Sample, ins: &[Tensor], laid: Laid, device: &Device) -> Result<Vec<Comparison>> {
    let at = |dtype: DType, device: &Device, f: fn(f64) -> f64| Trial::new(sample, ins, dtype, device, f, laid).run();
    let found = at(DType::F32, device, |x| x)?;
    let expected = at(DType::F64, &Device::cpu(), |x| x)?;
    let bounds = if CONTRACTIONS.contains(&sample.op.name()) {
        let sums = at(DType::F64, &Device::cpu(), f64::abs)?;
        let counts = at(DType::F64, &Device::cpu(), |_| 1.0)?;
        sums.iter().zip(&counts).map(|(sums, counts)| Bound::of_sums(&sums.1, &counts.1)).collect()
    } else {
        expected.iter().map(|(_, y)| Bound::Whole(1e-5 * norm(y).max(1.0))).collect::<Vec<_>>()
    };
    let compare = |(((result, found), (_, expected)), bound): ((&Named, &Named), &Bound)| {
        let (error, bound) = bound.worst(found, expected);
        Comparison { error, bound, case: format!("{result}, {name}") }
    };
    Ok(found.iter().zip(&expected).zip(&bounds).map(compare).collect())
}

/// Ops whose results are sums of products, or sums.
const CONTRACTIONS: [&str; 3] = ["linear", "matmul", "sum"];

/// What a result is, and its elements.
type Named = (String, Vec<f64>);

/// How far a result may be off.
enum Bound {
    /// In the norm of all differences.
    Whole(f64),
    /// Element by element.
    Each(Vec<f64>),
}

impl Bound {
    /// 4√K 2⁻²⁴ Σ|a||b|.
    fn of_sums(sums: &[f64], counts: &[f64]) -> Bound {
        const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
        Bound::Each(sums.iter().zip(counts).map(|(sum, k)| 4.0 * k.sqrt() * ROUNDING * sum).collect())
    }

    /// Error and bound of the whole, or of the element nearest to its bound.
    fn worst(&self, found: &[f64], expected: &[f64]) -> (f64, f64) {
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        let pairs = found.iter().zip(expected);
        let errors: Vec<f64> = pairs.map(|(&a, &b)| if same(a, b) { 0.0 } else { (a - b).abs() }).collect();
        match self {
            Bound::Whole(bound) => (norm(&errors), *bound),
            Bound::Each(bounds) => {
                let bounds = bounds.iter().map(|bound| bound.max(f64::MIN_POSITIVE));
                let worse =
                    |a: (f64, f64), b: (f64, f64)| if larger(a.0 / a.1, b.0 / b.1) == b.0 / b.1 { b } else { a };
                errors.iter().copied().zip(bounds).fold((0.0, 1.0), worse)
            }
        }
    }
}

/// One evaluation of an op and its derivatives.
struct Trial<'a> {
    sample: &'a Sample,
    ins: Vec<Tensor>,
    moving: Vec<usize>,
    dtype: DType,
    device: &'a Device,
    /// Applied to every number that goes in.
    f: fn(f64) -> f64,
    laid: Laid,
}

impl<'a> Trial<'a> {
    fn new(
        sample: &'a Sample,
        ins: &[Tensor],
        dtype: DType,
        device: &'a Device,
        f: fn(f64) -> f64,
        laid: Laid,
    ) -> Self {
        let moving = (0..ins.len()).filter(|&i| sample.inputs[i].differentiable && ins[i].dtype() != DType::U32);
        let mut trial = Trial { sample, ins: Vec::new(), moving: moving.collect(), dtype, device, f, laid };
        trial.ins = ins.iter().map(|x| trial.shifted(trial.carry(x))).collect();
        if let Laid::One(i, layout) = laid {
            trial.ins[i] = layout.lay(&trial.ins[i]);
        }
        trial
    }

    /// A tensor of the host in this trial's type, on its device.
    fn carry(&self, x: &Tensor) -> Tensor {
        let values = numbers(x);
        if x.dtype() == DType::U32 {
            let values: Vec<u32> = values.iter().map(|&x| x as u32).collect();
            return Tensor::new(&values, *x.shape(), self.device);
        }
        let values: Vec<f64> = values.into_iter().map(self.f).collect();
        crate::float!(self.dtype, T => {
            let values: Vec<T> = values.iter().map(|&x| <T as Element>::from_f64(x)).collect();
            Tensor::new(&values, *x.shape(), self.device)
        })
    }

    /// Behind something else, where everything is to lie so.
    fn shifted(&self, x: Tensor) -> Tensor {
        if self.laid == Laid::Shifted { Layout::Shifted.lay(&x) } else { x }
    }

    /// Random numbers, the same in every trial.
    fn random(&self, shape: &Shape, draw: usize) -> Tensor {
        let x = self.carry(&Input::normal(*shape).tensor(Seed(draw as u64), DType::F32, &Device::cpu()));
        self.shifted(x)
    }

    fn apply(&self, x: &[Tensor]) -> Tensor {
        let mut ins: Vec<&Tensor> = self.ins.iter().collect();
        self.moving.iter().zip(x).for_each(|(&i, x)| ins[i] = x);
        self.sample.apply(&ins)
    }

    fn run(&self) -> Result<Vec<Named>> {
        let x: Vec<Tensor> = self.moving.iter().map(|&i| self.ins[i].clone()).collect();
        let y = self.apply(&x);
        let mut results = vec![("value".to_owned(), y.clone())];
        if !matches!(self.sample.op.derivative(), Derivative::Zero) && !x.is_empty() {
            let leaves: Vec<Tensor> = x.iter().map(Tensor::leaf).collect();
            let c = self.random(y.shape(), 0).cast(y.dtype());
            let pulled = vjp(&self.apply(&leaves), &c, &leaves.iter().collect::<Vec<_>>(), false);
            results.extend(self.moving.iter().zip(pulled).map(|(i, g)| (format!("cotangent {i}"), g)));
            let v: Direction = x.iter().enumerate().map(|(k, x)| Some(self.random(x.shape(), 1 + k))).collect();
            let along = std::slice::from_ref(&v);
            results.push(("tangent".to_owned(), jvp(|x| self.apply(x), &x, along).1.remove(0)));
            if self.laid == Laid::Shifted && y.dtype() == self.dtype {
                results.extend(self.bent(&x, &c, &v));
            }
        }
        results.into_iter().map(|(name, y)| Ok((name, read(&y)?))).collect()
    }
}

impl Trial<'_> {
    /// Tangents of the cotangents, along `v`: each operand alone, the cotangent alone, all together, and nothing.
    fn bent(&self, x: &[Tensor], c: &Tensor, v: &Direction) -> Vec<(String, Tensor)> {
        let variables = [x, std::slice::from_ref(c)].concat();
        let dc = Some(self.random(c.shape(), 99).cast(c.dtype()));
        let only = |k: usize| v.iter().enumerate().map(|(i, v)| v.clone().filter(|_| i == k)).chain([None]).collect();
        let mut directions: Vec<Direction> = (0..=x.len()).map(only).collect();
        directions[x.len()][x.len()] = dc.clone();
        directions.push(v.iter().cloned().chain([dc]).collect());
        directions.push(vec![None; variables.len()]);
        let pulled = |x: &[Tensor], k: usize| {
            let (x, c) = x.split_at(x.len() - 1);
            let leaves: Vec<Tensor> = x.iter().map(Tensor::leaf).collect();
            vjp(&self.apply(&leaves), &c[0], &leaves.iter().collect::<Vec<_>>(), false).remove(k)
        };
        let along = |k: usize| jvp(|x| pulled(x, k), &variables, &directions).1.into_iter().enumerate();
        let named = |k: usize| along(k).map(move |(d, h)| (format!("tangent {d} of cotangent {k}"), h));
        (0..x.len()).flat_map(named).collect()
    }
}

/// The elements of a result of any type, from any device.
fn read(y: &Tensor) -> Result<Vec<f64>> {
    crate::element!(y.dtype(), T => Ok(y.to_vec::<T>()?.into_iter().map(Element::to_f64).collect()))
}
