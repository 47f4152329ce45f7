//! One dispatch as data: which entry of which shader, on what, with which numbers. Ops describe their GPU kernels with
//! it, and never see the library behind.

use super::Array;
use super::part::{unit, window};
use crate::shape::MAX_DIMS;
use std::ops::Range;

/// Most words of parameters: what every adapter with immediates has room for.
pub(super) const MAX_WORDS: usize = 32;

/// What tells compiled kernels apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelKey {
    /// File of `shaders/`.
    pub shader: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Names filled in.
    pub names: Vec<(&'static str, String)>,
}

/// A storage as a kernel sees it: these elements of it, or all.
pub(super) struct Binding<'a> {
    pub(super) array: &'a Array,
    pub(super) part: Option<Range<usize>>,
}

/// A kernel of `shaders/`, about to be recorded. Results are bound from 0 on, in the order of [`Kernel::write`];
/// operands follow, in the order of [`Kernel::read`]. Words fill the shader's `Params`, in order.
pub struct Kernel<'a> {
    pub(super) key: KernelKey,
    pub(super) writes: Vec<Binding<'a>>,
    pub(super) reads: Vec<Binding<'a>>,
    pub(super) words: Vec<u32>,
}

impl<'a> Kernel<'a> {
    /// Entry `entry` of `shaders/{shader}.wgsl`.
    pub fn new(shader: &'static str, entry: &'static str) -> Kernel<'a> {
        let key = KernelKey { shader, entry, names: Vec::new() };
        Kernel { key, writes: Vec::new(), reads: Vec::new(), words: Vec::new() }
    }

    /// What an upper-case name in the shader's text stands for: a number, a type, a function.
    pub fn name(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.key.names.push((name, value.to_string()));
        self
    }

    /// An array that the kernel writes, or reads and writes. It must have its storage for itself.
    pub fn write(mut self, array: &'a mut Array) -> Self {
        assert!(array.owned(), "kernels write whole storages that nothing else refers to");
        self.writes.push(Binding { array, part: None });
        self
    }

    /// Elements of it alone: the shader counts from the first of them, which is a multiple of 256 bytes in.
    #[track_caller]
    pub fn write_part(mut self, array: &'a mut Array, part: Range<usize>) -> Self {
        self = self.write(array);
        if let Some(binding) = self.writes.last_mut() {
            binding.part = aligned(binding.array, part);
        }
        self
    }

    /// The same for elements that begin anywhere: the shader has to know how far inside a unit of [`part::unit`] they do.
    ///
    /// [`part::unit`]: super::part::unit
    pub fn write_reach(self, array: &'a mut Array, part: Range<usize>) -> Self {
        let from = part.start - part.start % unit(array.dtype().size());
        self.write_part(array, from..part.end)
    }

    /// An array that it reads. Its offset and steps are the shader's business: pass them as words.
    pub fn read(mut self, array: &'a Array) -> Self {
        self.reads.push(Binding { array, part: None });
        self
    }

    /// Elements of its storage alone: the shader counts from the first of them, which is a multiple of 256 bytes in.
    #[track_caller]
    pub fn read_part(mut self, array: &'a Array, part: Range<usize>) -> Self {
        self.reads.push(Binding { array, part: aligned(array, part) });
        self
    }

    /// An array that it reads, and no more than that of a storage too large to be bound. It begins at [`Array::start`].
    pub fn read_view(self, array: &'a Array) -> Self {
        match array.fits() {
            true => self.read(array),
            false => self.read_part(array, window(array.reach(), array.dtype().size())),
        }
    }

    /// A count, size, offset or step.
    #[track_caller]
    pub fn word(mut self, word: usize) -> Self {
        self.words.push(u32::try_from(word).expect("counts on a GPU have 32 bits"));
        self
    }

    /// Several.
    #[track_caller]
    pub fn words(self, words: impl IntoIterator<Item = usize>) -> Self {
        words.into_iter().fold(self, Kernel::word)
    }

    /// A number, in single precision.
    pub fn float(mut self, x: f64) -> Self {
        self.words.push((x as f32).to_bits());
        self
    }

    /// Records it for `groups` workgroups. Beyond what one dimension may have they are folded into two, and the
    /// shader counts `workgroup_id.x + workgroup_id.y * num_workgroups.x`, which may pass `groups`. The null device only
    /// notes which kernel it was.
    #[track_caller]
    pub fn run(self, groups: usize) {
        assert!(self.words.len() <= MAX_WORDS, "{} parameters of {}", self.words.len(), self.key.shader);
        if groups == 0 {
            return;
        }
        let device = self.writes[0].array.device();
        #[cfg(feature = "gpu")]
        if let Some(gpu) = device.gpu() {
            const MOST: usize = 65_535;
            let rows = groups.div_ceil(MOST);
            return gpu.dispatch(self, [groups.div_ceil(rows), rows].map(|side| side as u32));
        }
        device.note(self.key);
    }
}

/// None where all of a storage can be bound as well.
#[track_caller]
fn aligned(array: &Array, part: Range<usize>) -> Option<Range<usize>> {
    assert!(part.start.is_multiple_of(unit(array.dtype().size())), "part {part:?} begins inside a unit");
    (part.start > 0 || !array.fits()).then_some(part)
}

/// Up to three views of one shape, read in the order of a contiguous result: what `shaders/view.wgsl` takes.
/// Dimensions that lie behind each other in all of them are merged.
#[derive(Clone)]
pub struct Views {
    pub(super) offsets: Vec<usize>,
    /// Size and steps of each dimension, innermost first.
    pub(super) dims: Vec<(usize, Vec<usize>)>,
}

impl Views {
    /// Views that already have the result's shape.
    pub fn new(views: &[&Array]) -> Views {
        let mut dims: Vec<(usize, Vec<usize>)> = Vec::new();
        let shape = views[0].shape();
        for axis in (0..shape.len()).rev().filter(|&axis| shape[axis] != 1) {
            let steps: Vec<usize> = views.iter().map(|view| view.strides()[axis] as usize).collect();
            match dims.last_mut() {
                Some((size, inner)) if inner.iter().zip(&steps).all(|(inner, step)| inner * *size == *step) => {
                    *size *= shape[axis];
                }
                _ => dims.push((shape[axis], steps)),
            }
        }
        Views { offsets: views.iter().map(|view| view.offset()).collect(), dims }
    }

    /// Step of each operand if all lie like the result, in whole fours, or are a single element; else none.
    pub fn dense(&self) -> Option<Vec<usize>> {
        let steps = match &self.dims[..] {
            [] => vec![0; self.offsets.len()],
            [(_, steps)] => steps.clone(),
            _ => return None,
        };
        let fits = |(step, offset): (&usize, &usize)| *step == 0 || (*step == 1 && offset % 4 == 0);
        steps.iter().zip(&self.offsets).all(fits).then_some(steps)
    }

    /// Fills in `DIMS` and a `View` for `count` elements.
    pub fn fill<'a>(&self, kernel: Kernel<'a>, count: usize) -> Kernel<'a> {
        let dims = self.dims.len().max(1);
        let size = |i: usize| if i + 1 < dims { self.dims[i].0 } else { 1 };
        // The outermost dimension's step comes last, wherever the others end.
        let place = |i: usize| if i == MAX_DIMS - 1 { dims - 1 } else { i };
        let step = |operand: usize, i: usize| match self.dims.get(place(i)) {
            Some((_, steps)) if i == MAX_DIMS - 1 || i + 1 < dims => steps.get(operand).copied().unwrap_or(0),
            _ => 0,
        };
        let offsets = (0..3).map(|operand| self.offsets.get(operand).copied().unwrap_or(0));
        let steps = (0..3).flat_map(|operand| (0..MAX_DIMS).map(move |i| (operand, i)));
        let kernel = kernel.name("DIMS", dims).word(count).words(offsets).words((0..MAX_DIMS - 1).map(size));
        kernel.words(steps.map(|(operand, i)| step(operand, i)))
    }
}
