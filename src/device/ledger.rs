//! Who holds how many bytes: the promise that memory is known.
//!
//! A tag belongs to a storage and is set when it is allocated; views count nothing. *Live* and *peak* are the bytes
//! asked for, and the breakdown is the one at the moment of the total's peak. *Reserved* is what the pool holds.
//! Scratch inside libraries (packing in `gemm`) and host staging are outside.

use std::cell::Cell;
use std::sync::Mutex;

/// What a storage is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// Parameters of the model.
    Weights,
    /// Finished gradients of parameters.
    Gradients,
    /// State of the optimizer.
    Optimizer,
    /// Everything between: values kept for backward, and passing ones.
    Activations,
    /// Scratch that lives for one kernel.
    Workspace,
}

impl Tag {
    /// All tags, in the order of tables.
    pub const ALL: [Tag; 5] = [Tag::Weights, Tag::Gradients, Tag::Optimizer, Tag::Activations, Tag::Workspace];

    /// Lower-case name, as in tables and files.
    pub const fn name(self) -> &'static str {
        ["weights", "gradients", "optimizer", "activations", "workspace"][self as usize]
    }
}

/// Bytes by tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes([u64; Tag::ALL.len()]);

impl Bytes {
    /// Sum over tags.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Tag and bytes, in the order of tables.
    pub fn by_tag(&self) -> impl Iterator<Item = (Tag, u64)> + '_ {
        Tag::ALL.into_iter().map(|tag| (tag, self[tag]))
    }
}

impl std::ops::Index<Tag> for Bytes {
    type Output = u64;
    fn index(&self, tag: Tag) -> &u64 {
        &self.0[tag as usize]
    }
}

thread_local!(static TAG: Cell<Tag> = const { Cell::new(Tag::Activations) });

/// Runs `f`; what this thread allocates in it is counted under `tag`.
pub fn tagged<R>(tag: Tag, f: impl FnOnce() -> R) -> R {
    struct Restore(Tag);
    impl Drop for Restore {
        fn drop(&mut self) {
            TAG.set(self.0);
        }
    }
    let _restore = Restore(TAG.replace(tag));
    f()
}

/// The tag of the innermost [`tagged`]; activations outside any.
pub(super) fn current_tag() -> Tag {
    TAG.get()
}

/// Counts of one device.
#[derive(Default)]
pub struct Ledger(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    live: Bytes,
    peak: Bytes,
    highest: u64,
}

impl Counts {
    fn note_peak(&mut self) {
        if self.live.total() > self.peak.total() {
            self.peak = self.live;
        }
        self.highest = self.highest.max(self.peak.total());
    }
}

impl Ledger {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Bytes of storages that exist now.
    pub fn live(&self) -> Bytes {
        self.counts().live
    }

    /// Bytes at the moment their total was highest since [`Ledger::reset_peak`].
    pub fn peak(&self) -> Bytes {
        self.counts().peak
    }

    /// Highest total ever, whatever was reset.
    pub fn highest(&self) -> u64 {
        self.counts().highest
    }

    /// Starts a new interval: the peak is what lives now.
    pub fn reset_peak(&self) {
        let mut counts = self.counts();
        counts.peak = counts.live;
    }

    /// The peak while `f` runs, which counts for the present interval too.
    #[cfg(feature = "gpu")]
    pub(super) fn peak_of<R>(&self, f: impl FnOnce() -> R) -> (R, Bytes) {
        let before = self.peak();
        self.reset_peak();
        let result = f();
        let peak = self.peak();
        self.raise(before);
        (result, peak)
    }

    /// Counts a peak that was reached without asking for storages, as when recorded commands use theirs again.
    #[cfg(feature = "gpu")]
    pub(super) fn raise(&self, peak: Bytes) {
        let mut counts = self.counts();
        if peak.total() > counts.peak.total() {
            counts.peak = peak;
        }
    }

    pub(super) fn add(&self, tag: Tag, bytes: usize) {
        let mut counts = self.counts();
        counts.live.0[tag as usize] += bytes as u64;
        counts.note_peak();
    }

    pub(super) fn remove(&self, tag: Tag, bytes: usize) {
        self.counts().live.0[tag as usize] -= bytes as u64;
    }

    pub(super) fn retag(&self, from: Tag, to: Tag, bytes: usize) {
        let mut counts = self.counts();
        counts.live.0[from as usize] -= bytes as u64;
        counts.live.0[to as usize] += bytes as u64;
    }
}
