// Adam with state in blocks of 256 numbers of eight bits: a workgroup takes one, a thread an element of it. As
// src/optim/adam_8bit.rs and src/optim/dynamic.rs say. FIRST is whether the gradient is still to be scaled by the clip's
// factor.

//!import numbers
//!import lanes

struct Params {
    count: u32,
    b1: f32, b2: f32, c1: f32, c2: f32, epsilon: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> mean: array<u32>;
@group(0) @binding(2) var<storage, read_write> mean_scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> square: array<u32>;
@group(0) @binding(4) var<storage, read_write> square_scale: array<f32>;
@group(0) @binding(5) var<storage, read> found: Found;

var<workgroup> signed_map: array<f32, 256>;
var<workgroup> unsigned_map: array<f32, 256>;
var<workgroup> codes: array<vec2<u32>, 256>;

fn power_of_ten(exponent: u32) -> f32 {
    switch exponent {
        case 0u: { return 1e-6; }
        case 1u: { return 1e-5; }
        case 2u: { return 1e-4; }
        case 3u: { return 1e-3; }
        case 4u: { return 1e-2; }
        case 5u: { return 0.1; }
        default: { return 1.0; }
    }
}
fn number(exponent: u32, j: u32, parts: u32) -> f32 {
    return power_of_ten(exponent) * (0.1 + 0.9 * ((f32(j) + 0.5) / f32(parts)));
}
fn magnitude(place: u32) -> f32 {
    let exponent = firstLeadingBit(place + 1u);
    return number(exponent, place + 1u - (1u << exponent), 1u << exponent);
}
fn signed_number(code: u32) -> f32 {
    if (code < 127u) { return -magnitude(126u - code); }
    if (code == 127u) { return 0.0; }
    if (code == 255u) { return 1.0; }
    return magnitude(code - 128u);
}
fn unsigned_number(code: u32) -> f32 {
    if (code == 0u) { return 0.0; }
    if (code == 255u) { return 1.0; }
    let exponent = firstLeadingBit(code + 1u) - 1u;
    return number(exponent, code + 1u - (2u << exponent), 2u << exponent);
}

// Codes of the nearest numbers, the lower one in the middle of two.
fn nearest(m: f32, v: f32) -> vec2<u32> {
    var code = vec2(0u);
    for (var bit = 128u; bit > 0u; bit /= 2u) {
        let next = code | vec2(bit);
        if (m > 0.5 * (signed_map[next.x - 1u] + signed_map[next.x])) { code.x = next.x; }
        if (v > 0.5 * (unsigned_map[next.y - 1u] + unsigned_map[next.y])) { code.y = next.y; }
    }
    return code;
}

@compute @workgroup_size(256)
fn adam(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = id.x + id.y * grid.x;
    if (block * 256u >= p.count || found.skip != 0u) { return; }
    signed_map[thread] = signed_number(thread);
    unsigned_map[thread] = unsigned_number(thread);
    workgroupBarrier();
    let i = block * 256u + thread;
    let inside = i < p.count;
    var m = 0.0;
    var v = 0.0;
    if (inside) {
        let shift = 8u * (i % 4u);
        let g = gradient[i] * select(1.0, found.factor, FIRST);
        m = signed_map[(mean[i / 4u] >> shift) & 255u] * mean_scale[block];
        v = unsigned_map[(square[i / 4u] >> shift) & 255u] * square_scale[block];
        m = p.b1 * m + p.c1 * g;
        v = p.b2 * v + p.c2 * g * g;
        gradient[i] = m * found.first / (sqrt(v) * found.second + p.epsilon);
    }
    // What was stored has been read by all before it is written.
    let m_most = across(LARGEST, thread, vec2(abs(m), 0.0)).x;
    let v_most = across(LARGEST, thread, vec2(v, 0.0)).x;
    let code = nearest(select(0.0, m / m_most, m_most > 0.0), select(0.0, v / v_most, v_most > 0.0));
    codes[thread] = select(vec2(0u), code, inside);
    workgroupBarrier();
    if (thread == 0u) {
        mean_scale[block] = m_most;
        square_scale[block] = v_most;
    }
    if (thread < 64u && i - thread + 4u * thread < p.count) {
        let first = 4u * thread;
        let words = codes[first] | codes[first + 1u] << vec2(8u) | codes[first + 2u] << vec2(16u) | codes[first + 3u] << vec2(24u);
        mean[block * 64u + thread] = words.x;
        square[block * 64u + thread] = words.y;
    }
}
