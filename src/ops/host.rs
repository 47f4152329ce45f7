//! Ops without a GPU kernel, as a user's own may be: their operands come to the host, and the result goes back.

use super::{Op, Outputs};
use crate::device::{Array, Device};
use crate::element;

/// Runs the host's kernel of `op` for arrays of a GPU. It waits for the GPU, and is counted.
pub(super) fn run(op: &(impl Op + ?Sized), ins: &[&Array], out: Outputs<'_>) {
    if !out.y.device().computes() {
        return;
    }
    out.y.device().count_host_op();
    let Some(ins) = ins.iter().map(|x| x.to_host().ok()).collect::<Option<Vec<Array>>>() else { return };
    let Ok(mut y) = out.y.to_host() else { return };
    let host = Device::cpu();
    let specs: Vec<_> = ins.iter().map(Array::spec).collect();
    let mut residuals: Vec<Array> = out.residuals.iter().map(|array| host.alloc(array.spec())).collect();
    let mut scratch = op.scratch(&specs).map(|spec| host.alloc(spec));
    let results = Outputs { y: &mut y, residuals: &mut residuals, scratch: scratch.as_mut(), add: out.add };
    op.cpu(&ins.iter().collect::<Vec<_>>(), results);
    for (to, from) in [out.y].into_iter().chain(out.residuals).zip([&y].into_iter().chain(&residuals)) {
        element!(from.dtype(), T => to.fill_from(from.slice::<T>()));
    }
}
