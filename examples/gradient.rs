//! Gradients: of leaves, of intermediate values, and of gradients.

use eckart::autograd::{grad, jvp};
use eckart::{Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::new(&[0.5, -1.0, 2.0], [3], &device).leaf();
    let y = (x.sin() * &x).sum_all();
    let first = grad(&y, &[&x], true);
    println!("y  = {:.6}", y.item()?);
    println!("y' = {:?}", first[0].to_vec::<f64>()?);

    // A differentiable gradient carries a trace of its own.
    let second = grad(&first[0].sum_all(), &[&x], false);
    println!("y'' = {:?}", second[0].to_vec::<f64>()?);

    // Forward mode: value and directional derivative in one pass, without a trace.
    let v = Tensor::new(&[1.0, 0.0, 0.0], [3], &device);
    let (_, along) = jvp(|x| (x[0].sin() * &x[0]).sum_all(), &[x.detach()], &[vec![Some(v)]]);
    println!("along the first axis: {:.6}", along[0].item()?);
    Ok(())
}
