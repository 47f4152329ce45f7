// The tangent of attention's result, dots marking tangents: Ṡ = scale (Q̇ Kᵀ + Q K̇ᵀ), Ẏ = (P ∘ Ṡ) V + P V̇ − μ ∘ Y,
// μ = rowsum(P ∘ Ṡ), which is known when all keys have been seen.

//!import attention_tile

@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> qkv_dot: array<f32>;
@group(0) @binding(3) var<storage, read> y: array<f32>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;

const QKV = 0u;
const QKV_DOT = 1u;
const LSE = 2u;

fn load(source: u32, i: u32) -> f32 {
    switch (source) {
        case QKV: { return qkv[i]; }
        case QKV_DOT: { return qkv_dot[i]; }
        default: { return lse[i]; }
    }
}

// μ ∘ Y, for rows y + 16 i and dimensions first + x + 8 j.
fn drift(x: Head, mean: vec4<f32>, row: u32, first: u32, at: vec2<u32>) -> mat4x4<f32> {
    var m = mat4x4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let t = row + at.y + 16u * i;
        for (var j = 0u; j < 4u; j++) {
            let d = first + at.x + 8u * j;
            if (t < p.time && d < p.dim) {
                m[i][j] = y[x.start + t * x.time + d * x.dim];
            }
        }
    }
    return times_rows(m, mean);
}

@compute @workgroup_size(8, 16)
fn forward(
    @builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let group = id.x + id.y * grid.x;
    if (group >= p.groups) {
        return;
    }
    let at = local.xy;
    let work = place(group, p.heads);
    let row = (p.tiles - 1u - work.tile) * ROWS;
    let kv = work.head / (p.heads / p.kv_heads);
    let q = packed(QKV, work.batch, work.head);
    let k = packed(QKV, work.batch, key_slot(kv));
    let v = packed(QKV, work.batch, value_slot(kv));
    let q_dot = dense(QKV_DOT, p.qkv_dot, work.batch, work.head, slots());
    let k_dot = dense(QKV_DOT, p.qkv_dot, work.batch, key_slot(kv), slots());
    let v_dot = dense(QKV_DOT, p.qkv_dot, work.batch, value_slot(kv), slots());
    let masks = mask_of(work.batch, work.head);
    let sums = four(of_rows(LSE, work.batch, work.head), row + at.y, 16u, 0u);
    var mean = vec4(0.0);
    var y_dot: array<mat4x4<f32>, SLOTS>;
    for (var s = 0u; s < SLOTS; s++) {
        y_dot[s] = mat4x4<f32>();
    }
    for (var column = 0u; column < reach(row + ROWS); column += COLUMNS) {
        let scores = product(mat4x4<f32>(), q, row, k, column, at);
        let half = product(mat4x4<f32>(), q_dot, row, k, column, at);
        let scores_dot = product(half, q, row, k_dot, column, at) * p.scale;
        let probable = probabilities(scores, row, column, sums, false, masks, at);
        let moved = times(probable, scores_dot);
        mean += across(moved);
        accumulate(&y_dot, moved, v, column, work.first, at);
        accumulate(&y_dot, probable, v_dot, column, work.first, at);
    }
    mean = row_sums(mean, at);
    let out = dense(0u, 0u, work.batch, work.head, p.heads);
    for (var s = 0u; s < SLOTS; s++) {
        let first = work.first + s * 32u;
        store(out, y_dot[s] - drift(out, mean, row, first, at), row, first, at);
    }
}
