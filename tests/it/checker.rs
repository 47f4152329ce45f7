//! The checker itself: what it compares, what it says, and that it notices more than a wrong sign.

use eckart::autograd::{Derivative, Rule, Saved, Saves, check};
use eckart::ops::{self, Input, Op, Outputs, Sample};
use eckart::{Array, Device, Seed, Spec, Tensor};

/// What is wrong with [`Faulty`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The kernel takes elements as they lie in memory.
    Strides,
    /// The cotangent of an operand that moves alone.
    Alone,
    /// The tangent of an operand that moves alone.
    AloneForward,
    /// The cotangent is a constant, whatever it is of.
    Detached,
    /// The cotangent is a little too large.
    Slight,
}

/// a² b, element by element.
#[derive(Debug)]
struct Faulty(Fault);

impl Op for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        Ok(ins[0])
    }
    fn contiguous(&self) -> bool {
        self.0 != Fault::Strides
    }
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let (a, b) = (ins[0].raw::<f64>(), ins[1].raw::<f64>());
        for (i, y) in out.y.slice_mut::<f64>().iter_mut().enumerate() {
            *y = a[i % a.len()] * a[i % a.len()] * b[i % b.len()];
        }
    }
    fn derivative(&self) -> Derivative<'_> {
        Derivative::Custom(self)
    }
}

impl Rule for Faulty {
    fn saves(&self, _: &[bool]) -> Saves {
        Saves::INPUTS
    }
    fn vjp(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let (a, b) = (saved.input(0), saved.input(1));
        let wrong = match self.0 {
            Fault::Alone if needs.contains(&false) => 1.01,
            Fault::Slight => 1.0 + 1e-5,
            _ => 1.0,
        };
        let by_a = if self.0 == Fault::Detached { (a * b).detach() } else { a * b };
        vec![needs[0].then(|| c * &by_a * (2.0 * wrong)), needs[1].then(|| c * &(a * a))]
    }
    fn jvp(&self, ins: &[Tensor], _: &Tensor, tangents: &[Option<Tensor>]) -> Option<Tensor> {
        let (a, b) = (&ins[0], &ins[1]);
        let wrong = if self.0 == Fault::AloneForward && tangents[1].is_none() { 1.01 } else { 1.0 };
        let by_a = tangents[0].as_ref().map(|t| t * &(a * b) * (2.0 * wrong));
        let by_b = tangents[1].as_ref().map(|t| t * &(a * a));
        match (by_a, by_b) {
            (Some(left), Some(right)) => Some(left + right),
            (left, right) => left.or(right),
        }
    }
}

fn faulty(fault: Fault) -> check::Report {
    let sample = Sample::new(Faulty(fault), [Input::normal([3, 4]), Input::normal([3, 4])]);
    check::sample(&sample, Seed(0))
}

/// Kinds with a finding beyond its bound.
fn failed(report: &check::Report) -> Vec<check::Kind> {
    let bad = |kind: &check::Kind| report.findings.iter().any(|found| found.kind == *kind && !found.passed());
    check::Kind::ALL.into_iter().filter(bad).collect()
}

#[test]
fn faults_are_noticed_where_they_are() {
    use check::Kind;
    assert_eq!(failed(&faulty(Fault::None)), []);
    assert!(failed(&faulty(Fault::Strides)).contains(&Kind::Layouts));
    assert!(failed(&faulty(Fault::Alone)).contains(&Kind::Subsets));
    assert!(failed(&faulty(Fault::AloneForward)).contains(&Kind::Subsets));
    let second = failed(&faulty(Fault::Detached));
    assert!(!second.contains(&Kind::Vjp) && second.contains(&Kind::ReverseOverReverse), "{second:?}");
    assert!(second.contains(&Kind::ForwardOverReverse) && second.contains(&Kind::Agreement), "{second:?}");
    let slight = failed(&faulty(Fault::Slight));
    assert!(slight.contains(&Kind::Vjp) && slight.contains(&Kind::Dot), "{slight:?}");
}

#[test]
fn every_comparison_is_made() {
    use check::Kind;
    let report = faulty(Fault::None);
    let count = |kind| report.findings.iter().filter(|found| found.kind == kind).count();
    let found = Kind::ALL.map(|kind| (kind, count(kind)));
    // Two operands, each alone and both; 5 layouts of each operand, of cotangents and of tangents; 2 of 2 factored.
    let expected = [
        (Kind::Vjp, 2),
        (Kind::Jvp, 2),
        (Kind::Dot, 3),
        (Kind::Subsets, 8),
        (Kind::Directions, 1),
        (Kind::Composition, 2),
        (Kind::Layouts, 12),
        (Kind::ReverseOverReverse, 5),
        (Kind::ForwardOverReverse, 5),
        (Kind::ReverseOverForward, 5),
        (Kind::Agreement, 5),
    ];
    assert_eq!(found, expected);
    // Differences are never exact.
    assert!([Kind::Vjp, Kind::Jvp, Kind::ReverseOverReverse].iter().all(|&kind| report.worst(kind) > Some(0.0)));
}

fn finding(kind: check::Kind, error: f64) -> check::Finding {
    check::Finding { kind, operand: Some(1), error }
}

#[test]
fn reports_name_the_first_fault() {
    use check::Kind;
    let report = |findings| check::Report { op: "exp", findings };
    assert_eq!(report(vec![finding(Kind::Dot, 1e-12), finding(Kind::Vjp, 1e-6)]).verdict(), Ok(()));
    let bad = report(vec![finding(Kind::Dot, 0.0), finding(Kind::Agreement, 2e-11), finding(Kind::Vjp, 1.0)]);
    let words = "exp, operand 1: agreement is off by 2.0e-11, at most 1e-11 allowed";
    assert_eq!(bad.verdict(), Err(words.to_owned()));
    assert!(report(vec![finding(Kind::Jvp, f64::NAN)]).verdict().is_err());
}

#[test]
fn the_worst_is_the_largest_or_no_number() {
    use check::Kind;
    let worst = |errors: &[f64]| {
        let findings = errors.iter().map(|&error| finding(Kind::Dot, error)).chain([finding(Kind::Vjp, 9.0)]);
        check::Report { op: "exp", findings: findings.collect() }.worst(Kind::Dot)
    };
    assert_eq!(worst(&[]), None);
    assert_eq!(worst(&[1.0, 3.0, 2.0]), Some(3.0));
    assert!(worst(&[1.0, f64::NAN, 2.0]).unwrap().is_nan());
    assert!(worst(&[f64::NAN, 2.0]).unwrap().is_nan());
}

#[test]
fn kinds_have_names_and_bounds_of_their_own() {
    use check::Kind;
    let names = Kind::ALL.map(Kind::name);
    let words = ["vjp", "jvp", "dot", "subsets", "directions", "composition", "layouts"];
    assert_eq!(names[..7], words);
    assert_eq!(names[7..], ["rev/rev", "fwd/rev", "rev/fwd", "agreement"]);
    let bounds = Kind::ALL.map(Kind::bound);
    assert_eq!(bounds[..2], [1e-6; 2]);
    assert_eq!(bounds[2..7], [1e-12; 5]);
    assert_eq!(bounds[7..], [1e-5, 1e-5, 1e-5, 1e-11]);
}

/// Single precision is off by something, and bounds are within reach of it.
#[test]
fn devices_are_compared_in_earnest() {
    let rows = check::device(&Device::cpu()).unwrap();
    let row = |op: &str| rows.iter().find(|row| row.op == op).unwrap();
    // Four sizes, each plain and in four layouts (rows of equal elements are left out); value, cotangent, tangent; where
    // all is shifted, the cotangent's tangents along four directions.
    assert_eq!(row("pad").comparisons, 4 * (5 * 3 + 4));
    assert_eq!(row("pad").error, 0.0);
    for op in ["exp", "tanh", "matmul", "linear", "sum", "layer_norm", "softmax", "attention", "cross_entropy"] {
        let row = row(op);
        assert!(row.error > 1e-3 * row.bound && row.error <= row.bound, "{row:?}");
        assert!(!row.case.is_empty(), "{row:?}");
    }
    assert!(rows.iter().all(|row| row.comparisons >= ops::samples().iter().filter(|s| s.op.name() == row.op).count()));
}
