// What a step of an optimizer goes by. `Given` comes from the host, `Found` is worked out by `judge` in optimizer.wgsl.

struct Given { rate: f32, clip: f32 }
struct Found {
    // Norm of all gradients together, before clipping, and the loss.
    norm: f32, loss: f32,
    // 1 if the step is left out.
    skip: u32,
    // Steps taken, this one included if it is.
    taken: u32,
    // Scale of the gradients: the clip's.
    factor: f32,
    // 1/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ).
    first: f32, second: f32,
}
