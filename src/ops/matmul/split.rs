//! Products of which a kernel cannot bind all that is stored: they are cut until it can.

use super::gpu::Product;
use super::plan::Plan;
use crate::device::{Array, part};
use crate::shape::Shape;

/// `y = a b`, plus `bias`, plus what `y` holds if `add`, into the elements from `start` on, by kernels like that of
/// `plan`, which is for the whole.
pub(super) fn run(a: &Array, b: &Array, y: &mut Array, start: usize, bias: Option<&Array>, add: bool, plan: &Plan) {
    let row = b.shape().last_size();
    let piece = Piece { a: a.clone(), b: b.clone(), bias: bias.cloned(), add, start, row };
    piece.run(y, plan);
}

/// What a product can be cut along.
#[derive(Clone, Copy, PartialEq)]
enum Axis {
    /// The outermost dimension of batches that has several.
    Batch,
    Rows,
    Columns,
    /// The second half is added to the first.
    Depth,
}

/// A part of a product.
struct Piece {
    a: Array,
    b: Array,
    bias: Option<Array>,
    add: bool,
    /// First element of its result, and elements from row to row.
    start: usize,
    row: usize,
}

impl Piece {
    fn run(self, y: &mut Array, whole: &Plan) {
        let halves = self.longest(y).and_then(|axis| self.halves(axis));
        if let Some(halves) = halves {
            return halves.into_iter().for_each(|half| half.run(y, whole));
        }
        // What is still too large is refused when it is recorded.
        let product = Product::new(&self.a, &self.b, self.bias.as_ref(), self.add);
        let size = product.size;
        let along_k = [product.left.along_k(), product.right.along_k()];
        // No more scratch than the whole was planned with; sums over parts know no gaps between rows.
        let most = if self.row == size.n { whole.parts } else { 1 };
        let plan = Plan::of(whole.family, &size, along_k).limited(size.k, most);
        let end = self.end(size.batches * size.m, size.n);
        product.within(self.start..end, self.row).run(plan, y);
    }

    fn end(&self, rows: usize, n: usize) -> usize {
        self.start + (rows - 1) * self.row + n
    }

    /// Sizes of batches.
    fn lead(&self) -> Shape {
        let [a, b] = [&self.a, &self.b].map(|x| Shape::new(x.shape().leading(2)));
        a.broadcast(&b).expect("batches broadcast")
    }

    /// Where to cut: along what an operand too large to be bound, or the result, is longest; none if all can be bound.
    fn longest(&self, y: &Array) -> Option<Axis> {
        let (m, n, batches) = (rows(&self.a), self.b.shape().last_size(), self.lead().count());
        let axis = if !part::fits(y.device(), self.start..self.end(batches * m, n), 4) {
            if m > 1 { Axis::Rows } else { Axis::Columns }
        } else if !self.a.seen() {
            longest(&self.a, Axis::Rows, Axis::Depth)
        } else if !self.b.seen() {
            longest(&self.b, Axis::Depth, Axis::Columns)
        } else if self.bias.as_ref().is_some_and(|bias| !bias.seen()) {
            Axis::Columns
        } else {
            return None;
        };
        // Rows and columns of several batches do not follow each other.
        Some(if axis != Axis::Depth && batches > 1 { Axis::Batch } else { axis })
    }

    /// Two that make it up.
    fn halves(&self, axis: Axis) -> Option<[Piece; 2]> {
        let lead = self.lead();
        let (m, k, n) = (rows(&self.a), self.a.shape().last_size(), self.b.shape().last_size());
        let outer = lead.iter().position(|&size| size > 1).unwrap_or(0);
        let (size, step) = match axis {
            Axis::Batch => (lead[outer], lead[outer + 1..].iter().product::<usize>() * m * n),
            Axis::Rows => (m, self.row),
            Axis::Columns => (n, 1),
            Axis::Depth => (k, 1),
        };
        // Whole fours stay together.
        let half_of_it = size.div_ceil(2);
        let fours = half_of_it.next_multiple_of(4);
        let first = if fours < size { fours } else { half_of_it };
        (first < size).then(|| {
            let back = lead.len() - outer;
            let part = |from: usize, len: usize| Piece {
                a: half(&self.a, axis, [Axis::Rows, Axis::Depth], back, from, len),
                b: half(&self.b, axis, [Axis::Depth, Axis::Columns], back, from, len),
                bias: self.bias_of(axis, from, len),
                add: self.add || axis == Axis::Depth && from > 0,
                start: self.start + if axis == Axis::Depth { 0 } else { from * step },
                row: self.row,
            };
            [part(0, first), part(first, size - first)]
        })
    }

    fn bias_of(&self, axis: Axis, from: usize, len: usize) -> Option<Array> {
        match axis {
            Axis::Columns => self.bias.as_ref().map(|bias| bias.narrow(0, from, len)),
            Axis::Depth if from > 0 => None,
            _ => self.bias.clone(),
        }
    }
}

fn rows(a: &Array) -> usize {
    a.shape()[a.shape().len() - 2]
}

/// The axis of an operand's that its storage is longest along: of one before the last two, or one of those.
fn longest(x: &Array, before: Axis, last: Axis) -> Axis {
    let dims = x.shape().len();
    let length = |axis: usize| (x.shape()[axis] - 1) * x.strides()[axis] as usize;
    let batch = (0..dims - 2).map(length).max().unwrap_or(0);
    match [batch, length(dims - 2), length(dims - 1)] {
        [batch, one, two] if batch > one.max(two) => Axis::Batch,
        [_, one, two] if one >= two => before,
        _ => last,
    }
}

/// An operand's part along `axis`; its last two are `axes`, and the one of batches is the `back`th before them.
fn half(x: &Array, axis: Axis, axes: [Axis; 2], back: usize, from: usize, len: usize) -> Array {
    let dims = x.shape().len();
    let at = match axis {
        Axis::Batch => (dims - 2).checked_sub(back),
        axis => axes.iter().position(|&own| own == axis).map(|i| dims - 2 + i),
    };
    // What is the same in every batch stays.
    let at = at.filter(|&at| axis != Axis::Batch || x.shape()[at] > 1);
    at.map_or_else(|| x.clone(), |at| x.narrow(at, from, len))
}
