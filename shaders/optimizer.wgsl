// A step of an optimizer. What changes from step to step lies in two small storages, so that the same commands serve
// every step. A step whose loss or gradients are not finite changes nothing.

//!import numbers
//!import lanes

struct Params {
    count: u32,
    // How many partial sums there are.
    partials: u32,
    // Logarithms of the decays, or the decays.
    b1: f32, b2: f32,
    c1: f32, c2: f32,
    epsilon: f32,
    scale: f32, decay: f32,
}
var<immediate> p: Params;

// ---- what the partial sums of squares come to

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
    let squares = sum_across(thread, sum);
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

// ---- a new value of a slot of the state

@group(0) @binding(0) var<storage, read_write> slot: array<f32>;
@group(0) @binding(1) var<storage, read> value: array<f32>;
@group(0) @binding(2) var<storage, read> store_found: Found;

@compute @workgroup_size(256)
fn store(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count && store_found.skip == 0u) {
        slot[i] = value[i];
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
