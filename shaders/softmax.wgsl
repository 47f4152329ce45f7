// Softmax of rows, its logarithm, and their derivatives, which need the result y alone.

//!import rows

struct Params { rows: u32, width: u32, x: u32, c: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<X>;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> c: array<X>;

// Largest element of a row and Σ e^(x − largest).
fn exponentials(s: Span, thread: u32) -> vec2<f32> {
    var e = vec2(LOWEST, 0.0);
    for (var j = s.lane; j < s.width; j += LANES) {
        e = include(e, x[p.x + s.start + j]);
    }
    return across(EXPONENTIALS, thread, e);
}

@compute @workgroup_size(256)
fn softmax(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let e = exponentials(s, thread);
    let scale = 1.0 / e.y;
    for (var j = s.lane; j < s.width; j += LANES) {
        y[s.start + j] = decays(x[p.x + s.start + j] - X(e.x)) * scale;
    }
}

@compute @workgroup_size(256)
fn log_softmax(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let e = exponentials(s, thread);
    let log_sum = log(e.y);
    for (var j = s.lane; j < s.width; j += LANES) {
        y[s.start + j] = x[p.x + s.start + j] - X(e.x) - X(log_sum);
    }
}

// ---- derivatives; x is the forward result here

// x (c − Σ x c): of softmax, its own transpose.
@compute @workgroup_size(256)
fn project(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    var own = 0.0;
    for (var j = s.lane; j < s.width; j += LANES) {
        own += total(x[p.x + s.start + j] * c[p.c + s.start + j]);
    }
    let mean = sum_across(thread, own);
    for (var j = s.lane; j < s.width; j += LANES) {
        y[s.start + j] = x[p.x + s.start + j] * (c[p.c + s.start + j] - X(mean));
    }
}

// c − Σ eˣ c: of its logarithm.
@compute @workgroup_size(256)
fn log_push(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    var own = 0.0;
    for (var j = s.lane; j < s.width; j += LANES) {
        own += total(decays(x[p.x + s.start + j]) * c[p.c + s.start + j]);
    }
    let mean = sum_across(thread, own);
    for (var j = s.lane; j < s.width; j += LANES) {
        y[s.start + j] = c[p.c + s.start + j] - X(mean);
    }
}

// c − eˣ Σ c: the transpose of that.
@compute @workgroup_size(256)
fn log_pull(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    var own = 0.0;
    for (var j = s.lane; j < s.width; j += LANES) {
        own += total(c[p.c + s.start + j]);
    }
    let whole = sum_across(thread, own);
    for (var j = s.lane; j < s.width; j += LANES) {
        y[s.start + j] = c[p.c + s.start + j] - decays(x[p.x + s.start + j]) * whole;
    }
}
