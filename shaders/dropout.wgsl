// Element i is kept if word i of the seed is at least the threshold. A thread draws four words for four elements.

//!import view
//!import philox

struct Params { key_low: u32, key_high: u32, threshold: u32, scale: f32, view: View }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

fn kept(i: u32, x: vec4<f32>) -> vec4<f32> {
    let words = philox(vec2(p.key_low, p.key_high), vec4(i, 0u, 0u, 0u));
    return select(vec4(0.0), x * p.scale, words >= vec4(p.threshold));
}

@compute @workgroup_size(256)
fn dense(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.view.count) {
        y4[i] = kept(i, x4[p.view.a / 4u + i]);
    }
}

fn element(i: u32) -> f32 {
    return x[places(p.view, min(i, p.view.count - 1u)).x];
}

// Storages are padded to whole fours.
@compute @workgroup_size(256)
fn strided(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.view.count) {
        y4[i] = kept(i, vec4(element(4u * i), element(4u * i + 1u), element(4u * i + 2u), element(4u * i + 3u)));
    }
}
