//! One micro-batch: drawn on the host, and on a device, where it can make room for the next.

use crate::data::Batch;
use crate::device::Device;
use crate::ops::dropout::Mask;
use crate::rng::Seed;
use crate::tensor::Tensor;

/// All that tells one micro-batch's loss from another's.
pub struct MicroBatch {
    pub tokens: Batch,
    /// Its part of the targets that count in the step.
    pub share: f64,
    /// Seed of the model's dropout, if there is any.
    pub dropout: Option<Seed>,
    /// Seed of the adapters' dropout, if there is any.
    pub adapter_dropout: Option<Seed>,
}

/// A micro-batch on a device.
pub struct Uploaded {
    /// [batch, context].
    pub ids: Tensor,
    /// [batch, context].
    pub targets: Tensor,
    /// `[]`: read there, because it may change from step to step.
    pub share: Tensor,
    /// What it holds.
    shared: f64,
    pub mask: Option<Mask>,
    pub adapter_mask: Option<Mask>,
}

impl MicroBatch {
    pub fn upload(&self, device: &Device) -> Uploaded {
        let (ids, targets) = self.tokens.upload(device);
        let share = Tensor::new(&[self.share as f32], [], device);
        let mask = |seed: Option<Seed>| seed.map(|seed| Mask::new(seed, device));
        let (mask, adapter_mask) = (mask(self.dropout), mask(self.adapter_dropout));
        Uploaded { ids, targets, share, shared: self.share, mask, adapter_mask }
    }

    /// Whether it can be written over another.
    pub fn fits(&self, other: &Uploaded) -> bool {
        other.ids.count() == self.tokens.ids.len() && other.ids.shape()[1] == self.tokens.context
    }

    /// Writes it over another of the same run.
    pub fn feed(&self, to: &mut Uploaded) {
        to.ids.value.feed(&self.tokens.ids);
        to.targets.value.feed(&self.tokens.targets);
        if to.shared != self.share {
            to.share.value.feed(&[self.share as f32]);
            to.shared = self.share;
        }
        let masks = [(&mut to.mask, self.dropout), (&mut to.adapter_mask, self.adapter_dropout)];
        for (mask, seed) in masks {
            if let (Some(mask), Some(seed)) = (mask, seed) {
                mask.feed(seed);
            }
        }
    }
}
