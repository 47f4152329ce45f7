//! Functions of numbers on a GPU, whatever its driver's are worth, and conversions.

use crate::gpu::device;
use eckart::{DType, Device, Tensor};

type Unary = fn(&Tensor) -> Tensor;

fn f32s(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

/// From `low` to `high` in equal steps.
fn even(low: f64, high: f64) -> Vec<f32> {
    (0..=20_000).map(|i| (low + (high - low) * f64::from(i) / 2e4) as f32).collect()
}

/// From `low` to `high` in equal ratios, of both signs.
fn spread(low: f64, high: f64) -> Vec<f32> {
    let sizes = (0..10_000).map(|i| (low * (high / low).powf(f64::from(i) / 1e4)) as f32);
    sizes.flat_map(|x| [x, -x]).collect()
}

fn positive(x: Vec<f32>) -> Vec<f32> {
    x.into_iter().map(f32::abs).collect()
}

/// Fails where a number is further from the exact one than `relative` of it and `absolute`.
fn near(what: &str, at: &[f32], found: &[f32], exact: impl Fn(usize) -> f64, relative: f64, absolute: f64) {
    let excess = |i: usize| {
        let exact = exact(i);
        let error = (f64::from(found[i]) - exact).abs() / (relative * exact.abs() + absolute);
        match error {
            _ if f64::from(found[i]) == exact => 0.0,
            error if error.is_nan() => f64::INFINITY,
            error => error,
        }
    };
    let worst = (0..at.len()).max_by(|&i, &j| excess(i).total_cmp(&excess(j))).unwrap();
    let share = excess(worst);
    println!("{what}: {share:.3} of what is allowed, at {:e}", at[worst]);
    assert!(share <= 1.0, "{what} at {:e}: {:e}, not {:e}", at[worst], found[worst], exact(worst));
}

#[test]
fn functions_are_accurate_over_wide_ranges() {
    let Some(gpu) = device() else { return };
    let ulp = 2_f64.powi(-24);
    let cases: [(&str, Unary, Vec<f32>, f64, f64); 19] = [
        ("exp", Tensor::exp, even(-86.9, 88.0), 6.0 * ulp, 0.0),
        ("exp of small", Tensor::exp, spread(1e-30, 1.0), 4.0 * ulp, 0.0),
        ("log", Tensor::log, positive(spread(1.2e-38, 3.4e38)), 6.0 * ulp, 0.0),
        ("log near 1", Tensor::log, even(0.5, 2.0), 6.0 * ulp, 0.0),
        ("sin", Tensor::sin, even(-1000.0, 1000.0), 6.0 * ulp, 2e-10),
        ("cos", Tensor::cos, even(-1000.0, 1000.0), 6.0 * ulp, 2e-10),
        ("sin of any", Tensor::sin, spread(1e-30, 3.4e38), 6.0 * ulp, 1e-9),
        ("cos of any", Tensor::cos, spread(1e-30, 3.4e38), 6.0 * ulp, 1e-9),
        ("tanh", Tensor::tanh, even(-12.0, 12.0), 8.0 * ulp, 0.0),
        ("tanh of any", Tensor::tanh, spread(1e-30, 3.4e38), 8.0 * ulp, 0.0),
        ("sigmoid", Tensor::sigmoid, even(-86.0, 100.0), 16.0 * ulp, 0.0),
        ("erf", Tensor::erf, even(-6.0, 6.0), 8.0 * ulp, 0.0),
        ("erf of any", Tensor::erf, spread(1e-30, 3.4e38), 8.0 * ulp, 0.0),
        ("sqrt", Tensor::sqrt, positive(spread(1.2e-38, 3.4e38)), 8.0 * ulp, 0.0),
        ("rsqrt", Tensor::rsqrt, positive(spread(1.2e-38, 3.4e38)), 8.0 * ulp, 0.0),
        ("silu", Tensor::silu, even(-80.0, 80.0), 16.0 * ulp, 0.0),
        ("gelu", Tensor::gelu, even(-4.0, 30.0), 1e-5, 2_f64.powi(-21)),
        ("gelu_tanh", Tensor::gelu_tanh, even(-4.0, 30.0), 1e-5, 2_f64.powi(-21)),
        ("relu", Tensor::relu, spread(1e-30, 3.4e38), 0.0, 1e-45),
    ];
    for (what, f, at, relative, absolute) in cases {
        let found = f32s(&f(&Tensor::new(&at, [at.len()], &gpu)));
        let exact = Tensor::new(&at, [at.len()], &Device::cpu()).cast(DType::F64);
        let exact = f(&exact).to_vec::<f64>().unwrap();
        near(what, &at, &found, |i| exact[i], relative, absolute);
    }
}

fn pow(a: &[f32], b: &[f32], device: &Device) -> Vec<f32> {
    f32s(&Tensor::new(a, [a.len()], device).pow(&Tensor::new(b, [b.len()], device)))
}

/// All pairs whose power is a normal number.
fn pairs(a: &[f32], b: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let all = a.iter().flat_map(|&a| b.iter().map(move |&b| (a, b)));
    let size = |(a, b): (f32, f32)| f64::from(a).powf(f64::from(b)).abs();
    all.filter(|&pair| (1.2e-38..3.4e38).contains(&size(pair))).unzip()
}

#[test]
fn powers_are_accurate_for_all_bases_and_exponents() {
    let Some(gpu) = device() else { return };
    let near_one = |i: i32| [1.0 + 2_f32.powi(-i), 1.0 - 2_f32.powi(-i)];
    let bases = positive(spread(1.2e-38, 3.4e38)).into_iter().step_by(97).chain((1..=23).flat_map(near_one));
    let bases: Vec<f32> = bases.chain([1.0, 2.0, 0.5, 10.0]).collect();
    let exponents: Vec<f32> = spread(1e-6, 1e9).into_iter().step_by(53).chain([0.0, 0.5, 2.0, -1.0, 3.0]).collect();
    let (a, b) = pairs(&bases, &exponents);
    assert!(a.len() > 20_000, "{}", a.len());
    near("pow", &a, &pow(&a, &b, &gpu), |i| f64::from(a[i]).powf(f64::from(b[i])), 2e-6, 0.0);

    let whole: Vec<f32> = (-40..=40).map(|i| i as f32).chain([1e6, 1_000_001.0, 3e9]).collect();
    let negative: Vec<f32> = bases.iter().map(|a| -a).collect();
    let (a, b) = pairs(&negative, &whole);
    near("negative pow", &a, &pow(&a, &b, &gpu), |i| f64::from(a[i]).powf(f64::from(b[i])), 2e-6, 0.0);
}

#[test]
fn powers_at_the_edges_are_the_hosts() {
    let Some(gpu) = device() else { return };
    let a = [0.0, 0.0, 0.0, 0.0, 2.0, -2.0, 0.5, 2.0, 3e38, 3e38, -1.0, -1.0, 1.0, -2.0, -0.5, 1e-30, 7.0, -7.0];
    let b = [0.0, 2.0, 0.5, -1.0, 200.0, 201.0, 200.0, -1e30, 2.0, 0.0, 3e9, 1e6 + 1.0, 3e38, 0.5, 1.5, 1e30, 0.0, 0.0];
    let (found, want) = (pow(&a, &b, &gpu), pow(&a, &b, &Device::cpu()));
    for i in 0..a.len() {
        let same = found[i] == want[i] || (found[i].is_nan() && want[i].is_nan());
        assert!(same || (found[i] - want[i]).abs() <= 1e-6 * want[i].abs(), "{} ^ {}: {}", a[i], b[i], found[i]);
    }
}

#[test]
fn nothing_overflows_where_the_host_does_not() {
    let Some(gpu) = device() else { return };
    let functions: [(&str, Unary); 15] = [
        ("exp", Tensor::exp),
        ("log", Tensor::log),
        ("sqrt", Tensor::sqrt),
        ("rsqrt", Tensor::rsqrt),
        ("sin", Tensor::sin),
        ("cos", Tensor::cos),
        ("tanh", Tensor::tanh),
        ("sigmoid", Tensor::sigmoid),
        ("erf", Tensor::erf),
        ("abs", Tensor::abs),
        ("sign", Tensor::sign),
        ("relu", Tensor::relu),
        ("silu", Tensor::silu),
        ("gelu", Tensor::gelu),
        ("gelu_tanh", Tensor::gelu_tanh),
    ];
    let sizes = [0.0, 1e-38, 1e-20, 1.0, 4.2, 13.0, 87.0, 88.0, 88.5, 89.0, 104.0, 1e4, 1e13, 1e20, 3.4e38, f32::MAX];
    let at: Vec<f32> = sizes.into_iter().flat_map(|x| [x, -x]).chain([f32::NAN]).collect();
    for (what, f) in functions {
        let on = |device: &Device| f32s(&f(&Tensor::new(&at, [at.len()], device)));
        let (found, want) = (on(&gpu), on(&Device::cpu()));
        for i in (0..at.len()).filter(|&i| want[i].is_finite()) {
            assert!(found[i].is_finite(), "{what} of {:e} is {}, not {:e}", at[i], found[i], want[i]);
        }
        // A number that is none stays so, to be noticed.
        assert!(found[at.len() - 1].is_nan() || what == "sign", "{what} of NaN is {}", found[at.len() - 1]);
    }
}

/// Numbers around every boundary of the narrow types, as bits of singles.
fn special() -> Vec<f32> {
    let powers = (-150..=127).map(|n| 2_f64.powi(n) as f32);
    let around = |x: f32| (-3..=3).map(move |i: i32| f32::from_bits(x.to_bits().wrapping_add_signed(i)));
    let ties = |x: f32| {
        [0x0800, 0x1000, 0x1800, 0x3000, 0x8000, 0x1_8000, 0x7f_8000, 0x7f_ffff]
            .map(|low| f32::from_bits(x.to_bits() | low))
    };
    let powers: Vec<f32> = powers.collect();
    let tied = powers.iter().copied().flat_map(ties).flat_map(around);
    let edges = [65504.0, 65519.0, 65520.0, 65535.5, 4294967040.0, 2147483648.0, 16777217.0, 0.0, 3.4028235e38];
    let all = powers.iter().copied().chain(edges).flat_map(around).chain(tied).filter(|x| x.is_finite());
    all.flat_map(|x| [x, -x]).collect()
}

fn same_bits<T: eckart::dtype::Element>(what: &str, from: &[impl std::fmt::Debug], found: Vec<T>, want: Vec<T>) {
    let bytes = |x: &T| bytemuck::bytes_of(x).to_vec();
    if let Some(i) = (0..want.len()).find(|&i| bytes(&found[i]) != bytes(&want[i])) {
        panic!("{what} of {:?}: {:?}, not {:?}", from[i], found[i], want[i]);
    }
    assert_eq!(found.len(), want.len());
}

#[test]
fn casts_give_the_hosts_bits() {
    let Some(gpu) = device() else { return };
    let numbers = special();
    let cpu = Device::cpu();
    let on = |dtype, device: &Device| Tensor::new(&numbers, [numbers.len()], device).cast(dtype);
    let both = |dtype| (on(dtype, &gpu), on(dtype, &cpu));
    let (a, b) = both(DType::F16);
    same_bits::<half::f16>("f32 to f16", &numbers, a.to_vec().unwrap(), b.to_vec().unwrap());
    let (a, b) = both(DType::BF16);
    same_bits::<half::bf16>("f32 to bf16", &numbers, a.to_vec().unwrap(), b.to_vec().unwrap());
    let (a, b) = both(DType::U32);
    same_bits::<u32>("f32 to u32", &numbers, a.to_vec().unwrap(), b.to_vec().unwrap());

    // Every narrow number there is, at odd places too, to every other type.
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let halves: Vec<half::f16> = all.iter().map(|&bits| half::f16::from_bits(bits)).filter(|x| x.is_finite()).collect();
    let brains: Vec<half::bf16> =
        all.iter().map(|&bits| half::bf16::from_bits(bits)).filter(|x| x.is_finite()).collect();
    narrow("f16", &halves, &gpu);
    narrow("bf16", &brains, &gpu);
    let words: Vec<u32> = numbers.iter().map(|x| x.to_bits()).chain(0..1000).collect();
    narrow("u32", &words, &gpu);
}

/// To every type, whole and from the second element on.
fn narrow<T: eckart::dtype::Element>(what: &str, from: &[T], gpu: &Device) {
    for skip in [0, 1] {
        let on = |device: &Device| Tensor::new(from, [from.len()], device).slice(0, skip, from.len() - skip);
        let (a, b) = (on(gpu), on(&Device::cpu()));
        let (from, n) = (&from[skip..], from.len());
        same_bits::<T>(&format!("copy of {what}, {n}"), from, a.contiguous().to_vec().unwrap(), b.to_vec().unwrap());
        let both = |dtype| (a.cast(dtype), b.cast(dtype));
        let (a, b) = both(DType::F32);
        same_bits::<f32>(&format!("{what} to f32"), from, a.to_vec().unwrap(), b.to_vec().unwrap());
        let (a, b) = both(DType::U32);
        same_bits::<u32>(&format!("{what} to u32"), from, a.to_vec().unwrap(), b.to_vec().unwrap());
        let (a, b) = both(DType::F16);
        same_bits::<half::f16>(&format!("{what} to f16"), from, a.to_vec().unwrap(), b.to_vec().unwrap());
        let (a, b) = both(DType::BF16);
        same_bits::<half::bf16>(&format!("{what} to bf16"), from, a.to_vec().unwrap(), b.to_vec().unwrap());
    }
}

#[test]
fn masks_choose_as_on_the_host() {
    let Some(gpu) = device() else { return };
    let cpu = Device::cpu();
    let numbers: Vec<f32> = (0..24).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    // Beyond what a single tells apart.
    let words: Vec<u32> = (0..24).map(|i| u32::MAX - i % 5).collect();
    let compare: [fn(&Tensor, &Tensor) -> Tensor; 4] = [Tensor::at_least, Tensor::greater, Tensor::less, Tensor::equal];
    for (left, right) in
        [([2, 3, 4], [2, 3, 4]), ([2, 3, 4], [1, 3, 1]), ([1, 3, 4], [2, 1, 4]), ([1, 1, 1], [2, 3, 4])]
    {
        let part = |shape: [usize; 3], device: &Device| {
            let count = shape.iter().product();
            (Tensor::new(&numbers[..count], shape, device), Tensor::new(&words[..count], shape, device))
        };
        let all = |device: &Device| {
            let ((a, m), (b, n)) = (part(left, device), part(right, device));
            let mut found: Vec<Vec<f32>> = Vec::new();
            for compare in compare {
                found.push(f32s(&compare(&a, &b).cast(DType::F32)));
                found.push(f32s(&compare(&m, &n).cast(DType::F32)));
                found.push(f32s(&compare(&a, &b).select(&a, &b)));
                found.push(f32s(&compare(&b, &a).select(&b, &a.constant_like(0.25))));
                found.push(f32s(&compare(&m, &n).select(&b, &a)));
                found.push(f32s(&compare(&a, &a).select(&b, &a)));
                found.push(f32s(&compare(&a, &b).select(&m, &n).less(&m).cast(DType::F32)));
                found.push(f32s(&compare(&a, &b).t().select(&a.t(), &b.t())));
            }
            found
        };
        assert_eq!(all(&gpu), all(&cpu), "{left:?} and {right:?}");
    }
}
