//! One micro-batch: drawn on the host, and on a device, where it can make room for the next.

use crate::data::Batch;
use crate::device::Device;
use crate::ops::dropout::Mask;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// All that tells one micro-batch's loss from another's.
pub struct MicroBatch {
    pub tokens: Batch,
    /// Seed of its dropout, if there is any.
    pub dropout: Option<Seed>,
}

/// A micro-batch on a device.
pub struct Uploaded {
    /// [batch, context].
    pub ids: Tensor,
    /// [batch, context].
    pub targets: Tensor,
    pub mask: Option<Mask>,
}

impl MicroBatch {
    pub fn upload(&self, device: &Device) -> Uploaded {
        let (ids, targets) = self.tokens.upload(device);
        Uploaded { ids, targets, mask: self.dropout.map(|seed| Mask::new(seed, device)) }
    }

    /// Writes it over another of the same run.
    pub fn feed(&self, to: &mut Uploaded) {
        to.ids.value.feed(&self.tokens.ids);
        to.targets.value.feed(&self.tokens.targets);
        if let (Some(mask), Some(seed)) = (&mut to.mask, self.dropout) {
            mask.feed(seed);
        }
    }
}
