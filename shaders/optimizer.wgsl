// A step of an optimizer. What changes from step to step lies in two small storages, so that the same commands serve
// every step: `given` comes from the host, `found` is worked out here. A step whose loss or gradients are not finite
// changes nothing.

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

struct Params {
    count: u32,
    // Where this gradient's partial sums begin, or how many there are in all.
    partials: u32,
    // Logarithms of the decays, or the decays.
    b1: f32, b2: f32,
    c1: f32, c2: f32,
    epsilon: f32,
    scale: f32, decay: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> sums: array<f32>;
@group(0) @binding(1) var<storage, read> squared: array<f32>;

var<workgroup> tree: array<f32, 256>;

// Sum over the workgroup, in a fixed order.
fn add_up(x: f32, thread: u32) -> f32 {
    tree[thread] = x;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (thread < half) {
            tree[thread] += tree[thread + half];
        }
    }
    workgroupBarrier();
    return tree[0];
}

// ---- the norm: a partial sum of squares for every 4096 elements, then one workgroup for the rest

@compute @workgroup_size(256)
fn squares(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.x + id.y * grid.x;
    var sum = 0.0;
    for (var k = 0u; k < 16u; k++) {
        let i = group * 4096u + k * 256u + thread;
        if (i < p.count) {
            sum += squared[i] * squared[i];
        }
    }
    let total = add_up(sum, thread);
    if (thread == 0u && group * 4096u < p.count) {
        sums[p.partials + group] = total;
    }
}

@group(0) @binding(0) var<storage, read_write> found: Found;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read> given: Given;
@group(0) @binding(3) var<storage, read> loss: array<f32>;

fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }

// 1 − eˣ for x < 0, where 1 − exp(x) would cancel near 0.
fn one_minus_exp(x: f32) -> f32 {
    let near = -x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.0083333338 + x * 0.0013888889)))));
    return select(1.0 - exp(max(x, -80.0)), near, x > -0.35);
}

@compute @workgroup_size(256)
fn judge(@builtin(local_invocation_index) thread: u32) {
    var sum = 0.0;
    for (var i = thread; i < p.partials; i += 256u) {
        sum += partials[i];
    }
    let squares = add_up(sum, thread);
    if (thread != 0u) { return; }
    let value = select(0.0, loss[0], HAS_LOSS);
    let norm = sqrt(squares);
    let good = is_finite(squares) && is_finite(value);
    let taken = found.taken + select(0u, 1u, good);
    let t = f32(taken);
    found.norm = norm;
    found.loss = value;
    found.skip = select(1u, 0u, good);
    found.taken = taken;
    found.factor = select(1.0, given.clip / norm, given.clip > 0.0 && norm > given.clip);
    found.first = 1.0 / one_minus_exp(t * p.b1);
    found.second = 1.0 / sqrt(one_minus_exp(t * p.b2));
}

// ---- transforms: the update is written over the gradient

@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> square: array<f32>;
@group(0) @binding(3) var<storage, read> adam_found: Found;
@group(0) @binding(2) var<storage, read> momentum_found: Found;
@group(0) @binding(1) var<storage, read> scale_found: Found;

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

// m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g²; the update is m̂ / (√v̂ + ε).
@compute @workgroup_size(256)
fn adam(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i >= p.count || adam_found.skip != 0u) { return; }
    let g = gradient[i] * select(1.0, adam_found.factor, FIRST);
    let m = p.b1 * mean[i] + p.c1 * g;
    let v = p.b2 * square[i] + p.c2 * g * g;
    mean[i] = m;
    square[i] = v;
    gradient[i] = m * adam_found.first / (sqrt(v) * adam_found.second + p.epsilon);
}

// u = β u + g.
@compute @workgroup_size(256)
fn momentum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i >= p.count || momentum_found.skip != 0u) { return; }
    let u = p.b1 * mean[i] + gradient[i] * select(1.0, momentum_found.factor, FIRST);
    mean[i] = u;
    gradient[i] = u;
}

@compute @workgroup_size(256)
fn scale(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count && scale_found.skip == 0u && FIRST) {
        gradient[i] *= scale_found.factor;
    }
}

// ---- w −= rate (u + decay w)

@group(0) @binding(0) var<storage, read_write> weight: array<f32>;
@group(0) @binding(1) var<storage, read> change: array<f32>;
@group(0) @binding(2) var<storage, read> weight_given: Given;
@group(0) @binding(3) var<storage, read> weight_found: Found;

@compute @workgroup_size(256)
fn subtract(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count && weight_found.skip == 0u) {
        let rate = weight_given.rate * p.scale;
        weight[i] = weight[i] * (1.0 - rate * p.decay) - rate * change[i];
    }
}

// ---- Adam and the subtraction in one pass, four elements a thread

@group(0) @binding(0) var<storage, read_write> weight4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> mean4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> square4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> gradient4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> adamw_given: Given;
@group(0) @binding(5) var<storage, read> adamw_found: Found;

@compute @workgroup_size(256)
fn adamw(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i >= p.count || adamw_found.skip != 0u) { return; }
    let g = gradient4[i] * adamw_found.factor;
    let m = p.b1 * mean4[i] + p.c1 * g;
    let v = p.b2 * square4[i] + p.c2 * g * g;
    mean4[i] = m;
    square4[i] = v;
    let update = m * adamw_found.first / (sqrt(v) * adamw_found.second + p.epsilon);
    let rate = adamw_given.rate * p.scale;
    weight4[i] = weight4[i] * (1.0 - rate * p.decay) - rate * update;
}
