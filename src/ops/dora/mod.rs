//! A low-rank adapter whose outputs have lengths of their own (Liu et al., "DoRA", 2024, equation 5):
//! `f ∘ (x W + s (x A) B) + b`, with f a length divided by the norm of the adapted matrix's column.
//!
//! The product before scaling is as wide as the result. It is not kept: backward computes it again, some rows at a time.

mod cpu;
mod gpu;

use super::lora::{self, Lora};
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Factors, Fused, GpuBackward, Saved, SavedArrays, Saves};
use crate::device::cpu::Start;
use crate::device::{Array, Spec};
use crate::float;
use crate::tensor::Tensor;

/// `f ∘ (x W + s (x A) B) + b`; operands are x, W, A and B as [`Lora`] has them, f `[out]`, and, if any, b `[out]`.
#[derive(Clone, Copy, Debug)]
pub struct Dora(
    /// The map whose outputs are scaled.
    pub Lora,
);

impl Op for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let result = self.0.result(ins)?;
        let width = result.shape.last_size();
        match ins[4..].iter().find(|row| row.shape[..] != [width]) {
            Some(wrong) => Err(format!("a factor or bias of shape {:?} for {width} outputs", wrong.shape)),
            None => Ok(result),
        }
    }

    fn contiguous(&self) -> bool {
        true
    }

    /// `s x A`.
    fn residuals(&self, ins: &[Spec]) -> Vec<Spec> {
        vec![self.0.narrow(ins)]
    }

    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        self.0.scratch(ins)
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        float!(ins[0].dtype(), T => {
            let (factor, bias) = (ins[4].slice::<T>(), ins.get(5).map(|bias| bias.slice::<T>()));
            lora::cpu::forward::<T>(&self.0, ins, Start::Nothing, out, |y| cpu::scale(y, factor, bias))
        })
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins, out);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Fused(self)
    }

    fn factors(&self, i: usize, saved: &Saved, dy: &Tensor) -> Option<Factors> {
        (i == 1).then(|| self.0.factors(1, saved, &(dy * saved.input(4))))?
    }
}

impl Fused for Dora {
    fn composition(&self, ins: &[Tensor]) -> Tensor {
        let y = self.0.composition(&ins[..4]) * &ins[4];
        ins.get(5).map_or_else(|| y.clone(), |bias| &y + bias)
    }

    fn saves(&self, needs: &[bool]) -> Saves {
        let [x, w, a, b, f] = [0, 1, 2, 3, 4].map(|i| needs[i]);
        let wanted = [w || a || b || f, x || f, x || b || f, x || a || f, x || w || a || b];
        let which: Vec<usize> = (0..5).filter(|&i| wanted[i]).collect();
        Saves::inputs(&which)
    }

    fn backward(&self, saved: &SavedArrays<'_>, c: &Array, grads: &mut [Option<Array>], scratch: Option<&mut Array>) {
        float!(c.dtype(), T => cpu::backward::<T>(self, saved, c, grads, scratch.expect("declared")))
    }

    fn backward_scratch(&self, ins: &[Spec]) -> Option<Spec> {
        Some(cpu::backward_scratch(ins[0].dtype, &self.0.sizes(ins)))
    }

    fn formula(&self, saved: &Saved, c: &Tensor, needs: &[bool]) -> Option<Vec<Option<Tensor>>> {
        let mut grads = match needs[..4].contains(&true) {
            true => self.0.formula(saved, &(c * saved.input(4)), &needs[..4])?,
            false => vec![None; 4],
        };
        grads.push(needs[4].then(|| {
            let z = Tensor::apply(self.0, &[0, 1, 2, 3].map(|i| saved.input(i)));
            (c * &z).rows().sum(&[0])
        }));
        grads.extend(needs.get(5).map(|&needed| needed.then(|| c.rows().sum(&[0]))));
        Some(grads)
    }

    fn gpu(&self) -> Option<&dyn GpuBackward> {
        Some(self)
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sample = |transposed, adapter_transposed, lead: &[usize], sides: [usize; 3], bias: bool| {
        let op = Lora { scale: 0.7, transposed, adapter_transposed };
        let mut ins = lora::operands(&op, lead, sides);
        ins.extend((0..1 + usize::from(bias)).map(|_| Input::normal([sides[1]])));
        Sample::new(Dora(op), ins)
    };
    vec![
        sample(false, false, &[2, 3], [4, 5, 2], false),
        sample(true, false, &[2, 3], [4, 5, 2], true),
        sample(true, true, &[3], [4, 5, 1], true),
    ]
}
