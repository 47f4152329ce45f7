// Sums and extremes over some dimensions of a strided view. Lanes that share a result lie side by side where what they
// join does (LANE_STEP is 1); else neighbouring threads take neighbouring results. Long ones are cut into parts, which
// are joined by another dispatch.

//!import lanes

// Sizes and steps, innermost first; the outermost needs no size, and its step comes last. In uniforms, structures
// begin at multiples of four words.
struct Dims {
    n0: u32, n1: u32, n2: u32, n3: u32, n4: u32,
    s0: u32, s1: u32, s2: u32, s3: u32, s4: u32, s5: u32,
    unused: u32,
}
struct Params {
    // Results (whole fours in columns); elements joined for each (whole fours if dense), for each part; parts;
    // workgroups for one part.
    results: u32, length: u32, part: u32, parts: u32, blocks: u32,
    offset: u32,
    start: f32, scale: f32,
    kept: Dims,
    gone: Dims,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<f32>; // [parts, results]
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(0) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;

// Elements that are added up before their sum joins the rest: rounding errors grow slowly.
const RUN: u32 = 32u;

fn place(dims: u32, d: Dims, i: u32) -> u32 {
    var rest = i;
    var at = 0u;
    if (dims > 1u) { at += rest % d.n0 * d.s0; rest /= d.n0; }
    if (dims > 2u) { at += rest % d.n1 * d.s1; rest /= d.n1; }
    if (dims > 3u) { at += rest % d.n2 * d.s2; rest /= d.n2; }
    if (dims > 4u) { at += rest % d.n3 * d.s3; rest /= d.n3; }
    if (dims > 5u) { at += rest % d.n4 * d.s4; rest /= d.n4; }
    return at + rest * d.s5;
}

fn one(a: f32, b: f32) -> f32 { return join(JOIN, vec2(a), vec2(b)).x; }
fn four(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4(join(JOIN, a.xy, b.xy), join(JOIN, a.zw, b.zw));
}

// What a thread joins: elements `first`, `first + LANES`, … below `end`, of the view from `base` on.
struct Share { result: u32, part: u32, inside: bool, base: u32, first: u32, end: u32 }

fn share(thread: u32, workgroup: vec3<u32>, grid: vec3<u32>) -> Share {
    let group = workgroup.x + workgroup.y * grid.x;
    let part = group / p.blocks;
    let slot = select(thread / LANES, thread % LANE_STEP, LANE_STEP > 1u);
    let result = group % p.blocks * (256u / LANES) + slot;
    let inside = result < p.results && part < p.parts;
    let base = p.offset + place(KEPT_DIMS, p.kept, result);
    let first = part * p.part + thread / LANE_STEP % LANES;
    return Share(result, part, inside, base, first, select(0u, min(p.length, (part + 1u) * p.part), inside));
}

fn finish(s: Share, thread: u32, own: f32) {
    let whole = across(JOIN, thread, vec2(own)).x;
    if (s.inside && thread / LANE_STEP % LANES == 0u) {
        y[s.part * p.results + s.result] = whole * p.scale;
    }
}

@compute @workgroup_size(256)
fn strided(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = share(thread, workgroup, grid);
    var all = p.start;
    var i = s.first;
    while (i < s.end) {
        var run = p.start;
        let last = min(s.end, i + RUN * LANES);
        for (; i < last; i += LANES) {
            run = one(run, x[s.base + place(GONE_DIMS, p.gone, i)]);
        }
        all = one(all, run);
    }
    finish(s, thread, all);
}

// Four by four.
fn join_fours(s: Share) -> vec4<f32> {
    var all = vec4(p.start);
    var i = s.first;
    while (i < s.end) {
        var run = vec4(p.start);
        let last = min(s.end, i + RUN * LANES);
        for (; i < last; i += LANES) {
            run = four(run, x4[s.base + place(GONE_DIMS, p.gone, i)]);
        }
        all = four(all, run);
    }
    return all;
}

// Elements that are joined lie side by side, in whole fours.
@compute @workgroup_size(256)
fn dense(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = share(thread, workgroup, grid);
    let all = join_fours(s);
    finish(s, thread, one(one(all.x, all.y), one(all.z, all.w)));
}

// What results come from lies side by side, in whole fours.
@compute @workgroup_size(256)
fn columns(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = share(thread, workgroup, grid);
    let whole = four_across(JOIN, thread, join_fours(s));
    if (s.inside && thread / LANE_STEP % LANES == 0u) {
        y4[s.part * p.results + s.result] = whole * p.scale;
    }
}
