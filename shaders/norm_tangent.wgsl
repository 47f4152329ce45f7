// Tangents of layer and RMS normalisation and of their gradients. Of what stands still (MOVES_X, MOVES_W and so on
// are false) something else is bound, and not read.
//
// With x̂ = (x − mean)/σ and a direction t of x: x̂' = (t − mean t − x̂ mean(x̂ t))/σ, and (1/σ)' = −mean(x̂ t)/σ².

//!import rows

struct Params {
    rows: u32, width: u32,
    // Where operands begin.
    x: u32, w: u32, t: u32, wt: u32, c: u32, ct: u32,
    // 1/elements of a row.
    each: f32,
    // Of sums over rows: rows and number of parts, workgroups for one.
    part: u32, parts: u32, blocks: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<X>;
@group(0) @binding(1) var<storage, read> kept: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<X>;
@group(0) @binding(3) var<storage, read> w: array<X>;
@group(0) @binding(4) var<storage, read> t: array<X>;
@group(0) @binding(5) var<storage, read> wt: array<X>;
@group(0) @binding(6) var<storage, read> bt: array<X>;
@group(0) @binding(6) var<storage, read> c: array<X>;
@group(0) @binding(7) var<storage, read> ct: array<X>;
// Of sums over rows: the means of each row, and what the parts give, [parts, 2, width].
@group(0) @binding(0) var<storage, read_write> keep: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> means: array<vec2<f32>>;
@group(0) @binding(0) var<storage, read_write> partial: array<X>;

// Mean and 1/σ of a row.
struct Statistics { mean: f32, rstd: f32 }

fn saved(row: u32) -> Statistics {
    if (CENTRED) { return Statistics(kept[2u * row + 1u], kept[2u * row]); }
    return Statistics(0.0, kept[row]);
}

// x̂.
fn unit(at: u32, m: Statistics) -> X { return (x[p.x + at] - X(m.mean)) * m.rstd; }

// x̂', `d` being mean t and mean(x̂ t).
fn moved(at: u32, unit: X, m: Statistics, d: vec2<f32>) -> X { return (t[p.t + at] - X(d.x) - unit * d.y) * m.rstd; }

// Mean t, 0 if not CENTRED, and mean(x̂ t).
fn drift(s: Span, m: Statistics, thread: u32) -> vec2<f32> {
    var own = vec2(0.0);
    for (var j = s.lane; j < s.width; j += LANES) {
        let along = t[p.t + s.start + j];
        own += vec2(select(0.0, total(along), CENTRED), total(along * unit(s.start + j, m)));
    }
    return across(SUM, thread, own) * p.each;
}

// Tangent of x̂ w + b.
@compute @workgroup_size(256)
fn push(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let m = saved(min(s.row, p.rows - 1u));
    var d = vec2(0.0);
    if (MOVES_X) { d = drift(s, m, thread); }
    for (var j = s.lane; j < s.width; j += LANES) {
        let u = unit(s.start + j, m);
        var v = X(0.0);
        if (MOVES_X) { v += moved(s.start + j, u, m, d) * w[p.w + j]; }
        if (MOVES_W) { v += u * wt[p.wt + j]; }
        if (MOVES_B) { v += bt[p.c + j]; }
        y[s.start + j] = v;
    }
}

// Tangent of g = c w.
fn moved_cotangent(at: u32, j: u32) -> X {
    var g = X(0.0);
    if (MOVES_C) { g += ct[p.ct + at] * w[p.w + j]; }
    if (MOVES_W) { g += c[p.c + at] * wt[p.wt + j]; }
    return g;
}

// Tangent of dx = (g − mean g − x̂ mean(g x̂))/σ.
@compute @workgroup_size(256)
fn pull(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let m = saved(min(s.row, p.rows - 1u));
    // Σ g and Σ g x̂, the same of g', and Σ g t.
    var own = vec2(0.0);
    var own_moved = vec2(0.0);
    var own_along = 0.0;
    for (var j = s.lane; j < s.width; j += LANES) {
        let at = s.start + j;
        let u = unit(at, m);
        let g = c[p.c + at] * w[p.w + j];
        let dg = moved_cotangent(at, j);
        own += vec2(total(g), total(g * u));
        own_moved += vec2(total(dg), total(dg * u));
        if (MOVES_X) { own_along += total(g * t[p.t + at]); }
    }
    var g_means = across(SUM, thread, own) * p.each;
    var dg_means = across(SUM, thread, own_moved) * p.each;
    if (!CENTRED) {
        g_means.x = 0.0;
        dg_means.x = 0.0;
    }
    var d = vec2(0.0);
    if (MOVES_X) {
        d = drift(s, m, thread);
        // Mean(g x̂').
        let along = sum_across(thread, own_along) * p.each;
        dg_means.y += m.rstd * (along - d.x * g_means.x - d.y * g_means.y);
    }
    for (var j = s.lane; j < s.width; j += LANES) {
        let at = s.start + j;
        let u = unit(at, m);
        var v = moved_cotangent(at, j) - X(dg_means.x) - u * dg_means.y;
        if (MOVES_X) {
            let dx = (c[p.c + at] * w[p.w + j] - X(g_means.x) - u * g_means.y) * m.rstd;
            v -= moved(at, u, m, d) * g_means.y + dx * d.y;
        }
        y[at] = v * m.rstd;
    }
}

// Of each row mean t and mean(x̂ t).
@compute @workgroup_size(256)
fn drifts(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let d = drift(s, saved(min(s.row, p.rows - 1u)), thread);
    if (s.row < p.rows && s.lane == 0u) {
        keep[s.row] = d;
    }
}

// Tangents of Σ c x̂ and Σ c over the rows of a part.
@compute @workgroup_size(256)
fn pull_weights(
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
        let at = row * p.width + column;
        let m = saved(row);
        let u = unit(at, m);
        if (MOVES_X) { own_w += c[p.c + at] * moved(at, u, m, means[row]); }
        if (MOVES_C) {
            own_w += ct[p.ct + at] * u;
            own_b += ct[p.ct + at];
        }
    }
    let sum_w = four_across(SUM, thread, four(own_w));
    let sum_b = four_across(SUM, thread, four(own_b));
    if (inside && lane == 0u) {
        partial[part * 2u * p.width + column] = fit(sum_w);
        partial[(part * 2u + 1u) * p.width + column] = fit(sum_b);
    }
}
