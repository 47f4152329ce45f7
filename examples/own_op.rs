//! An op of one's own: softplus(x) = ln(1 + eˣ), with its rule, proven by the public checker, and then used.
//!
//! `cargo run --release --example own_op`

use eckart::autograd::{Derivative, Local, backward};
use eckart::check;
use eckart::ops::{Input, Op, Outputs, Sample};
use eckart::{Array, Device, Seed, Spec, Tensor};

#[derive(Debug)]
struct Softplus;

impl Op for Softplus {
    fn name(&self) -> &'static str {
        "softplus"
    }

    /// Same type and shape as the operand.
    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        match ins[0].dtype.computes() {
            true => Ok(ins[0]),
            false => Err(format!("no arithmetic on {}", ins[0].dtype)),
        }
    }

    /// The kernel then reads its operand as a slice.
    fn contiguous(&self) -> bool {
        true
    }

    /// max(x, 0) + ln(1 + e^−|x|): nothing overflows.
    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        eckart::float!(ins[0].dtype(), T => {
            for (y, x) in out.y.slice_mut::<T>().iter_mut().zip(ins[0].slice::<T>()) {
                *y = x.max(0.0) + (-x.abs()).exp().ln_1p();
            }
        })
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Elementwise(self)
    }
}

/// The slope is σ(x). Said in tensor operations, it runs on every device and can be differentiated again.
impl Local for Softplus {
    fn saves_output(&self) -> bool {
        false
    }

    fn slope(&self, x: &Tensor) -> Tensor {
        x.sigmoid()
    }
}

fn softplus(x: &Tensor) -> Tensor {
    Tensor::apply(Softplus, &[x])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let report = check::sample(&Sample::new(Softplus, [Input::range([3, 4], -4.0, 4.0)]), Seed(0));
    report.verdict()?;
    for kind in check::Kind::ALL {
        if let Some(error) = report.worst(kind) {
            println!("{:12} {error:.0e}, at most {:.0e} allowed", kind.name(), kind.bound());
        }
    }

    // A weight that makes softplus(2 w) equal 1, by ten steps of Newton's kind: w ← w − (y − 1) / y'.
    let device = Device::cpu();
    let mut w = Tensor::scalar(0.0, &device);
    for _ in 0..10 {
        let y = softplus(&(w.leaf() * 2.0));
        let gap = &y.detach() - 1.0;
        let mut slope = None;
        backward(y, &mut |_, gradient| slope = gradient.densify());
        w = &w - &(gap / slope.ok_or("softplus depends on its operand")?);
    }
    println!("softplus(2 · {:.6}) = {:.6}", w.item()?, softplus(&(&w * 2.0)).item()?);
    Ok(())
}
