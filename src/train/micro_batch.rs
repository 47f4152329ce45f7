//! One micro-batch: drawn on the host, and on a device, where it can make room for the next.

use crate::data::Batch;
use crate::device::Device;
use crate::nn::Inputs;
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
    /// What the model is given.
    pub inputs: Inputs,
    /// What it should foretell.
    pub targets: Tensor,
    /// `[]`: read there, because it may change from step to step.
    pub share: Tensor,
    /// What it holds.
    shared: f64,
    pub mask: Option<Mask>,
    pub adapter_mask: Option<Mask>,
}

/// What a model is given of a batch, and the targets, on a device.
pub fn given(batch: &Batch, device: &Device) -> (Inputs, Tensor) {
    let (ids, targets) = batch.upload(device);
    let each = |values: &Option<Vec<u32>>| values.as_ref().map(|values| Tensor::new(values, *ids.shape(), device));
    let places = batch.places.as_ref().map(|places| Tensor::new(places, [places.len()], device));
    (Inputs { segments: each(&batch.segments), mask: each(&batch.mask), places, ids }, targets)
}

impl MicroBatch {
    pub fn upload(&self, device: &Device) -> Uploaded {
        let (inputs, targets) = given(&self.tokens, device);
        let share = Tensor::new(&[self.share as f32], [], device);
        let mask = |seed: Option<Seed>| seed.map(|seed| Mask::new(seed, device));
        let (mask, adapter_mask) = (mask(self.dropout), mask(self.adapter_dropout));
        Uploaded { inputs, targets, share, shared: self.share, mask, adapter_mask }
    }

    /// Whether it can be written over another.
    pub fn fits(&self, other: &Uploaded) -> bool {
        let (tokens, Uploaded { inputs, targets, .. }) = (&self.tokens, other);
        let fits = |values: &Option<Vec<u32>>, other: &Option<Tensor>| {
            values.as_ref().map(Vec::len) == other.as_ref().map(Tensor::count)
        };
        inputs.ids.shape()[..] == [tokens.rows(), tokens.context]
            && targets.count() == tokens.targets.len()
            && fits(&tokens.segments, &inputs.segments)
            && fits(&tokens.mask, &inputs.mask)
            && fits(&tokens.places, &inputs.places)
    }

    /// Writes it over another that it fits.
    pub fn feed(&self, to: &mut Uploaded) {
        let (tokens, Uploaded { inputs, targets, .. }) = (&self.tokens, &mut *to);
        inputs.ids.value.feed(&tokens.ids);
        targets.value.feed(&tokens.targets);
        let rest = [
            (&tokens.segments, &mut inputs.segments),
            (&tokens.mask, &mut inputs.mask),
            (&tokens.places, &mut inputs.places),
        ];
        for (values, other) in rest {
            if let (Some(values), Some(other)) = (values, other) {
                other.value.feed(values);
            }
        }
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
