//! What elementwise kernels share: on the host, chunks in parallel, each read contiguously, compiled for SIMD; on a GPU
//! `shaders/elementwise.wgsl`.

use super::walk::{CHUNK, Reader};
use crate::device::cpu::row;
use crate::device::kernel::Kernel;
use crate::device::part::Piece;
use crate::device::{Array, cpu};
use crate::dtype::{DType, Element};

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

/// `y = f(y, x)`, `x` broadcast to the result.
pub(crate) fn update<T: Element>(x: &Array, y: &mut Array, f: impl Fn(T, T) -> T + Sync + Send) {
    let x = x.broadcast(y.shape());
    let x = Reader::<T>::new(&x);
    cpu::blocks_into(y.slice_mut::<T>(), TASK, |task, out| {
        let mut space = [T::from_f64(0.0); CHUNK];
        for (i, out) in out.chunks_mut(CHUNK).enumerate() {
            let x = x.read(task * TASK + i * CHUNK, out.len(), &mut space);
            cpu::simd(
                #[inline(always)]
                || {
                    for (y, x) in out.iter_mut().zip(x) {
                        *y = f(*y, *x);
                    }
                },
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

/// `y = function(ins…)` on a GPU; `function` is one of `shaders/functions.wgsl`. Operands are broadcast to the result.
pub(crate) fn record(function: &str, ins: &[&Array], y: &mut Array) {
    const ENTRIES: [(&str, &str, &str); 3] = [
        ("ONE", "dense_one", "strided_one"),
        ("TWO", "dense_two", "strided_two"),
        ("THREE", "dense_three", "strided_three"),
    ];
    run(ENTRIES[ins.len() - 1], function, ins, y);
}

/// `y = function(y, x)` on a GPU.
pub(crate) fn record_update(function: &str, x: &Array, y: &mut Array) {
    run(("UPDATE", "dense_update", "strided_update"), function, &[x], y);
}

fn run(entries: (&str, &'static str, &'static str), function: &str, ins: &[&Array], y: &mut Array) {
    let ins: Vec<Array> = ins.iter().map(|x| x.broadcast(y.shape())).collect();
    for piece in Piece::cut(&ins.iter().collect::<Vec<_>>(), y) {
        run_piece(entries, function, &ins, y, &piece);
    }
}

fn run_piece(
    (kind, dense, strided): (&str, &'static str, &'static str),
    function: &str,
    ins: &[Array],
    y: &mut Array,
    piece: &Piece,
) {
    let (count, result, steps) = (piece.count, wgsl(y.dtype()), piece.views.dense());
    let (entry, threads) = if steps.is_some() { (dense, count.div_ceil(4)) } else { (strided, count) };
    let mut kernel = piece.bind(Kernel::new("elementwise", entry).name("Y", result), y, ins);
    for (other, none) in [("ONE", "none_one"), ("TWO", "none_two"), ("THREE", "none_three"), ("UPDATE", "none_update")]
    {
        kernel = kernel.name(other, if other == kind { function } else { none });
    }
    for (i, (kind, step)) in [("A", "A_STEP"), ("B", "B_STEP"), ("C", "C_STEP")].into_iter().enumerate() {
        // What an entry has no operand for is still in its file.
        kernel = kernel.name(kind, ins.get(i).map_or("u32", |x| wgsl(x.dtype())));
        kernel = kernel.name(step, steps.as_ref().and_then(|steps| steps.get(i)).copied().unwrap_or(0));
    }
    piece.views.fill(kernel, count).run(threads.div_ceil(256));
}

/// The same elements row by row, of any type, on a GPU.
pub(crate) fn record_copy(x: &Array, y: &mut Array) {
    for piece in Piece::cut(&[x], y) {
        let count = piece.count;
        let (entry, threads) = match piece.views.dense().is_some_and(|steps| steps[0] == 1) {
            _ if x.dtype().size() == 2 => ("halves", count.div_ceil(2)),
            true => ("dense", count.div_ceil(4)),
            false => ("strided", count),
        };
        let kernel = piece.bind(Kernel::new("copy", entry), y, [x]).words([0; 4]);
        piece.views.fill(kernel, count).run(threads.div_ceil(256));
    }
}

/// Conversion on a GPU.
pub(crate) fn record_cast(x: &Array, y: &mut Array) {
    // Brain floats have fewer bits than singles at the same range: rounding twice would show.
    let odd = if (x.dtype(), y.dtype()) == (DType::U32, DType::BF16) { "_odd" } else { "" };
    let (read, write) = (format!("read_{}{odd}", x.dtype()), format!("write_{}", y.dtype()));
    for piece in Piece::cut(&[x], y) {
        let count = piece.count;
        let (entry, threads) = match y.dtype().size() {
            2 => ("cast_to_halves", count.div_ceil(2)),
            _ => ("cast_to_words", count),
        };
        let kernel = piece.bind(Kernel::new("cast", entry).name("READ", &read).name("WRITE", &write), y, [x]);
        piece.views.fill(kernel, count).run(threads.div_ceil(256));
    }
}

/// The shader type of elements.
pub(super) fn wgsl(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::U32 => "u32",
        other => panic!("no arithmetic on {other} on a GPU: cast to f32 first"),
    }
}
