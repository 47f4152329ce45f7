//! Matrix products on a GPU: each kernel's rate at 512³, and that of the chosen one at shapes of training.
//!
//! `ECKART_DEVICE=llvmpipe cargo bench --bench gpu` takes the device of that name; the default is the best GPU.

use eckart::device::gpu::Gpu;
use eckart::ops::Input;
use eckart::ops::matmul::{Family, gpu_product};
use eckart::{Array, DType, Device, Seed, Spec};
use std::time::Instant;

/// Time that one measurement takes at least, in seconds, and measurements of each product.
const LEAST: f64 = 0.05;
const ROUNDS: usize = 9;

/// A product of one shape by one kernel.
struct Case {
    name: String,
    a: Array,
    b: Array,
    y: Array,
    family: Option<Family>,
}

impl Case {
    /// [m, k] times [k, n]; an operand is stored transposed where told.
    fn new(device: &Device, [m, k, n]: [usize; 3], transposed: [bool; 2], family: Option<Family>) -> Case {
        let operand = |rows: usize, columns: usize, transposed: bool| {
            let shape = if transposed { [columns, rows] } else { [rows, columns] };
            let x = Input::range(shape, -1.0, 1.0).tensor(Seed(1), DType::F32, device);
            if transposed { x.t().into_array() } else { x.into_array() }
        };
        let mark = |transposed| if transposed { "ᵀ" } else { "" };
        let kernel = family.map_or("chosen".to_owned(), |family| format!("{family:?}"));
        let name = format!("{m}×{k}{} · {k}×{n}{}, {kernel}", mark(transposed[0]), mark(transposed[1]));
        let y = device.alloc(Spec::new(DType::F32, [m, n]));
        Case { name, a: operand(m, k, transposed[0]), b: operand(k, n, transposed[1]), y, family }
    }

    /// Seconds for one product, from `count` in a row.
    fn time(&mut self, gpu: &Gpu, count: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..count {
            gpu_product(&self.a, &self.b, &mut self.y, None, false, self.family);
        }
        gpu.wait().expect("the device computes");
        start.elapsed().as_secs_f64() / count as f64
    }

    fn row(&self, times: &mut [f64]) {
        times.sort_by(f64::total_cmp);
        let (m, k, n) = (self.a.shape()[0], self.a.shape()[1], self.b.shape()[1]);
        let [least, median, most] = [0, times.len() / 2, times.len() - 1].map(|i| times[i]);
        let rate = |work: usize| work as f64 / median * 1e-9;
        let (flops, bytes) = (rate(2 * m * k * n), rate(4 * (m * k + k * n + m * n)));
        let [least, median, most] = [least, median, most].map(|time| time * 1e3);
        println!("{:44} {median:9.3} {least:9.3} {most:9.3} {flops:10.1} {bytes:9.1}", self.name);
    }
}

/// Measures interleaved, so that all see the same machine.
fn measure(gpu: &Gpu, mut cases: Vec<Case>) {
    let counts: Vec<usize> = cases
        .iter_mut()
        .map(|case| {
            case.time(gpu, 1);
            (LEAST / case.time(gpu, 1)).ceil().clamp(1.0, 1000.0) as usize
        })
        .collect();
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((case, times), count) in cases.iter_mut().zip(&mut times).zip(&counts) {
            times.push(case.time(gpu, *count));
        }
    }
    cases.iter().zip(&mut times).for_each(|(case, times)| case.row(times));
}

fn main() {
    let name = std::env::var("ECKART_DEVICE").unwrap_or("gpu".to_owned());
    let device = Device::by_name(&name).unwrap_or_else(|error| panic!("{error}"));
    let gpu = device.gpu().expect("a GPU");
    println!("{} ({})", gpu.about().name, gpu.about().driver);
    println!("{:44} {:>9} {:>9} {:>9} {:>10} {:>9}", "", "median ms", "least", "most", "GFLOP/s", "GB/s");
    let families =
        [Family::Naive, Family::Direct, Family::Tiles(32, 32), Family::Tiles(64, 64), Family::Tiles(128, 128)];
    let families = families.map(Some).into_iter().chain([None]);
    measure(gpu, families.map(|family| Case::new(&device, [512; 3], [false; 2], family)).collect());
    let large = if gpu.about().is_hardware() { 4096 } else { 1024 };
    let rank = 8;
    for (shape, transposed) in [
        ([large, large, large], [false, false]),
        ([large, large, large], [false, true]),
        ([large, large, large], [true, false]),
        ([large, large, rank], [false, false]),
        ([large, rank, large], [false, false]),
        ([rank, large, large], [true, false]),
        ([large, large, rank], [true, false]),
        ([large, large, 1], [false, false]),
        ([1, large, large], [false, false]),
    ] {
        measure(gpu, vec![Case::new(&device, shape, transposed, None)]);
    }
}
