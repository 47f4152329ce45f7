//! Random projections: matrices that are a seed. Their entries are functions of the seed, drawn where a product needs
//! them and never stored (Hao et al., "Flora", ICML 2024, project gradients so).

mod entries;
mod gpu;
mod host;
mod normal;
mod random;
mod walsh;

pub use random::{Entries, Random};
pub(crate) use random::{compresses_rows, smaller_first};

use super::matmul::held;
use super::{Input, Op, Outputs, Sample};
use crate::autograd::{Derivative, Transpose};
use crate::device::{Array, Spec};
use crate::float;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// Products with a random projection P, or with some of its columns, see [`Tensor::project`] and
/// [`Tensor::project_rows`], each with its way back, which is its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Project {
    random: Random,
    /// The operand's dimension that P is about.
    axis: usize,
    /// Columns of P.
    size: usize,
    /// The first of those that are used, a multiple of [`UNIT`], and their number.
    first: usize,
    count: usize,
    /// Whether P is transposed.
    back: bool,
}

/// Signs of one block of random words: parts of P begin at a multiple of it.
const UNIT: usize = 128;

impl Project {
    fn whole(random: Random, axis: usize, size: usize, back: bool) -> Project {
        Project { random, axis, size, first: 0, count: size, back }
    }

    /// With at most `count` columns of P from `first` on.
    fn part(self, first: usize, count: usize) -> Project {
        Project { first, count: count.min(self.size - first), ..self }
    }

    /// Sizes of that dimension in the operand and in the result.
    fn sizes(&self) -> [usize; 2] {
        if self.back { [self.random.rank, self.count] } else { [self.count, self.random.rank] }
    }
}

impl Op for Project {
    fn name(&self) -> &'static str {
        "project"
    }

    fn infer(&self, ins: &[Spec]) -> Result<Spec, String> {
        let (x, [from, to]) = (&ins[0], self.sizes());
        if self.random.rank == 0 {
            return Err("a projection of rank 0".into());
        }
        if !x.dtype.computes() {
            return Err(format!("no arithmetic on {}: cast to f32 first", x.dtype));
        }
        match x.shape.len() == 2 && x.shape[self.axis] == from {
            true => Ok(Spec { shape: x.shape.with(self.axis, to), ..*x }),
            false => Err(format!("an operand of shape {:?}, whose dimension {} is not {from}", x.shape, self.axis)),
        }
    }

    fn scratch(&self, ins: &[Spec]) -> Option<Spec> {
        let width = host::panel(self.random.rank).min(self.count);
        Some(Spec::new(ins[0].dtype, [self.random.rank, width]))
    }

    fn adds(&self) -> bool {
        true
    }

    fn cpu(&self, ins: &[&Array], out: Outputs<'_>) {
        let scratch = out.scratch.expect("it was asked for");
        float!(ins[0].dtype(), T => self.multiply::<T>(ins[0], out.y, held(out.add), scratch))
    }

    fn gpu(&self, ins: &[&Array], out: Outputs<'_>) {
        self.record(ins[0], out.y, out.add);
    }

    fn derivative(&self) -> Derivative<'_> {
        Derivative::Linear(self)
    }
}

impl Transpose for Project {
    fn transpose(&self, _: usize, c: &Tensor, _: &[Spec]) -> Tensor {
        Tensor::apply(Project { back: !self.back, ..*self }, &[c])
    }
}

impl Tensor {
    /// `P x`, [size, n] to [rank, n], for a projection that is never stored. Operands may be any strided views.
    ///
    /// ```
    /// # use eckart::{DType, Device, Seed, Tensor, ops::project::{Entries, Random}};
    /// let p = Random { entries: Entries::Rademacher, rank: 4, seed: Seed(1) };
    /// let gradient = Tensor::zeros([300, 100], DType::F32, &Device::cpu());
    /// let sketch = gradient.t().project(p);
    /// assert_eq!(sketch.shape()[..], [4, 300]);
    /// assert_eq!(sketch.project_back(p, 100).t().shape(), gradient.shape());
    /// ```
    #[track_caller]
    pub fn project(&self, p: Random) -> Tensor {
        Tensor::apply(Project::whole(p, 0, self.shape().first().copied().unwrap_or(1), false), &[self])
    }

    /// `Pᵀ c`, [rank, n] to [size, n]: on average over seeds what [`Tensor::project`] undoes.
    #[track_caller]
    pub fn project_back(&self, p: Random, size: usize) -> Tensor {
        Tensor::apply(Project::whole(p, 0, size, true), &[self])
    }

    /// `x Pᵀ`, [n, size] to [n, rank]: what [`Tensor::project`] makes of columns, of rows.
    #[track_caller]
    pub fn project_rows(&self, p: Random) -> Tensor {
        Tensor::apply(Project::whole(p, 1, self.shape().last_size(), false), &[self])
    }

    /// `c P`, [n, rank] to [n, size]: the way back of [`Tensor::project_rows`].
    #[track_caller]
    pub fn project_rows_back(&self, p: Random, size: usize) -> Tensor {
        Tensor::apply(Project::whole(p, 1, size, true), &[self])
    }
}

pub(super) fn samples() -> Vec<Sample> {
    let sizes = [(37, 3, 3), (130, 9, 1), (32, 4, 4), (1, 1, 1)];
    let all =
        [Entries::Rademacher, Entries::Walsh, Entries::Gaussian, Entries::Signs].into_iter().flat_map(|entries| {
            sizes.into_iter().flat_map(move |(size, rank, n)| {
                [(0, false), (0, true), (1, false), (1, true)].map(|(axis, back)| {
                    let project = Project::whole(Random { entries, rank, seed: Seed(5) }, axis, size, back);
                    let [from, _] = project.sizes();
                    Sample::new(project, [Input::normal(if axis == 0 { [from, n] } else { [n, from] })])
                })
            })
        });
    all.collect()
}
