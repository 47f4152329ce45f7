//! Watching kernels from outside: where time goes, and where a number first stopped being finite.

use super::Array;
use crate::dtype::{DType, Element};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What runs when: the forward kernel of an op, or one of its derivatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The result.
    Forward,
    /// Cotangents of the operands.
    Backward,
    /// Tangents of either.
    Tangent,
    /// The optimizer's step.
    Update,
}

impl Stage {
    /// Lower-case name, as in tables.
    pub fn name(self) -> &'static str {
        ["forward", "backward", "tangent", "update"][self as usize]
    }
}

/// Sees every kernel of this thread's tensors while [`observed`].
pub trait Observer {
    /// After each kernel: its op, what it was for, how long it took, what it wrote.
    fn kernel(&self, op: &'static str, stage: Stage, time: Duration, outs: &[&Array]);
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static OBSERVER: RefCell<Option<Rc<dyn Observer>>> = const { RefCell::new(None) };
}

/// Runs `f` with `observer` seeing every kernel that this thread launches.
pub fn observed<R>(observer: Rc<dyn Observer>, f: impl FnOnce() -> R) -> R {
    struct Restore(bool, Option<Rc<dyn Observer>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON.set(self.0);
            OBSERVER.set(self.1.take());
        }
    }
    let _restore = Restore(ON.replace(true), OBSERVER.replace(Some(observer)));
    f()
}

/// Runs a kernel that writes `outs`, and reports it if anyone is watching.
pub(crate) fn launch<'a, O: ?Sized>(
    op: &'static str,
    stage: Stage,
    outs: &'a mut O,
    kernel: impl FnOnce(&mut O),
    written: impl FnOnce(&'a O) -> Vec<&'a Array>,
) {
    if !ON.get() {
        return kernel(outs);
    }
    let start = Instant::now();
    kernel(outs);
    let written = written(outs);
    // A GPU would still be at it: whoever watches waits. A fault comes out elsewhere.
    if let Some(array) = written.first() {
        let _ = array.device().wait();
    }
    let time = start.elapsed();
    let observer = OBSERVER.with_borrow(|observer| observer.clone());
    if let Some(observer) = observer {
        observer.kernel(op, stage, time, &written);
    }
}

/// Whether this thread's kernels are watched.
pub(crate) fn watching() -> bool {
    ON.get()
}

/// Calls and time by op and stage.
#[derive(Default)]
pub struct Profile(RefCell<Times>);

/// Calls and time, by op and stage.
type Times = HashMap<(&'static str, Stage), (u64, Duration)>;

impl Observer for Profile {
    fn kernel(&self, op: &'static str, stage: Stage, time: Duration, _: &[&Array]) {
        let mut table = self.0.borrow_mut();
        let entry = table.entry((op, stage)).or_default();
        entry.0 += 1;
        entry.1 += time;
    }
}

impl Profile {
    /// Op, stage, calls and time, longest first.
    pub fn rows(&self) -> Vec<(&'static str, Stage, u64, Duration)> {
        let table = self.0.borrow();
        let mut rows: Vec<_> = table.iter().map(|(&(op, stage), &(calls, time))| (op, stage, calls, time)).collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.3), row.0, row.1));
        rows
    }
}

/// The first op that wrote a NaN or an infinity.
#[derive(Default)]
pub struct FirstNonFinite(Cell<Option<(&'static str, Stage)>>);

impl FirstNonFinite {
    /// Its name and stage, if there was one.
    pub fn found(&self) -> Option<(&'static str, Stage)> {
        self.0.get()
    }
}

impl Observer for FirstNonFinite {
    fn kernel(&self, op: &'static str, stage: Stage, _: Duration, outs: &[&Array]) {
        if self.0.get().is_none() && !outs.iter().all(|array| finite(array)) {
            self.0.set(Some((op, stage)));
        }
    }
}

/// Whether all elements are numbers, and finite ones.
pub fn finite(array: &Array) -> bool {
    if array.dtype() == DType::U32 || !array.device().computes() {
        return true;
    }
    // A device that fails reports it elsewhere.
    let Ok(array) = array.to_host() else { return true };
    crate::element!(array.dtype(), T => array.slice::<T>().iter().all(|x| x.to_f64().is_finite()))
}
