//! Reading strided operands: kernels see contiguous chunks, whatever the layout behind.

use crate::device::Array;
use crate::dtype::Element;

/// Longest run handed to a kernel at once; small enough for the stack and the first-level cache.
pub(crate) const CHUNK: usize = 512;

/// An operand read in the order of a contiguous result.
pub(crate) struct Reader<'a, T> {
    data: &'a [T],
    /// Dimensions after merging those that lie behind each other: (size, step), innermost last.
    dims: Vec<(usize, isize)>,
}

impl<'a, T: Element> Reader<'a, T> {
    /// Reads `x`, already broadcast to the result's shape.
    pub fn new(x: &'a Array) -> Self {
        let mut dims: Vec<(usize, isize)> = Vec::new();
        for (&size, &step) in x.shape().iter().zip(x.strides().iter()).filter(|(size, _)| **size != 1) {
            match dims.last_mut() {
                Some(outer) if outer.1 == step * size as isize => *outer = (outer.0 * size, step),
                _ => dims.push((size, step)),
            }
        }
        Reader { data: x.raw(), dims }
    }

    /// Elements `start .. start + length` of the result's order: in place if they lie so, else gathered in `space`.
    #[inline(always)]
    pub fn read<'b>(&'b self, start: usize, length: usize, space: &'b mut [T; CHUNK]) -> &'b [T] {
        match self.dims[..] {
            [] => {
                space[..length].fill(self.data[0]);
                &space[..length]
            }
            [(_, 1)] => &self.data[start..start + length],
            _ => {
                self.gather(start, &mut space[..length]);
                &space[..length]
            }
        }
    }

    fn gather(&self, start: usize, out: &mut [T]) {
        let (&(inner, step), outer) = self.dims.split_last().expect("scalars are read elsewhere");
        let mut done = 0;
        while done < out.len() {
            let at = start + done;
            let column = at % inner;
            let run = (inner - column).min(out.len() - done);
            let first = self.row(at / inner, outer) + column as isize * step;
            self.copy_run(first, step, &mut out[done..done + run]);
            done += run;
        }
    }

    /// Where row `index` begins.
    fn row(&self, mut index: usize, outer: &[(usize, isize)]) -> isize {
        let mut at = 0;
        for &(size, step) in outer.iter().rev() {
            at += (index % size) as isize * step;
            index /= size;
        }
        at
    }

    fn copy_run(&self, first: isize, step: isize, out: &mut [T]) {
        match step {
            0 => out.fill(self.data[first as usize]),
            1 => out.copy_from_slice(&self.data[first as usize..first as usize + out.len()]),
            _ => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = self.data[(first + i as isize * step) as usize];
                }
            }
        }
    }
}
