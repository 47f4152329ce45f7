// Adam and the weights' step in one pass, for TENSORS parameters at once, whose elements are dealt out to workgroups one
// parameter after the other: four to a thread.
// m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g², w −= rate (m̂ / (√v̂ + ε) + decay w).

//!import numbers

struct Params {
    b1: f32, b2: f32, c1: f32, c2: f32, epsilon: f32,
//!repeat TENSORS
    // Elements, first workgroup, factor on the learning rate, weight decay.
    count#: u32, group#: u32, scale#: f32, decay#: f32,
//!end
}
var<immediate> p: Params;

//!repeat TENSORS
@group(0) @binding(3 * #) var<storage, read_write> weight#: array<vec4<f32>>;
@group(0) @binding(3 * # + 1) var<storage, read_write> mean#: array<vec4<f32>>;
@group(0) @binding(3 * # + 2) var<storage, read_write> square#: array<vec4<f32>>;
@group(0) @binding(3 * TENSORS + #) var<storage, read> gradient#: array<vec4<f32>>;
//!end
@group(0) @binding(4 * TENSORS) var<storage, read> given: Given;
@group(0) @binding(4 * TENSORS + 1) var<storage, read> found: Found;

struct Means { m: vec4<f32>, v: vec4<f32> }

fn moved(m: vec4<f32>, v: vec4<f32>, gradient: vec4<f32>) -> Means {
    let g = gradient * found.factor;
    return Means(p.b1 * m + p.c1 * g, p.b2 * v + p.c2 * g * g);
}

fn stepped(w: vec4<f32>, means: Means, scale: f32, decay: f32) -> vec4<f32> {
    let update = means.m * found.first / (sqrt(means.v) * found.second + p.epsilon);
    let rate = given.rate * scale;
    return w * (1.0 - rate * decay) - rate * update;
}

@compute @workgroup_size(256)
fn adamw(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.x + id.y * grid.x;
    if (found.skip != 0u) { return; }
//!repeat TENSORS
    {
        let i = (group - p.group#) * 256u + thread;
        if (group >= p.group# && 4u * i < p.count#) {
            let means = moved(mean#[i], square#[i], gradient#[i]);
            mean#[i] = means.m;
            square#[i] = means.v;
            weight#[i] = stepped(weight#[i], means, p.scale#, p.decay#);
        }
    }
//!end
}
