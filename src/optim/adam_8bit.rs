//! Adam with eight bits for each number of its state.

use super::adam::Formula;
use super::dynamic::Dynamic;
use super::{Adam, At, Now, Numbers, Slot, Transform, Turn};
use crate::device::kernel::Kernel;
use crate::device::{Array, Spec, cpu};
use crate::dtype::DType;
use crate::float;
use crate::scalar::Float;

/// [`Adam`] with both means stored in blocks of 256 numbers of eight bits, times the largest magnitude of each (Dettmers
/// et al., "8-bit optimizers via block-wise quantization", 2022, section 2): the first by dynamic trees with a sign, the
/// second by those without. The update is that of means before they are rounded. State: 2 bytes a parameter, and 8 for
/// each block; parameters of fewer than 4096 elements keep single precision, as in the published code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adam8bit(
    /// Decays, and what is added to the root.
    pub Adam,
);

/// Elements of a block, and words that hold its codes.
const BLOCK: usize = 256;
const WORDS: usize = BLOCK / 4;
/// Fewest elements of what is stored in eight bits.
const LEAST: usize = 4096;
/// Blocks that are worth a task of their own.
const TASK: usize = 16;

/// Whether the state of such a parameter is in eight bits.
fn in_blocks(count: usize) -> bool {
    count >= LEAST
}

impl Transform for Adam8bit {
    fn state(&self, parameter: &Spec) -> Vec<Slot> {
        let count = parameter.shape.count();
        if !in_blocks(count) {
            return self.0.state(parameter);
        }
        let codes = Spec::new(DType::U32, [count.div_ceil(4)]);
        let scales = Spec::new(parameter.dtype, [count.div_ceil(BLOCK)]);
        vec![("m", codes), ("m_scale", scales), ("v", codes), ("v_scale", scales)]
    }

    fn update(&self, at: &At<'_>, state: &mut [Array], mut gradient: Array) -> Array {
        if !in_blocks(gradient.count()) {
            return self.0.update(at, state, gradient);
        }
        if let Some(numbers) = at.now.numbers {
            self.record(numbers, state, &mut gradient, at.first);
        } else if gradient.device().computes() {
            float!(gradient.dtype(), T => {
                let formula = Formula::<T>::new(&self.0, at.now.step, at.factor());
                write(&formula, state, gradient.slice_mut());
            });
        }
        gradient
    }

    fn decays(&self) -> Option<[f64; 2]> {
        self.0.decays()
    }

    fn step(&self, now: &Now<'_>, turns: &mut [Turn<'_>]) {
        turns.sort_by_key(|turn| in_blocks(turn.weight.count()));
        let (small, large) = turns.split_at_mut(turns.partition_point(|turn| !in_blocks(turn.weight.count())));
        self.0.step(now, small);
        for turn in large {
            let gradient = turn.gradient();
            let update = self.update(&now.at(turn.weight, turn.seed), turn.state, gradient);
            now.subtract(turn, &update);
        }
    }
}

/// Writes updates over gradients; moves the means.
fn write<T: Float>(formula: &Formula<T>, state: &mut [Array], gradient: &mut [T]) {
    let [m, m_scale, v, v_scale] = state else { unreachable!("four slots") };
    let codes = m.slice_mut::<u32>().chunks_mut(TASK * WORDS).zip(v.slice_mut::<u32>().chunks_mut(TASK * WORDS));
    let scales = m_scale.slice_mut::<T>().chunks_mut(TASK).zip(v_scale.slice_mut::<T>().chunks_mut(TASK));
    let tasks = gradient.chunks_mut(TASK * BLOCK).zip(codes.zip(scales)).collect();
    let maps = [Dynamic::signed(), Dynamic::unsigned()];
    cpu::each(tasks, |(g, ((m, v), (m_scale, v_scale)))| {
        let codes = m.chunks_mut(WORDS).zip(v.chunks_mut(WORDS));
        let scales = m_scale.iter_mut().zip(v_scale);
        for ((g, (m, v)), (m_scale, v_scale)) in g.chunks_mut(BLOCK).zip(codes).zip(scales) {
            block(formula, &maps, g, [m, v], [m_scale, v_scale]);
        }
    });
}

fn block<T: Float>(
    formula: &Formula<T>,
    maps: &[Dynamic<T>; 2],
    g: &mut [T],
    codes: [&mut [u32]; 2],
    scales: [&mut T; 2],
) {
    let mut means = [[T::zero(); BLOCK]; 2];
    for ((mean, map), (codes, scale)) in means.iter_mut().zip(maps).zip(codes.iter().zip(&scales)) {
        for (i, mean) in mean[..g.len()].iter_mut().enumerate() {
            *mean = map.number(codes[i / 4] >> (8 * (i % 4))) * **scale;
        }
    }
    let [m, v] = &mut means;
    for ((g, m), v) in g.iter_mut().zip(m).zip(v) {
        *g = formula.update(*g, m, v);
    }
    for ((mean, map), (codes, scale)) in means.iter().zip(maps).zip(codes.into_iter().zip(scales)) {
        let most = mean.iter().fold(T::zero(), |most, x| x.abs().larger(most));
        *scale = most;
        codes.fill(0);
        for (i, x) in mean[..g.len()].iter().enumerate() {
            let scaled = if most > T::zero() { *x / most } else { T::zero() };
            codes[i / 4] |= map.code(scaled) << (8 * (i % 4));
        }
    }
}

impl Adam8bit {
    /// A workgroup for each block.
    fn record(&self, numbers: &Numbers, state: &mut [Array], gradient: &mut Array, first: bool) {
        let [m, m_scale, v, v_scale] = state else { unreachable!("four slots") };
        // As many blocks as have scales that begin where a part may.
        for part in gradient.parts(BLOCK * crate::device::part::unit(4)) {
            let count = part.len();
            let codes = part.start / 4..part.end.div_ceil(4);
            let scales = part.start / BLOCK..part.end.div_ceil(BLOCK);
            let kernel = Kernel::new("adam_8bit", "adam").name("FIRST", first);
            let kernel = kernel.name("LANES", "256u").name("LANE_STEP", "1u").write_part(gradient, part);
            let kernel = kernel.write_part(m, codes.clone()).write_part(m_scale, scales.clone());
            let kernel = kernel.write_part(v, codes).write_part(v_scale, scales).read(&numbers.found);
            self.0.decays_of(kernel.word(count)).run(count.div_ceil(BLOCK));
        }
    }
}
