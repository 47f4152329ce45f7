//! Every op, on its own samples: derivatives right, and wrong ones noticed.

use crate::flip::{Flipped, Part};
use eckart::autograd::{Derivative, check, vjp};
use eckart::ops::{self, Sample};
use eckart::{DType, Device, Seed, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SEED: Seed = Seed(0);

/// One line of the table: the worst errors of all samples of one op.
fn line(op: &str, reports: &[check::Report]) -> String {
    let worst = |kind| reports.iter().filter_map(|report| report.worst(kind)).reduce(f64::max);
    let cells = check::Kind::ALL.map(|kind| worst(kind).map_or("-".into(), |error| format!("{error:.0e}")));
    format!("{op:14}{}", cells.map(|cell| format!("{cell:>12}")).concat())
}

#[test]
fn derivatives_are_right() {
    let mut by_op: BTreeMap<&str, Vec<check::Report>> = BTreeMap::new();
    for sample in ops::samples() {
        let report = check::sample(&sample, SEED);
        by_op.entry(report.op).or_default().push(report);
    }
    println!("{:14}{}", "op", check::Kind::ALL.map(|kind| format!("{:>12}", kind.name())).concat());
    by_op.iter().for_each(|(op, reports)| println!("{}", line(op, reports)));
    let faults: Vec<String> = by_op.values().flatten().filter_map(|report| report.verdict().err()).collect();
    let wrong = by_op.values().filter(|reports| reports.iter().any(|report| report.verdict().is_err())).count();
    println!("{} of {} ops", by_op.len() - wrong, by_op.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Operands that a random cotangent gives something for.
fn sensitive(sample: &Sample) -> Vec<usize> {
    let ins = sample.tensors(SEED, DType::F64, &Device::cpu());
    let floats = |i: &usize| sample.inputs[*i].differentiable && ins[*i].dtype() == DType::F64;
    let depends = |&i: &usize| {
        let leaf = ins[i].leaf();
        let at = |j: usize| if j == i { &leaf } else { &ins[j] };
        let y = sample.apply(&(0..ins.len()).map(at).collect::<Vec<_>>());
        if y.dtype() != DType::F64 {
            return false;
        }
        let pulled: &Tensor = &vjp(&y, &y.ones_like(), &[&leaf], false)[0];
        pulled.to_vec::<f64>().unwrap().iter().any(|&x| x != 0.0)
    };
    (0..ins.len()).filter(floats).filter(depends).collect()
}

/// The flips that must be noticed: none where the derivative is zero anyway.
fn parts(sample: &Sample) -> Vec<Part> {
    let operands = sensitive(sample);
    if operands.is_empty() {
        return Vec::new();
    }
    let mut parts = vec![Part::Reverse, Part::Forward];
    parts.extend(operands.into_iter().map(Part::Cotangent));
    if let Derivative::Fused(rule) = sample.op.derivative() {
        parts.push(Part::BackwardKernel);
        if let Some(kernels) = rule.tangents() {
            parts.push(Part::TangentKernel);
            parts.extend(kernels.has_backward().then_some(Part::BackwardTangentKernel));
        }
    }
    parts
}

#[test]
fn flipped_derivatives_are_caught() {
    let mut flips = 0;
    for sample in ops::samples() {
        for part in parts(&sample) {
            flips += 1;
            let verdict = check::sample(&Flipped::of(&sample, part), SEED).verdict();
            assert!(verdict.is_err(), "{:?} with its {part:?} negated passed", sample.op);
        }
    }
    println!("{flips} flips, all caught");
}

/// A flip of nothing passes: the wrapper itself is no error.
#[test]
fn an_unflipped_wrapper_passes() {
    for sample in ops::samples() {
        check::sample(&Flipped::of(&sample, Part::Cotangent(usize::MAX)), SEED).verdict().unwrap();
    }
}

/// Single precision on the host, as on any other device.
#[test]
fn single_precision_agrees_with_double() {
    let rows = check::device(&Device::cpu()).unwrap();
    for row in &rows {
        println!("{:14}{:>6}  {:.1e} of {:.1e}  {}", row.op, row.comparisons, row.error, row.bound, row.case);
    }
    let wrong: Vec<_> = rows.iter().filter(|row| !row.passed).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let named: std::collections::BTreeSet<_> = ops::samples().iter().map(|sample| sample.op.name()).collect();
    assert_eq!(rows.len(), named.len());
}

#[test]
fn a_device_without_contents_cannot_be_compared() {
    assert!(check::device(&Device::null()).is_err());
}

/// Types that implement `Op` in a source text, those made by a macro included.
fn op_types(text: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let direct = text.lines().filter_map(|line| line.split_once(" Op for ")).map(|(_, rest)| name(rest));
    let mut types: Vec<String> = direct.filter(|name| !name.is_empty()).collect();
    if text.contains(" Op for $") || text.contains(" Function for $") {
        types.extend(text.lines().filter_map(macro_row));
    }
    types
}

/// `method Name ..`, a row of a macro that defines ops.
fn macro_row(line: &str) -> Option<String> {
    let (method, rest) = line.strip_prefix("    ")?.split_once(' ')?;
    let keyword = ["impl", "use", "fn", "pub", "match", "let", "type", "const", "else", "return"].contains(&method);
    let lower = method.starts_with(|c: char| c.is_lowercase()) && method.chars().all(|c| c.is_lowercase() || c == '_');
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
    (lower && !keyword && name.starts_with(|c: char| c.is_uppercase())).then_some(name)
}

/// Source files of a folder; an op with several kernels has a folder of its own.
fn files_under(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

#[test]
fn every_op_has_a_sample() {
    let sampled: Vec<String> = ops::samples().iter().map(|sample| format!("{:?}", sample.op)).collect();
    let words = |text: &String| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
    };
    let sampled: Vec<String> = sampled.iter().flat_map(words).collect();
    let mut types = 0;
    for path in files_under(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops")) {
        for op in op_types(&std::fs::read_to_string(&path).unwrap()) {
            types += 1;
            assert!(sampled.contains(&op), "{op} of {} has no sample in ops::samples()", path.display());
        }
    }
    assert!(types > 30, "only {types} ops found: does the scan still fit the sources?");
}
