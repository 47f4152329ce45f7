//! Second order on whole models: the dense Hessian of a two-layer GPT put together from Hessian-vector products.

use eckart::autograd::{Direction, grad, hvp};
use eckart::nn::{Arch, Model, ModelConfig, Pass};
use eckart::{DType, Device, Module, Seed, Tensor};

/// A model as a function of its parameters.
pub struct Problem {
    pub model: Model,
    pub ids: Tensor,
    pub targets: Tensor,
    pass: Pass,
}

impl Problem {
    pub fn new(arch: Arch, layers: usize) -> Problem {
        let device = Device::cpu();
        let config = ModelConfig { hidden: 12, ..ModelConfig::new(arch, 7, 5, layers, 2, 8) };
        let mut model = Model::new(&config, Seed(3), &device).unwrap().cast(DType::F64);
        // Far enough from the start that every term of the second derivative counts.
        model.visit_mut(&eckart::module::Path::root(), &mut |path, parameter| {
            let noise =
                eckart::module::normal(parameter.tensor().shape(), 0.3, Seed(9).named(&path.to_string()), &device);
            parameter.set(parameter.tensor().detach() + noise.cast(DType::F64));
        });
        let ids = Tensor::new(&[0_u32, 3, 6, 2, 1, 5, 5, 0, 4, 2], [2, 5], &device);
        let targets = Tensor::new(&[3_u32, 6, 2, 1, u32::MAX, 5, 0, 4, 2, 3], [2, 5], &device);
        Problem { model, ids, targets, pass: Pass::default() }
    }

    pub fn parameters(&self) -> Vec<Tensor> {
        self.model.parameters().iter().map(|(_, p)| p.tensor().detach()).collect()
    }

    pub fn loss(&self, parameters: &[Tensor]) -> Tensor {
        let mut model = self.model.clone();
        model.bind(parameters);
        model.loss(&self.ids, &self.targets, &self.pass)
    }

    fn gradient(&self, parameters: &[Tensor]) -> Vec<f64> {
        let leaves: Vec<Tensor> = parameters.iter().map(Tensor::leaf).collect();
        flat(&grad(&self.loss(&leaves), &leaves.iter().collect::<Vec<_>>(), false))
    }
}

pub fn flat(tensors: &[Tensor]) -> Vec<f64> {
    tensors.iter().flat_map(|t| t.to_vec::<f64>().unwrap()).collect()
}

/// A vector over all parameters, cut into their shapes.
pub fn cut(flat: &[f64], like: &[Tensor]) -> Vec<Tensor> {
    let mut rest = flat;
    let mut next = |t: &Tensor| {
        let (head, tail) = rest.split_at(t.count());
        rest = tail;
        Tensor::new(head, *t.shape(), t.device())
    };
    like.iter().map(&mut next).collect()
}

/// Row by row, eight directions at a time.
pub fn hessian(problem: &Problem) -> Vec<Vec<f64>> {
    let parameters = problem.parameters();
    let count: usize = parameters.iter().map(Tensor::count).sum();
    let unit = |i: usize| -> Direction {
        let mut flat = vec![0.0; count];
        flat[i] = 1.0;
        cut(&flat, &parameters).into_iter().map(Some).collect()
    };
    let rows: Vec<usize> = (0..count).collect();
    let products = |rows: &[usize]| {
        let directions: Vec<Direction> = rows.iter().map(|&i| unit(i)).collect();
        hvp(|p| problem.loss(p), &parameters, &directions).products
    };
    rows.chunks(8).flat_map(products).map(|product| flat(&product)).collect()
}

fn norm(rows: impl Iterator<Item = f64>) -> f64 {
    rows.map(|x| x * x).sum::<f64>().sqrt()
}

/// Central differences of the gradient, of fourth order, along each parameter.
fn differences(problem: &Problem) -> Vec<Vec<f64>> {
    let parameters = problem.parameters();
    let start = flat(&parameters);
    let at = |i: usize, step: f64| {
        let mut moved = start.clone();
        moved[i] += step;
        problem.gradient(&cut(&moved, &parameters))
    };
    let row = |i: usize| {
        let h = 1e-3;
        let [a, b, c, d] = [2.0 * h, h, -h, -2.0 * h].map(|step| at(i, step));
        (0..start.len()).map(|j| (-a[j] + 8.0 * b[j] - 8.0 * c[j] + d[j]) / (12.0 * h)).collect()
    };
    (0..start.len()).map(row).collect()
}

fn check(arch: Arch) {
    let problem = Problem::new(arch, 2);
    let h = hessian(&problem);
    assert!(h.len() <= 3000, "{} parameters", h.len());
    let largest = h.iter().flatten().fold(0.0_f64, |max, x| max.max(x.abs()));
    let skew = (0..h.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let skew = skew.map(|(i, j)| (h[i][j] - h[j][i]).abs()).fold(0.0, f64::max);
    let expected = differences(&problem);
    let error = norm(h.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| a - b));
    let size = norm(h.iter().flatten().copied());
    println!(
        "{} parameters: max|H - Ht| / max|H| = {:.1e}, |H - Hfd| / |H| = {:.1e}",
        h.len(),
        skew / largest,
        error / size
    );
    assert!(skew <= 1e-10 * largest, "asymmetric by {:e}", skew / largest);
    assert!(error <= 1e-6 * size, "differs from central differences by {:e}", error / size);
}

#[test]
fn dense_hessian_of_a_two_layer_gpt() {
    check(Arch::Gpt2);
}

#[test]
fn dense_hessian_of_a_two_layer_llama() {
    check(Arch::Llama);
}

/// The same products through recomputed segments, and in several directions at once or one by one.
#[test]
fn products_do_not_depend_on_how_they_are_computed() {
    let mut problem = Problem::new(Arch::Gpt2, 2);
    let parameters = problem.parameters();
    let direction = |k: u64| -> Direction {
        let draw = |(i, p): (usize, &Tensor)| {
            eckart::module::normal(p.shape(), 1.0, Seed(k).fold(i as u64), p.device()).cast(DType::F64)
        };
        parameters.iter().enumerate().map(draw).map(Some).collect()
    };
    let both = hvp(|p| problem.loss(p), &parameters, &[direction(1), direction(2)]);
    let second = hvp(|p| problem.loss(p), &parameters, &[direction(2)]);
    problem.pass.recompute = true;
    let recomputed = hvp(|p| problem.loss(p), &parameters, &[direction(2)]);
    let expected = flat(&both.products[1]);
    for found in [&second, &recomputed] {
        let found = flat(&found.products[0]);
        let error = norm(found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(expected.iter().copied());
        assert!(error <= 1e-12, "off by {error:e}");
    }
}
