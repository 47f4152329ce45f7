//! Shapes, strides and broadcasting: pure functions, no device, no I/O.

use std::ops::Deref;

/// Most dimensions a tensor can have.
pub const MAX_DIMS: usize = 6;

/// Sizes of up to [`MAX_DIMS`] dimensions, outermost first. A scalar has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; MAX_DIMS],
    dims: usize,
}

/// Steps between neighbours, in elements, one for each dimension of a [`Shape`]. Broadcast dimensions step by 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    steps: [isize; MAX_DIMS],
    dims: usize,
}

impl Shape {
    /// Copies sizes; panics beyond [`MAX_DIMS`].
    #[track_caller]
    pub fn new(sizes: &[usize]) -> Self {
        assert!(sizes.len() <= MAX_DIMS, "{sizes:?} has more than {MAX_DIMS} dimensions");
        let mut shape = Shape { sizes: [1; MAX_DIMS], dims: sizes.len() };
        shape.sizes[..sizes.len()].copy_from_slice(sizes);
        shape
    }

    /// Number of elements; 1 for a scalar.
    pub fn count(&self) -> usize {
        self.iter().product()
    }

    /// Index of dimension `axis`, counted from the end when negative.
    #[track_caller]
    pub fn axis(&self, axis: isize) -> usize {
        let n = self.dims as isize;
        assert!((-n..n).contains(&axis), "axis {axis} of a tensor of shape {self:?}");
        axis.rem_euclid(n.max(1)) as usize
    }

    /// The same sizes with dimension `axis` replaced.
    pub fn with(mut self, axis: usize, size: usize) -> Self {
        self.sizes[axis] = size;
        self
    }

    /// The sizes before the last `n` dimensions.
    pub fn leading(&self, n: usize) -> &[usize] {
        &self[..self.dims - n]
    }

    /// Size of the last dimension; 1 for a scalar.
    pub fn last_size(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }

    /// Strides of a tensor stored row by row.
    pub fn strides(&self) -> Strides {
        let mut strides = Strides { steps: [0; MAX_DIMS], dims: self.dims };
        let mut step = 1;
        for axis in (0..self.dims).rev() {
            strides.steps[axis] = step;
            step *= self[axis] as isize;
        }
        strides
    }

    /// The shape that both broadcast to (sizes aligned at the end, 1 stretches), if there is one.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let dims = self.dims.max(other.dims);
        let mut out = Shape { sizes: [1; MAX_DIMS], dims };
        for back in 1..=dims {
            let (a, b) = (self.back_size(back), other.back_size(back));
            out.sizes[dims - back] = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(out)
    }

    fn back_size(&self, back: usize) -> usize {
        if back <= self.dims { self[self.dims - back] } else { 1 }
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.dims]
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

impl From<&[usize]> for Shape {
    #[track_caller]
    fn from(sizes: &[usize]) -> Self {
        Shape::new(sizes)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    #[track_caller]
    fn from(sizes: [usize; N]) -> Self {
        Shape::new(&sizes)
    }
}

impl Strides {
    /// Copies steps; panics beyond [`MAX_DIMS`].
    pub fn new(steps: &[isize]) -> Self {
        assert!(steps.len() <= MAX_DIMS, "{steps:?} has more than {MAX_DIMS} dimensions");
        let mut strides = Strides { steps: [0; MAX_DIMS], dims: steps.len() };
        strides.steps[..steps.len()].copy_from_slice(steps);
        strides
    }

    /// Whether a tensor of this shape and these strides lies row by row without gaps.
    pub fn contiguous(&self, shape: &Shape) -> bool {
        let mut step = 1;
        for axis in (0..shape.len()).rev() {
            if shape[axis] != 1 && self[axis] != step {
                return false;
            }
            step *= shape[axis] as isize;
        }
        true
    }

    /// Strides with which a tensor of shape `from` reads as shape `to`; `to` must be a broadcast of `from`.
    pub fn broadcast(&self, from: &Shape, to: &Shape) -> Strides {
        let lead = to.len() - from.len();
        let steps: Vec<isize> = (0..to.len())
            .map(|axis| match axis.checked_sub(lead) {
                Some(inner) if from[inner] == to[axis] => self[inner],
                _ => 0,
            })
            .collect();
        Strides::new(&steps)
    }

    /// Strides of the same elements seen in another shape, if no copy is needed for it.
    pub fn reshape(&self, from: &Shape, to: &Shape) -> Option<Strides> {
        if from.count() == 0 || self.contiguous(from) {
            return Some(to.strides());
        }
        let old: Vec<(usize, isize)> = (0..from.len()).filter(|&a| from[a] != 1).map(|a| (from[a], self[a])).collect();
        let mut steps = [0; MAX_DIMS];
        let (mut i, mut j) = (0, 0);
        while i < old.len() {
            // The next group: the fewest dimensions on either side with equal products.
            let (first, start) = (i, j);
            let (mut have, mut want) = (old[i].0, to[j]);
            (i, j) = (i + 1, j + 1);
            while have != want {
                if have < want {
                    have *= old[i].0;
                    i += 1;
                } else {
                    want *= to[j];
                    j += 1;
                }
            }
            let gapless = |pair: &[(usize, isize)]| pair[0].1 == pair[1].1 * pair[1].0 as isize;
            if !old[first..i].windows(2).all(gapless) {
                return None;
            }
            let mut step = old[i - 1].1;
            for axis in (start..j).rev() {
                steps[axis] = step;
                step *= to[axis] as isize;
            }
        }
        Some(Strides::new(&steps[..to.len()]))
    }
}

impl Deref for Strides {
    type Target = [isize];
    fn deref(&self) -> &[isize] {
        &self.steps[..self.dims]
    }
}

impl std::fmt::Debug for Strides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}
