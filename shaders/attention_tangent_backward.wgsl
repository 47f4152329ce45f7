// The tangent of attention's gradient, dots marking tangents and names as in attention_backward.wgsl:
// Ṡ = scale (Q̇ Kᵀ + Q K̇ᵀ), Ȧ = Ċ Vᵀ + C V̇ᵀ, μ = rowsum(P ∘ Ṡ), Ṗ = P ∘ (Ṡ − μ), Ḋ = rowsum(Ṗ ∘ A + P ∘ Ȧ),
// Ġ = scale (Ṗ ∘ (A − D) + P ∘ (Ȧ − Ḋ)), dQ̇ = Ġ K + G K̇, dK̇ = Ġᵀ Q + Gᵀ Q̇, dV̇ = Ṗᵀ C + Pᵀ Ċ.
// `moments` leaves D, μ and Ḋ, which `queries` and `keys` take.

//!import attention_tile

@group(0) @binding(1) var<storage, read_write> means: array<f32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> qkv_dot: array<f32>;
@group(0) @binding(4) var<storage, read> cotangent: array<f32>;
@group(0) @binding(5) var<storage, read> cotangent_dot: array<f32>;
@group(0) @binding(6) var<storage, read> lse: array<f32>;

const QKV = 0u;
const QKV_DOT = 1u;
const COTANGENT = 2u;
const COTANGENT_DOT = 3u;
const LSE = 4u;
const MEANS = 5u;

fn load(source: u32, i: u32) -> f32 {
    switch (source) {
        case QKV: { return qkv[i]; }
        case QKV_DOT: { return qkv_dot[i]; }
        case COTANGENT: { return cotangent[i]; }
        // Bound to something else where the cotangent does not move.
        case COTANGENT_DOT: { return select(0.0, cotangent_dot[i], COTANGENT_MOVES); }
        case LSE: { return lse[i]; }
        default: { return means[i]; }
    }
}

// A head and its tangent.
struct Moving { x: Head, dot: Head }

fn moving(batch: u32, slot: u32) -> Moving {
    return Moving(packed(QKV, batch, slot), dense(QKV_DOT, p.qkv_dot, batch, slot, slots()));
}

fn moving_cotangent(batch: u32, head: u32) -> Moving {
    return Moving(
        dense(COTANGENT, p.cotangent, batch, head, p.heads),
        dense(COTANGENT_DOT, p.cotangent_dot, batch, head, p.heads),
    );
}

// The tangent of a product.
fn product_dot(a: Moving, row: u32, b: Moving, column: u32, at: vec2<u32>) -> mat4x4<f32> {
    return product(product(mat4x4<f32>(), a.dot, row, b.x, column, at), a.x, row, b.dot, column, at);
}

// Of a tile: P, Ṡ, A and Ȧ.
struct Tile { p: mat4x4<f32>, s_dot: mat4x4<f32>, a: mat4x4<f32>, a_dot: mat4x4<f32> }

// Rows' heads that make scores and A, from `row` on, and columns' from `column` on. Rows are keys if `flip`.
fn tile(
    rows: Moving, row_shares: Moving, row: u32, columns: Moving, column_shares: Moving, column: u32,
    lse: vec4<f32>, flip: bool, masks: u32, at: vec2<u32>,
) -> Tile {
    let scores = product(mat4x4<f32>(), rows.x, row, columns.x, column, at);
    let s_dot = product_dot(rows, row, columns, column, at) * p.scale;
    let a = product(mat4x4<f32>(), row_shares.x, row, column_shares.x, column, at);
    let a_dot = product_dot(row_shares, row, column_shares, column, at);
    return Tile(probabilities(scores, row, column, lse, flip, masks, at), s_dot, a, a_dot);
}

// D, μ and Ḋ of four queries.
struct Means { d: vec4<f32>, mu: vec4<f32>, d_dot: vec4<f32> }

// One of the three numbers of each query: [batch, heads, time, 3].
fn of_means(which: u32, batch: u32, head: u32) -> Head {
    return Head(MEANS, (batch * p.heads + head) * p.time * 3u + which, 3u, 0u);
}

// Those of times t + step (0, 1, 2, 3).
fn means_of(batch: u32, head: u32, t: u32, step: u32) -> Means {
    return Means(
        four(of_means(0u, batch, head), t, step, 0u), four(of_means(1u, batch, head), t, step, 0u),
        four(of_means(2u, batch, head), t, step, 0u),
    );
}

// Ṗ, G and Ġ.
struct Weights { p_dot: mat4x4<f32>, g: mat4x4<f32>, g_dot: mat4x4<f32> }

// From Ṡ, A and Ȧ less their means.
fn weights(p: mat4x4<f32>, s_dot: mat4x4<f32>, a: mat4x4<f32>, a_dot: mat4x4<f32>, scale: f32) -> Weights {
    let p_dot = times(p, s_dot);
    return Weights(p_dot, times(p, a) * scale, (times(p_dot, a) + times(p, a_dot)) * scale);
}

@compute @workgroup_size(8, 16)
fn moments(
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
    let q = moving(work.batch, work.head);
    let k = moving(work.batch, key_slot(kv));
    let v = moving(work.batch, value_slot(kv));
    let c = moving_cotangent(work.batch, work.head);
    let masks = mask_of(work.batch, work.head);
    let sums = four(of_rows(LSE, work.batch, work.head), row + at.y, 16u, 0u);
    var d = vec4(0.0);
    var mu = vec4(0.0);
    var mixed = vec4(0.0);
    for (var column = 0u; column < reach(row + ROWS); column += COLUMNS) {
        let t = tile(q, c, row, k, v, column, sums, false, masks, at);
        d += across(times(t.p, t.a));
        mu += across(times(t.p, t.s_dot));
        mixed += across(times(t.p, times(t.s_dot, t.a) + t.a_dot));
    }
    d = row_sums(d, at);
    mu = row_sums(mu, at);
    var d_dot = row_sums(mixed, at) - mu * d;
    for (var i = 0u; i < 4u; i++) {
        let time = row + at.y + 16u * i;
        if (at.x == 0u && time < p.time) {
            let place = of_means(0u, work.batch, work.head).start + 3u * time;
            means[place] = d[i];
            means[place + 1u] = mu[i];
            means[place + 2u] = d_dot[i];
        }
    }
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
    let q = moving(work.batch, work.head);
    let k = moving(work.batch, key_slot(kv));
    let v = moving(work.batch, value_slot(kv));
    let c = moving_cotangent(work.batch, work.head);
    let masks = mask_of(work.batch, work.head);
    let sums = four(of_rows(LSE, work.batch, work.head), row + at.y, 16u, 0u);
    let mean = means_of(work.batch, work.head, row + at.y, 16u);
    var dq: array<mat4x4<f32>, SLOTS>;
    for (var s = 0u; s < SLOTS; s++) {
        dq[s] = mat4x4<f32>();
    }
    for (var column = 0u; column < reach(row + ROWS); column += COLUMNS) {
        let t = tile(q, c, row, k, v, column, sums, false, masks, at);
        let w = weights(
            t.p, minus_rows(t.s_dot, mean.mu), minus_rows(t.a, mean.d), minus_rows(t.a_dot, mean.d_dot), p.scale,
        );
        accumulate(&dq, w.g_dot, k.x, column, work.first, at);
        accumulate(&dq, w.g, k.dot, column, work.first, at);
    }
    let out = dense(0u, 0u, work.batch, work.head, slots());
    for (var s = 0u; s < SLOTS; s++) {
        store(out, dq[s], row, work.first + s * 32u, at);
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
    let k = moving(work.batch, key_slot(work.head));
    let v = moving(work.batch, value_slot(work.head));
    var dk: array<mat4x4<f32>, SLOTS>;
    var dv: array<mat4x4<f32>, SLOTS>;
    for (var s = 0u; s < SLOTS; s++) {
        dk[s] = mat4x4<f32>();
        dv[s] = mat4x4<f32>();
    }
    let group_size = p.heads / p.kv_heads;
    for (var i = 0u; i < group_size; i++) {
        let head = work.head * group_size + i;
        let q = moving(work.batch, head);
        let c = moving_cotangent(work.batch, head);
        let masks = mask_of(work.batch, head);
        for (var column = seen_from(row); column < p.time; column += COLUMNS) {
            let sums = four(of_rows(LSE, work.batch, head), column + at.x, 8u, 0u);
            let mean = means_of(work.batch, head, column + at.x, 8u);
            let t = tile(k, v, row, q, c, column, sums, true, masks, at);
            let w = weights(
                t.p, minus_columns(t.s_dot, mean.mu), minus_columns(t.a, mean.d), minus_columns(t.a_dot, mean.d_dot),
                p.scale,
            );
            accumulate(&dv, w.p_dot, c.x, column, work.first, at);
            accumulate(&dv, t.p, c.dot, column, work.first, at);
            accumulate(&dk, w.g_dot, q.x, column, work.first, at);
            accumulate(&dk, w.g, q.dot, column, work.first, at);
        }
    }
    let dk_out = dense(0u, 0u, work.batch, key_slot(work.head), slots());
    let dv_out = dense(0u, 0u, work.batch, value_slot(work.head), slots());
    for (var s = 0u; s < SLOTS; s++) {
        store(dk_out, dk[s], row, work.first + s * 32u, at);
        store(dv_out, dv[s], row, work.first + s * 32u, at);
    }
}
