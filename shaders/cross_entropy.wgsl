// Negative log-likelihood of target classes. Rows whose target is IGNORED do not count; what lies beyond the classes is
// nobody's: it is never used as an index, and its loss is not a number.

//!import rows

const IGNORED: u32 = 0xffffffffu;

struct Params {
    // Rows, and classes in what is read at once.
    rows: u32, width: u32,
    // Where operands begin.
    x: u32, targets: u32, t: u32, c: u32, dc: u32,
    // What no number is.
    nan: f32,
}
var<immediate> p: Params;

// Result and, of each row, ln Σ eˣ.
@group(0) @binding(0) var<storage, read_write> y: array<X>;
@group(0) @binding(0) var<storage, read_write> losses: array<f32>;
@group(0) @binding(1) var<storage, read_write> keep: array<f32>;
@group(0) @binding(1) var<storage, read> logs: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<X>;
@group(0) @binding(3) var<storage, read> targets: array<u32>;
@group(0) @binding(4) var<storage, read> t: array<X>;
// What one row's loss weighs, the cotangent, and its tangent.
@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(6) var<storage, read> c: array<f32>;
@group(0) @binding(7) var<storage, read> dc: array<f32>;
// Of the last step: the losses of rows, and their sum.
@group(0) @binding(2) var<storage, read> each: array<f32>;
@group(0) @binding(0) var<storage, read_write> whole: array<f32>;
@group(0) @binding(1) var<storage, read_write> weighs: array<f32>;

fn target_of(row: u32) -> u32 { return targets[p.targets + min(row, p.rows - 1u)]; }

// 1 where element `j` of a row holds the target, else 0.
fn hit(j: u32, wanted: u32) -> X {
    return fit(select(vec4(0.0), vec4(1.0), vec4(PACK * j) + vec4(0u, 1u, 2u, 3u) == vec4(wanted)));
}

// What a row with this target gives.
fn counted(wanted: u32, value: f32) -> f32 {
    if (wanted == IGNORED) { return 0.0; }
    return select(p.nan, value, wanted < p.width * PACK);
}

@compute @workgroup_size(256)
fn forward(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    var e = vec2(LOWEST, 0.0);
    for (var j = s.lane; j < s.width; j += LANES) {
        e = include(e, x[p.x + s.start + j]);
    }
    e = across(EXPONENTIALS, thread, e);
    if (s.row < p.rows && s.lane == 0u) {
        let wanted = target_of(s.row);
        var chosen = 0.0;
        if (wanted < p.width * PACK) {
            chosen = four(x[p.x + s.start + wanted / PACK])[wanted % PACK];
        }
        let log_sum = log(e.y);
        keep[s.row] = e.x + log_sum;
        losses[s.row] = counted(wanted, e.x - chosen + log_sum);
    }
}

// The sum of all rows, or its mean over those that count. One workgroup.
@compute @workgroup_size(256)
fn finish(@builtin(local_invocation_index) thread: u32) {
    var sum = 0.0;
    var count = 0.0;
    for (var row = thread; row < p.rows; row += 256u) {
        sum += each[row];
        count += select(1.0, 0.0, targets[p.targets + row] == IGNORED);
    }
    let all = across(SUM, thread, vec2(sum, count));
    if (thread == 0u) {
        let w = select(1.0, 1.0 / max(all.y, 1.0), MEAN);
        whole[0] = all.x * w;
        weighs[0] = w;
    }
}

// (softmax x − one-hot) c weight.
@compute @workgroup_size(256)
fn backward(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let wanted = target_of(s.row);
    let log_sum = X(logs[min(s.row, p.rows - 1u)]);
    let scale = select(c[p.c] * weight[0], 0.0, wanted == IGNORED);
    for (var j = s.lane; j < s.width; j += LANES) {
        y[s.start + j] = (decays(x[p.x + s.start + j] - log_sum) - hit(j, wanted)) * scale;
    }
}

// ---- along tangents t of x

// Σ softmax(x) t of a row: the tangent of ln Σ eˣ.
fn expected(s: Span, thread: u32) -> f32 {
    let log_sum = X(logs[min(s.row, p.rows - 1u)]);
    var own = 0.0;
    for (var j = s.lane; j < s.width; j += LANES) {
        own += total(decays(x[p.x + s.start + j] - log_sum) * t[p.t + s.start + j]);
    }
    return sum_across(thread, own);
}

// What each row adds to the tangent.
@compute @workgroup_size(256)
fn push(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let mean = expected(s, thread);
    if (s.row < p.rows && s.lane == 0u) {
        let wanted = target_of(s.row);
        var chosen = 0.0;
        if (wanted < p.width * PACK) {
            chosen = four(t[p.t + s.start + wanted / PACK])[wanted % PACK];
        }
        losses[s.row] = counted(wanted, mean - chosen);
    }
}

// softmax(x) (t − Σ softmax(x) t) c weight + (softmax x − one-hot) dc weight; without t unless MOVES.
@compute @workgroup_size(256)
fn pull(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let wanted = target_of(s.row);
    let log_sum = X(logs[min(s.row, p.rows - 1u)]);
    let scale = select(c[p.c] * weight[0], 0.0, wanted == IGNORED);
    let bend = select(dc[p.dc] * weight[0], 0.0, wanted == IGNORED || !BENDS);
    var mean = 0.0;
    if (MOVES) { mean = expected(s, thread); }
    for (var j = s.lane; j < s.width; j += LANES) {
        var along = X(bend);
        if (MOVES) { along += (t[p.t + s.start + j] - X(mean)) * scale; }
        y[s.start + j] = decays(x[p.x + s.start + j] - log_sum) * along - hit(j, wanted) * bend;
    }
}
