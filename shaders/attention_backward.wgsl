// With probabilities P, cotangent C of the result y: A = C Vᵀ, G = scale P ∘ (A − D), D = rowsum(P ∘ A) = rowsum(C ∘ y),
// dQ = G K, dK = Gᵀ Q, dV = Pᵀ C. `queries` walks over keys and keeps D, `keys` comes after it and walks over queries.

//!import attention_tile

@group(0) @binding(1) var<storage, read_write> means: array<f32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> cotangent: array<f32>;
@group(0) @binding(4) var<storage, read> y: array<f32>;
@group(0) @binding(5) var<storage, read> lse: array<f32>;

const QKV = 0u;
const COTANGENT = 1u;
const Y = 2u;
const LSE = 3u;
const MEANS = 4u;

fn load(source: u32, i: u32) -> f32 {
    switch (source) {
        case QKV: { return qkv[i]; }
        case COTANGENT: { return cotangent[i]; }
        case Y: { return y[i]; }
        case LSE: { return lse[i]; }
        default: { return means[i]; }
    }
}

// rowsum(C ∘ y) of a thread's rows.
fn means_of(c: Head, y: Head, row: u32, at: vec2<u32>) -> vec4<f32> {
    var sum = vec4(0.0);
    for (var d = at.x; d < p.dim; d += 8u) {
        sum += four(c, row + at.y, 16u, d) * four(y, row + at.y, 16u, d);
    }
    return row_sums(sum, at);
}

@compute @workgroup_size(8, 16)
fn queries(
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
    let c = dense(COTANGENT, p.cotangent, work.batch, work.head, p.heads);
    let masks = mask_of(work.batch, work.head);
    let sums = four(of_rows(LSE, work.batch, work.head), row + at.y, 16u, 0u);
    let mean = means_of(c, dense(Y, 0u, work.batch, work.head, p.heads), row, at);
    if (work.first == 0u) {
        store_rows(of_rows(MEANS, work.batch, work.head), mean, row, at);
    }
    var dq: array<mat4x4<f32>, SLOTS>;
    for (var s = 0u; s < SLOTS; s++) {
        dq[s] = mat4x4<f32>();
    }
    for (var column = 0u; column < reach(row + ROWS); column += COLUMNS) {
        let scores = product(mat4x4<f32>(), q, row, k, column, at);
        let a = product(mat4x4<f32>(), c, row, v, column, at);
        let probable = probabilities(scores, row, column, sums, false, masks, at);
        accumulate(&dq, times(probable, minus_rows(a, mean)) * p.scale, k, column, work.first, at);
    }
    let out = dense(0u, 0u, work.batch, work.head, slots());
    for (var s = 0u; s < SLOTS; s++) {
        store(out, dq[s], row, work.first + s * 32u, at);
    }
}

fn store_rows(x: Head, values: vec4<f32>, row: u32, at: vec2<u32>) {
    var m = values;
    for (var i = 0u; i < 4u; i++) {
        let t = row + at.y + 16u * i;
        if (at.x == 0u && t < p.time) {
            means[x.start + t] = m[i];
        }
    }
}

@compute @workgroup_size(8, 16)
fn keys(
    @builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let group = id.x + id.y * grid.x;
    if (group >= p.groups) {
        return;
    }
    let at = local.xy;
    let work = place(group, p.kv_heads);
    let row = work.tile * ROWS;
    let k = packed(QKV, work.batch, key_slot(work.head));
    let v = packed(QKV, work.batch, value_slot(work.head));
    var dk: array<mat4x4<f32>, SLOTS>;
    var dv: array<mat4x4<f32>, SLOTS>;
    for (var s = 0u; s < SLOTS; s++) {
        dk[s] = mat4x4<f32>();
        dv[s] = mat4x4<f32>();
    }
    let group_size = p.heads / p.kv_heads;
    for (var i = 0u; i < group_size; i++) {
        let head = work.head * group_size + i;
        let q = packed(QKV, work.batch, head);
        let c = dense(COTANGENT, p.cotangent, work.batch, head, p.heads);
        let masks = mask_of(work.batch, head);
        for (var column = seen_from(row); column < p.time; column += COLUMNS) {
            let scores = product(mat4x4<f32>(), k, row, q, column, at);
            let a = product(mat4x4<f32>(), v, row, c, column, at);
            let sums = four(of_rows(LSE, work.batch, head), column + at.x, 8u, 0u);
            let mean = four(of_rows(MEANS, work.batch, head), column + at.x, 8u, 0u);
            let probable = probabilities(scores, row, column, sums, true, masks, at);
            accumulate(&dv, probable, c, column, work.first, at);
            accumulate(&dk, times(probable, minus_columns(a, mean)) * p.scale, q, column, work.first, at);
        }
    }
    let dk_out = dense(0u, 0u, work.batch, key_slot(work.head), slots());
    let dv_out = dense(0u, 0u, work.batch, value_slot(work.head), slots());
    for (var s = 0u; s < SLOTS; s++) {
        store(dk_out, dk[s], row, work.first + s * 32u, at);
        store(dv_out, dv[s], row, work.first + s * 32u, at);
    }
}
