// Elements as they are, whatever their type: words, or halves two to a word.

//!import view

struct Params {
    // Of a copy into a larger tensor: elements of a run, distance from run to run there, where the first begins, and
    // elements in all.
    run: u32, step: u32, start: u32, size: u32,
    view: View,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(0) var<storage, read_write> y4: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<u32>>;

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

// Element `i` of the view, in the low half.
fn half(i: u32) -> u32 {
    let at = places(p.view, i).x;
    return (x[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
}

@compute @workgroup_size(256)
fn dense(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.view.count) {
        y4[i] = x4[p.view.a / 4u + i];
    }
}

@compute @workgroup_size(256)
fn strided(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.view.count) {
        y[i] = x[places(p.view, i).x];
    }
}

// A thread makes a whole word, so that no two write the same one.
@compute @workgroup_size(256)
fn halves(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = 2u * index(id, grid);
    if (i < p.view.count) {
        y[i / 2u] = half(i) | (half(min(i + 1u, p.view.count - 1u)) << 16u);
    }
}

@compute @workgroup_size(256)
fn place(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.view.count) {
        y[i / p.run * p.step + p.start + i % p.run] = x[places(p.view, i).x];
    }
}

// Element `i` of the larger tensor, in the low half: from a run, or as it was.
fn placed(i: u32, old: u32) -> u32 {
    let within = i % p.step - p.start;
    if (i < p.size && i % p.step >= p.start && within < p.run) {
        return half(i / p.step * p.run + within);
    }
    return old;
}

// The same for halves. A thread makes a whole word of the larger tensor, where runs begin at any half.
@compute @workgroup_size(256)
fn place_halves(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (2u * i < p.size) {
        let old = y[i];
        y[i] = placed(2u * i, old & 0xffffu) | (placed(2u * i + 1u, old >> 16u) << 16u);
    }
}
