//! Commands on their way to the GPU: kept as a list, encoded together, one compute pass for each run of kernels.

use super::pipeline::{PARAMETER_BYTES, Pipeline};
use std::sync::Arc;
use wgpu::{BindGroup, Buffer, CommandEncoderDescriptor, ComputePassDescriptor};

/// Distance between two kernels' parameters in the uniform: the largest alignment that adapters ask for.
const STRIDE: u64 = 256;
/// Commands handed over at once: enough to make a submission's cost small, few enough that the GPU starts early.
pub(super) const BATCH: usize = 128;

/// One entry of the list. Cloning copies handles.
#[derive(Clone)]
pub(super) enum Command {
    Dispatch { pipeline: Arc<Pipeline>, bind_group: BindGroup, words: Vec<u32>, groups: [u32; 2] },
    Copy { from: Buffer, start: u64, to: Buffer, at: u64, bytes: u64 },
}

/// The uniform that parameters are read from where there are no immediates.
pub(super) struct Uniform {
    pub buffer: Buffer,
    pub group: BindGroup,
}

impl Uniform {
    /// Bytes for a batch.
    pub const BYTES: u64 = STRIDE * BATCH as u64;
}

/// Encodes `commands` and hands them to the driver.
pub(super) fn submit(device: &wgpu::Device, queue: &wgpu::Queue, commands: &[Command], uniform: Option<&Uniform>) {
    for batch in commands.chunks(BATCH) {
        if let Some(uniform) = uniform {
            // Written once for the batch, before its commands and after those of the batch before.
            queue.write_buffer(&uniform.buffer, 0, &parameters(batch));
        }
        let mut encoder = device.create_command_encoder(&CommandEncoderDescriptor::default());
        encode(&mut encoder, batch, uniform);
        queue.submit([encoder.finish()]);
    }
}

fn parameters(batch: &[Command]) -> Vec<u8> {
    let mut bytes = vec![0; STRIDE as usize * batch.len()];
    for (command, place) in batch.iter().zip(bytes.chunks_mut(STRIDE as usize)) {
        if let Command::Dispatch { words, .. } = command {
            place[..4 * words.len()].copy_from_slice(bytemuck::cast_slice(words));
        }
    }
    bytes
}

fn encode(encoder: &mut wgpu::CommandEncoder, batch: &[Command], uniform: Option<&Uniform>) {
    let mut pass: Option<wgpu::ComputePass<'static>> = None;
    for (i, command) in batch.iter().enumerate() {
        match command {
            Command::Copy { from, start, to, at, bytes } => {
                pass = None;
                encoder.copy_buffer_to_buffer(from, *start, to, *at, *bytes);
            }
            Command::Dispatch { pipeline, bind_group, words, groups } => {
                let pass = pass.get_or_insert_with(|| {
                    encoder.begin_compute_pass(&ComputePassDescriptor::default()).forget_lifetime()
                });
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, bind_group, &[]);
                match uniform {
                    Some(uniform) => pass.set_bind_group(1, &uniform.group, &[(STRIDE * i as u64) as u32]),
                    None => pass.set_immediates(0, &padded(words)),
                }
                pass.dispatch_workgroups(groups[0], groups[1], 1);
            }
        }
    }
}

/// All parameters a kernel may have, those it has first.
fn padded(words: &[u32]) -> [u8; PARAMETER_BYTES as usize] {
    let mut bytes = [0; PARAMETER_BYTES as usize];
    bytes[..4 * words.len()].copy_from_slice(bytemuck::cast_slice(words));
    bytes
}
