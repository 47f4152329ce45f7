//! Traces, eigenvalues and densities against Hessians that are there as a whole.

use crate::hessian::{Problem, cut, flat, hessian};
use eckart::autograd::gauss_newton;
use eckart::data::Batch;
use eckart::lowrank::svd::svd;
use eckart::nn::{Arch, Model, Pass};
use eckart::ops::project::{Entries, Random};
use eckart::rank::{Hessian, Survey, Symmetric, density, eigenvalues, hutch_plus_plus, hutchinson};
use eckart::train::Sample;
use eckart::{DType, Device, Module, Seed, Tensor};

/// The problem's batch as a sample.
fn sample(problem: &Problem) -> Sample {
    let words = |x: &Tensor| x.to_vec::<u32>().unwrap();
    Sample::new(vec![Batch {
        ids: words(&problem.ids),
        targets: words(&problem.targets),
        context: 5,
        ..Batch::default()
    }])
}

fn survey(names: &str, samples: u64, seed: u64) -> Survey {
    Survey { names: vec![names.into()], samples, tolerance: 0.0, seed: Seed(seed), ..Survey::default() }
}

/// Where the elements of each layer's weight lie among all parameters.
fn places(model: &Model, paths: &[String]) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    let mut all = std::collections::BTreeMap::new();
    for (path, parameter) in model.parameters() {
        let count = parameter.tensor().count();
        all.insert(path, start..start + count);
        start += count;
    }
    paths.iter().map(|path| all[&format!("{path}.weight")].clone()).collect()
}

fn trace(rows: &[Vec<f64>], of: &std::ops::Range<usize>) -> f64 {
    of.clone().map(|i| rows[i][i]).sum()
}

/// One probe is ⟨V, H V⟩ of the same signs, with V written out.
#[test]
fn probes_without_matrices_are_those_with() {
    for arch in [Arch::Gpt2, Arch::Llama] {
        let problem = Problem::new(arch, 2);
        let (paths, found) = survey("all-linear", 1, 7).traces(&problem.model, &sample(&problem), false).unwrap();
        let parameters = problem.model.parameters();
        let seed = Seed(7).fold(0).named("probe");
        let direction = parameters.iter().map(|(path, parameter)| {
            let path = path.strip_suffix(".weight").filter(|path| paths.iter().any(|other| other == path))?;
            let mut model = problem.model.clone();
            let (mut sizes, mut transposed) = ([0, 0], false);
            model.visit_maps(&eckart::module::Path::root(), &mut |at, map| {
                if at.to_string() == path {
                    sizes = map.sizes();
                    transposed = map.get::<eckart::module::Dense>().unwrap().transposed;
                }
            });
            let random = Random { entries: Entries::Signs, rank: sizes[1], seed: seed.named(path) };
            // [out, in].
            let v = random.matrix(sizes[0], DType::F64, parameter.tensor().device());
            Some(if transposed { v } else { v.t().contiguous() })
        });
        let direction: Vec<Option<Tensor>> = direction.collect();
        let product =
            eckart::autograd::hvp(|p| problem.loss(p), &problem.parameters(), std::slice::from_ref(&direction));
        for (i, path) in paths.iter().enumerate() {
            let at = parameters.iter().position(|(name, _)| *name == format!("{path}.weight")).unwrap();
            let v = direction[at].as_ref().unwrap();
            let expected = (v * &product.products[0][at]).sum_all().item().unwrap();
            let mean = found.layers[i].mean;
            assert!((mean - expected).abs() < 1e-10 * expected.abs().max(1e-3), "{path}: {mean}, not {expected}");
        }
    }
}

/// 200 trials of a fixed number of samples: the 95 % interval holds the truth in at least 182 of them (a chance of a few per cent to
/// fail where it holds it in 95 %; seeds fixed before the first run).
fn covers(truth: &[f64], mut trial: impl FnMut(u64) -> Vec<eckart::rank::Estimate>) {
    let mut covered = vec![0; truth.len()];
    for number in 0..200 {
        for ((covered, estimate), truth) in covered.iter_mut().zip(trial(number)).zip(truth) {
            *covered += ((estimate.mean - truth).abs() <= estimate.interval()) as usize;
        }
    }
    println!("covered in {covered:?} of 200");
    assert!(covered.iter().all(|&covered| covered >= 182), "{covered:?} of 200");
}

#[test]
fn intervals_cover_the_traces() {
    let problem = Problem::new(Arch::Gpt2, 1);
    let sample = sample(&problem);
    let dense = hessian(&problem);
    let (paths, _) = survey("all-linear", 8, 0).traces(&problem.model, &sample, false).unwrap();
    let truth: Vec<f64> = places(&problem.model, &paths).iter().map(|of| trace(&dense, of)).collect();
    covers(&truth, |trial| {
        survey("all-linear", 8, 1000 + trial).traces(&problem.model, &sample, false).unwrap().1.layers
    });
    // The whole matrix's trace, by the general operator.
    let whole: f64 = (0..dense.len()).map(|i| dense[i][i]).sum();
    let operator = Hessian::new(&problem.model, &sample);
    covers(&[whole], |trial| vec![hutchinson(&operator, 8, Seed(2000 + trial)).unwrap()]);
}

/// Row by row, from products with unit vectors.
fn dense_gauss_newton(problem: &Problem) -> Vec<Vec<f64>> {
    let parameters = problem.parameters();
    let count: usize = parameters.iter().map(Tensor::count).sum();
    let logits = |p: &[Tensor]| {
        let mut model = problem.model.clone();
        model.bind(p);
        model.logits(&problem.ids, &Pass::default())
    };
    let row = |i: usize| {
        let mut unit = vec![0.0; count];
        unit[i] = 1.0;
        let direction = cut(&unit, &parameters).into_iter().map(Some).collect();
        flat(&gauss_newton(logits, |y| y.cross_entropy(&problem.targets), &parameters, &direction))
    };
    (0..count).map(row).collect()
}

#[test]
fn gauss_newton_traces_are_positive_and_covered() {
    let problem = Problem::new(Arch::Gpt2, 1);
    let sample = sample(&problem);
    let dense = dense_gauss_newton(&problem);
    let (paths, first) = survey("all-linear", 8, 0).traces(&problem.model, &sample, true).unwrap();
    assert!(first.layers.iter().all(|layer| layer.mean > 0.0));
    let truth: Vec<f64> = places(&problem.model, &paths).iter().map(|of| trace(&dense, of)).collect();
    let trial = |number: u64| survey("all-linear", 100, 3000 + number).traces(&problem.model, &sample, true).unwrap().1;
    covers(&truth, |number| trial(number).layers);
}

#[test]
fn eigenvalues_and_densities_are_those_of_the_whole_matrix() {
    let problem = Problem::new(Arch::Gpt2, 1);
    let sample = sample(&problem);
    let operator = Hessian::new(&problem.model, &sample);
    let rows = hessian(&problem);
    let n = rows.len();
    assert_eq!(operator.size(), n);
    let dense = Tensor::new(&rows.concat(), [n, n], &Device::cpu());
    let magnitudes = svd(&dense).unwrap().s.to_vec::<f64>().unwrap();
    for (found, expected) in eigenvalues(&operator, 4, 80, Seed(5)).unwrap().iter().zip(&magnitudes) {
        assert!((found.value.abs() - expected).abs() < 1e-8 * expected, "{found:?} where |λ| is {expected}");
        assert!(found.residual < 1e-5 * expected, "{found:?}");
    }
    // Few steps: a Rayleigh quotient is no further off than its residual says.
    let rough = eigenvalues(&operator, 1, 6, Seed(5)).unwrap()[0];
    assert!((rough.value.abs() - magnitudes[0]).abs() <= rough.residual && rough.residual > 1e-9, "{rough:?}");

    let density = density(&operator, 6, 20, Seed(11)).unwrap();
    let weight: f64 = density.points.iter().map(|[_, weight]| weight).sum();
    assert!((weight - 1.0).abs() < 1e-12, "weights add up to {weight}");
    let same = hutchinson(&operator, 6, Seed(11)).unwrap();
    assert!((density.trace() - same.mean).abs() < 1e-10 * same.mean.abs(), "{} {}", density.trace(), same.mean);
    // Smoothed, it still integrates to 1.
    let (low, high) = (-2.0 * magnitudes[0], 2.0 * magnitudes[0]);
    let steps = 4000;
    let width = (high - low) / steps as f64;
    let area: f64 = (0..steps).map(|i| width * density.at(low + (i as f64 + 0.5) * width, 0.05 * magnitudes[0])).sum();
    assert!((area - 1.0).abs() < 1e-6, "{area}");
}

/// A spectrum that decays: Hutch++ is far nearer with as many products.
#[test]
fn hutch_plus_plus_is_exact_where_it_can_be() {
    struct Decaying(Vec<f64>);
    impl Symmetric for Decaying {
        fn pieces(&self) -> Vec<eckart::Spec> {
            vec![eckart::Spec::new(DType::F64, [self.0.len()])]
        }
        fn device(&self) -> Device {
            Device::cpu()
        }
        fn times(&self, vectors: &[Vec<Tensor>]) -> eckart::Result<Vec<Vec<Tensor>>> {
            let diagonal = Tensor::new(&self.0, [self.0.len()], &Device::cpu());
            // Turned by a reflection, so that the diagonal is not all there is.
            let turn = |x: &Tensor| {
                let all = x.sum_all() * (2.0 / self.0.len() as f64);
                x - all.broadcast_to(*x.shape())
            };
            Ok(vectors.iter().map(|v| vec![turn(&(turn(&v[0]) * &diagonal))]).collect())
        }
    }
    let rank_four = Decaying((0..60).map(|i| if i < 4 { 10.0 - i as f64 } else { 0.0 }).collect());
    let exact = hutch_plus_plus(&rank_four, 6, Seed(1)).unwrap();
    assert!((exact.mean - 34.0).abs() < 1e-9, "{exact:?}");
    let falling = Decaying((0..60).map(|i| 100.0 * 0.5_f64.powi(i)).collect());
    let truth: f64 = falling.0.iter().sum();
    let error = |found: f64| (found - truth).powi(2);
    let mean = |estimate: &dyn Fn(u64) -> f64| (0..40).map(|seed| error(estimate(seed))).sum::<f64>() / 40.0;
    let plus = mean(&|seed| hutch_plus_plus(&falling, 8, Seed(seed)).unwrap().mean);
    let plain = mean(&|seed| hutchinson(&falling, 24, Seed(seed)).unwrap().mean);
    assert!(plus < 0.01 * plain, "{plus} {plain}");
}
