// Elements as they are, whatever their type: words, or halves two to a word.

//!import view

// Of a copy into a larger tensor `x`, `y` and `z` are the elements of a run, the distance from run to run there, and
// where the first begins.
var<immediate> p: View;

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(0) var<storage, read_write> y4: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<u32>>;

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

// Element `i` of the view, in the low half.
fn half(i: u32) -> u32 {
    let at = places(p, i).x;
    return (x[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
}

@compute @workgroup_size(256)
fn dense(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.count) {
        y4[i] = x4[p.a / 4u + i];
    }
}

@compute @workgroup_size(256)
fn strided(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        y[i] = x[places(p, i).x];
    }
}

// A thread makes a whole word, so that no two write the same one.
@compute @workgroup_size(256)
fn halves(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = 2u * index(id, grid);
    if (i < p.count) {
        y[i / 2u] = half(i) | (half(min(i + 1u, p.count - 1u)) << 16u);
    }
}

@compute @workgroup_size(256)
fn place(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        y[i / p.x * p.y + p.z + i % p.x] = x[places(p, i).x];
    }
}
