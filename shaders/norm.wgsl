// Layer and RMS normalisation of rows, CENTRED or not, and their gradients.

//!import rows

struct Params {
    rows: u32, width: u32,
    // Where operands begin.
    x: u32, w: u32, b: u32, c: u32,
    // 1/elements of a row.
    each: f32, epsilon: f32,
    // Of sums over rows: rows and number of parts, workgroups for one.
    part: u32, parts: u32, blocks: u32,
}
var<immediate> p: Params;

// Of each row 1/σ and, where CENTRED, its mean.
@group(0) @binding(0) var<storage, read_write> y: array<X>;
@group(0) @binding(1) var<storage, read_write> keep: array<f32>;
@group(0) @binding(1) var<storage, read> kept: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<X>;
@group(0) @binding(3) var<storage, read> w: array<X>;
@group(0) @binding(4) var<storage, read> b: array<X>;
@group(0) @binding(4) var<storage, read> c: array<X>;
@group(0) @binding(0) var<storage, read_write> partial: array<X>; // [parts, 2, width]

// Mean and 1/σ of a row.
struct Statistics { mean: f32, rstd: f32 }

fn measured(s: Span, thread: u32) -> Statistics {
    var mean = 0.0;
    if (CENTRED) {
        var own = 0.0;
        for (var j = s.lane; j < s.width; j += LANES) {
            own += total(x[p.x + s.start + j]);
        }
        mean = sum_across(thread, own) * p.each;
    }
    var own = 0.0;
    for (var j = s.lane; j < s.width; j += LANES) {
        let d = x[p.x + s.start + j] - X(mean);
        own += total(d * d);
    }
    return Statistics(mean, 1.0 / sqrt(sum_across(thread, own) * p.each + p.epsilon));
}

fn saved(row: u32) -> Statistics {
    if (CENTRED) { return Statistics(kept[2u * row + 1u], kept[2u * row]); }
    return Statistics(0.0, kept[row]);
}

@compute @workgroup_size(256)
fn forward(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let m = measured(s, thread);
    for (var j = s.lane; j < s.width; j += LANES) {
        var v = (x[p.x + s.start + j] - X(m.mean)) * m.rstd * w[p.w + j];
        if (CENTRED) { v += b[p.b + j]; }
        y[s.start + j] = v;
    }
    if (s.row < p.rows && s.lane == 0u) {
        if (CENTRED) {
            keep[2u * s.row] = m.rstd;
            keep[2u * s.row + 1u] = m.mean;
        } else {
            keep[s.row] = m.rstd;
        }
    }
}

// dx = (g − mean g − x̂ mean(g x̂))/σ with g = c w and x̂ = (x − mean)/σ; without `mean g` if not CENTRED.
@compute @workgroup_size(256)
fn backward(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let m = saved(min(s.row, p.rows - 1u));
    var own = vec2(0.0);
    for (var j = s.lane; j < s.width; j += LANES) {
        let g = c[p.c + s.start + j] * w[p.w + j];
        let unit = (x[p.x + s.start + j] - X(m.mean)) * m.rstd;
        own += vec2(total(g), total(g * unit));
    }
    let means = across(SUM, thread, own) * p.each;
    let shift = select(0.0, means.x, CENTRED);
    for (var j = s.lane; j < s.width; j += LANES) {
        let g = c[p.c + s.start + j] * w[p.w + j];
        let unit = (x[p.x + s.start + j] - X(m.mean)) * m.rstd;
        y[s.start + j] = (g - X(shift) - unit * means.y) * m.rstd;
    }
}

// Σ c x̂ and Σ c over the rows of a part: neighbouring threads take neighbouring columns, lanes take turns at the rows.
@compute @workgroup_size(256)
fn backward_weights(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let group = workgroup.x + workgroup.y * grid.x;
    let part = group / p.blocks;
    let column = group % p.blocks * LANE_STEP + thread % LANE_STEP;
    let inside = column < p.width && part < p.parts;
    let lane = thread / LANE_STEP;
    let end = select(0u, min(p.rows, (part + 1u) * p.part), inside);
    var own_w = X(0.0);
    var own_b = X(0.0);
    for (var row = part * p.part + lane; row < end; row += LANES) {
        let m = saved(row);
        let g = c[p.c + row * p.width + column];
        own_w += g * ((x[p.x + row * p.width + column] - X(m.mean)) * m.rstd);
        own_b += g;
    }
    let sum_w = four_across(SUM, thread, four(own_w));
    let sum_b = four_across(SUM, thread, four(own_b));
    if (inside && lane == 0u) {
        partial[part * 2u * p.width + column] = fit(sum_w);
        partial[(part * 2u + 1u) * p.width + column] = fit(sum_b);
    }
}
