// Element i is kept if word i of the seed is at least the threshold. A thread draws four words for four elements, and
// does so DRAWS times, so that folding the seed, which each thread does for itself, costs less than the draws.

//!import philox

struct Params {
    // Elements; where x begins, for `fours` in fours, and where the seed does.
    count: u32, x: u32, seed: u32,
    threshold: u32, scale: f32,
    // Numbers to be folded into the seed, 64 bits each.
    folds: u32, first_low: u32, first_high: u32, second_low: u32, second_high: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> seed: array<u32>;

fn folded(k: vec2<u32>, low: u32, high: u32) -> vec2<u32> {
    return philox(k, vec4(low, high, 0x5eedu, 1u)).xy;
}

// As `Seed::fold` in src/rng.rs.
fn key() -> vec2<u32> {
    var k = vec2(seed[p.seed], seed[p.seed + 1u]);
    if (p.folds > 0u) { k = folded(k, p.first_low, p.first_high); }
    if (p.folds > 1u) { k = folded(k, p.second_low, p.second_high); }
    return k;
}

// The first four that a thread takes; the others follow in steps of a workgroup.
fn first(lane: u32, workgroup: vec3<u32>, grid: vec3<u32>) -> u32 {
    return (workgroup.x + workgroup.y * grid.x) * 256u * DRAWS + lane;
}

fn kept(k: vec2<u32>, i: u32, x: vec4<f32>) -> vec4<f32> {
    let words = philox(k, vec4(i, 0u, 0u, 0u));
    return select(vec4(0.0), x * p.scale, words >= vec4(p.threshold));
}

@compute @workgroup_size(256)
fn fours(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let k = key();
    var i = first(lane, workgroup, grid);
    for (var draw = 0u; draw < DRAWS && 4u * i < p.count; draw++) {
        y4[i] = kept(k, i, x4[p.x + i]);
        i += 256u;
    }
}

fn element(i: u32) -> f32 {
    return x[p.x + min(i, p.count - 1u)];
}

// Storages are padded to whole fours.
@compute @workgroup_size(256)
fn ones(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let k = key();
    var i = first(lane, workgroup, grid);
    for (var draw = 0u; draw < DRAWS && 4u * i < p.count; draw++) {
        y4[i] = kept(k, i, vec4(element(4u * i), element(4u * i + 1u), element(4u * i + 2u), element(4u * i + 3u)));
        i += 256u;
    }
}
