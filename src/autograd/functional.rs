//! Derivatives of functions: forward mode, Hessian-vector and Gauss-Newton products.

use super::lift::next_level;
use super::reverse::gradients;
use crate::tensor::Tensor;

/// One direction: a tangent for each variable, `None` where it does not move (which costs nothing).
pub type Direction = Vec<Option<Tensor>>;

/// Value of `f` at `x` and its tangents along each direction, all sharing the primal pass.
#[track_caller]
pub fn jvp(f: impl FnOnce(&[Tensor]) -> Tensor, x: &[Tensor], directions: &[Direction]) -> (Tensor, Vec<Tensor>) {
    let level = next_level();
    let lifted: Vec<Tensor> = lift(x, directions, level);
    split(f(&lifted), level, directions.len())
}

/// Every variable moving along every direction, at a level of its own.
#[track_caller]
fn lift(x: &[Tensor], directions: &[Direction], level: u64) -> Vec<Tensor> {
    for direction in directions {
        assert_eq!(direction.len(), x.len(), "a direction has one tangent for each variable");
        for (t, x) in direction.iter().zip(x) {
            assert!(
                t.as_ref().is_none_or(|t| t.spec() == x.spec()),
                "a tangent has the type and shape of its variable"
            );
        }
    }
    let along = |i: usize| directions.iter().map(|direction| direction[i].clone()).collect();
    x.iter().enumerate().map(|(i, x)| x.clone().lift(level, along(i))).collect()
}

/// Value and tangents, zero where nothing moved.
fn split(y: Tensor, level: u64, directions: usize) -> (Tensor, Vec<Tensor>) {
    let (value, tangents) = y.into_parts(level, directions);
    let tangent = |k: usize| tangents.get(k).cloned().flatten().unwrap_or_else(|| value.zeros_like());
    let tangents = (0..directions).map(tangent).collect();
    (value, tangents)
}

/// What [`hvp`] finds.
pub struct Hvp {
    /// Value of the function.
    pub loss: Tensor,
    /// Its gradient, one tensor for each parameter.
    pub gradient: Vec<Tensor>,
    /// The Hessian times each direction: `products[k][i]` belongs to direction k and parameter i.
    pub products: Vec<Vec<Tensor>>,
}

/// Loss, gradient, and Hessian-vector products of a scalar function, by forward over reverse (Pearlmutter 1994):
/// tangents run through the forward and the backward pass, and the gradient's tangent is the product. All directions
/// share the primal pass.
///
/// ```
/// # use eckart::{Device, Tensor, autograd::hvp};
/// let x = Tensor::new(&[1.0, 2.0], [2], &Device::cpu());
/// let v = Tensor::new(&[1.0, 0.0], [2], &Device::cpu());
/// let cube = |p: &[Tensor]| (&p[0] * &p[0] * &p[0]).sum_all();
/// let found = hvp(cube, &[x], &[vec![Some(v)]]);
/// assert_eq!(found.products[0][0].to_vec::<f64>()?, [6.0, 0.0]);
/// # Ok::<(), eckart::Error>(())
/// ```
#[track_caller]
pub fn hvp(f: impl FnOnce(&[Tensor]) -> Tensor, parameters: &[Tensor], directions: &[Direction]) -> Hvp {
    let moving = Moving::new(directions.len());
    let plain: Vec<Tensor> = parameters.iter().map(Tensor::untraced).collect();
    let leaves: Vec<Tensor> = lift(&plain, directions, moving.level).iter().map(Tensor::leaf).collect();
    let (loss, found) = moving.gradients(f(&leaves), &leaves);
    let (gradient, by_parameter): (Vec<Tensor>, Vec<Vec<Tensor>>) = found.into_iter().unzip();
    let products =
        (0..directions.len()).map(|k| by_parameter.iter().map(|tangents| tangents[k].clone()).collect()).collect();
    Hvp { loss, gradient, products }
}

/// Forward over reverse where directions become known only while the function runs: tensors that move at a level of their
/// own, and what of their gradients moves with them.
pub(crate) struct Moving {
    level: u64,
    directions: usize,
}

impl Moving {
    /// Along so many directions at once.
    pub(crate) fn new(directions: usize) -> Moving {
        Moving { level: next_level(), directions }
    }

    /// `x` moving along these tangents, one for each direction.
    pub(crate) fn lifted(&self, x: &Tensor, tangents: Vec<Option<Tensor>>) -> Tensor {
        assert_eq!(tangents.len(), self.directions, "a tangent for each direction");
        x.untraced().lift(self.level, tangents)
    }

    /// A tensor as it is without moving, and its tangents; none where it does not move.
    pub(crate) fn parts(&self, x: &Tensor) -> (Tensor, Vec<Option<Tensor>>) {
        let x = x.untraced();
        let (value, tangents) = x.lower(self.level);
        let tangent = |k: usize| tangents.get(k).cloned().flatten();
        (value.untraced(), (0..self.directions).map(tangent).collect())
    }

    /// Value of a scalar, and gradients of leaves, each with its tangents, zero where nothing moved.
    #[track_caller]
    pub(crate) fn gradients(&self, loss: Tensor, leaves: &[Tensor]) -> (Tensor, Vec<(Tensor, Vec<Tensor>)>) {
        assert_eq!(loss.count(), 1, "a Hessian is that of a scalar, not of shape {:?}", loss.shape());
        let value = loss.lower(self.level).0.untraced();
        let found = gradients(loss, value.ones_like(), &leaves.iter().collect::<Vec<_>>(), false);
        (value, found.into_iter().map(|g| split(g, self.level, self.directions)).collect())
    }
}

/// The Gauss-Newton product Jᵀ H J v of `loss(model(parameters))` (Schraudolph 2002), with J that of the model and
/// H the Hessian of the loss in the model's output: never negative where the loss is convex.
#[track_caller]
pub fn gauss_newton(
    model: impl Fn(&[Tensor]) -> Tensor,
    loss: impl FnOnce(&Tensor) -> Tensor,
    parameters: &[Tensor],
    direction: &Direction,
) -> Vec<Tensor> {
    let plain: Vec<Tensor> = parameters.iter().map(Tensor::untraced).collect();
    let (y, moved) = jvp(&model, &plain, std::slice::from_ref(direction));
    let curved = hvp(|y| loss(&y[0]), &[y], &[moved.into_iter().map(Some).collect()]);
    let leaves: Vec<Tensor> = plain.iter().map(Tensor::leaf).collect();
    let wrt: Vec<&Tensor> = leaves.iter().collect();
    gradients(model(&leaves), curved.products[0][0].clone(), &wrt, false)
}
