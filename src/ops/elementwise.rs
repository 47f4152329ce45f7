//! Loops shared by elementwise kernels: chunks in parallel, each read contiguously, compiled for SIMD.

use super::walk::{CHUNK, Reader};
use crate::device::cpu::row;
use crate::device::{Array, cpu};
use crate::dtype::Element;

/// Chunks that one task takes.
const TASK: usize = 32 * CHUNK;

/// `y = f(a)`.
pub(crate) fn map<A: Element, Y: Element>(a: &Array, y: &mut Array, f: impl Fn(A) -> Y + Sync + Send) {
    let a = Reader::<A>::new(a);
    cpu::blocks_into(y.slice_mut::<Y>(), TASK, |task, out| {
        let mut space = [A::from_f64(0.0); CHUNK];
        for (i, out) in out.chunks_mut(CHUNK).enumerate() {
            let a = a.read(task * TASK + i * CHUNK, out.len(), &mut space);
            cpu::simd(
                #[inline(always)]
                || {
                    for (y, a) in out.iter_mut().zip(a) {
                        *y = f(*a);
                    }
                },
            );
        }
    });
}

/// `y = f([a, b, …])`, all operands broadcast to the result.
pub(crate) fn combine<const N: usize, T: Element, Y: Element>(
    ins: [&Array; N],
    y: &mut Array,
    f: impl Fn([T; N]) -> Y + Sync + Send,
) {
    let ins = ins.map(|x| x.broadcast(y.shape()));
    let ins = ins.each_ref().map(Reader::<T>::new);
    cpu::blocks_into(y.slice_mut::<Y>(), TASK, |task, out| {
        let mut spaces = [[T::from_f64(0.0); CHUNK]; N];
        for (i, out) in out.chunks_mut(CHUNK).enumerate() {
            let start = task * TASK + i * CHUNK;
            let mut reads: [&[T]; N] = [&[]; N];
            for ((read, x), space) in reads.iter_mut().zip(&ins).zip(&mut spaces) {
                *read = x.read(start, out.len(), space);
            }
            cpu::simd(
                #[inline(always)]
                || row::map(reads, out, &f),
            );
        }
    });
}

/// `y = if mask { a } else { b }`, all operands broadcast to the result; a mask is 0 or not.
pub(crate) fn select<T: Element>(mask: &Array, a: &Array, b: &Array, y: &mut Array) {
    let [mask, a, b] = [mask, a, b].map(|x| x.broadcast(y.shape()));
    let (mask, a, b) = (Reader::<u32>::new(&mask), Reader::<T>::new(&a), Reader::<T>::new(&b));
    cpu::blocks_into(y.slice_mut::<T>(), TASK, |task, out| {
        let mut spaces = ([0; CHUNK], [T::from_f64(0.0); CHUNK], [T::from_f64(0.0); CHUNK]);
        for (i, out) in out.chunks_mut(CHUNK).enumerate() {
            let start = task * TASK + i * CHUNK;
            let mask = mask.read(start, out.len(), &mut spaces.0);
            let a = a.read(start, out.len(), &mut spaces.1);
            let b = b.read(start, out.len(), &mut spaces.2);
            for (((y, mask), a), b) in out.iter_mut().zip(mask).zip(a).zip(b) {
                *y = if *mask != 0 { *a } else { *b };
            }
        }
    });
}
