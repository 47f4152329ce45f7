// y = softmax(scale q kᵀ) v, keys in tiles, with the largest score and the sum of exponentials so far (Milakov &
// Gimelshein 2018; Dao et al. 2022); lse is the logarithm of the sum of exponentials, 0 where nothing is seen.

//!import attention_tile

@group(0) @binding(1) var<storage, read_write> lse: array<f32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;

// Of a hidden key; no infinity is needed.
const HIDDEN = -3.4e38;

fn load(source: u32, i: u32) -> f32 {
    return qkv[i];
}

// Scores with hidden ones marked.
fn marked(products: mat4x4<f32>, row: u32, column: u32, masks: u32, at: vec2<u32>) -> mat4x4<f32> {
    var m = products;
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let seen = sees(row + at.y + 16u * i, column + at.x + 8u * j, masks);
            m[i][j] = select(HIDDEN, m[i][j] * p.scale, seen);
        }
    }
    return m;
}

// e^(score − largest), 0 for what is marked.
fn exponentials(scores: vec4<f32>, largest: f32) -> vec4<f32> {
    return select(vec4(0.0), exp(scores - largest), scores > vec4(HIDDEN));
}

fn largest_of(four: vec4<f32>) -> f32 {
    return max(max(four.x, four.y), max(four.z, four.w));
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
    // Long rows first.
    let row = (p.tiles - 1u - work.tile) * ROWS;
    let kv = work.head / (p.heads / p.kv_heads);
    let q = packed(0u, work.batch, work.head);
    let k = packed(0u, work.batch, key_slot(kv));
    let v = packed(0u, work.batch, value_slot(kv));
    let masks = mask_of(work.batch, work.head);
    var largest = vec4(HIDDEN);
    var sum = vec4(0.0);
    var y: array<mat4x4<f32>, SLOTS>;
    for (var s = 0u; s < SLOTS; s++) {
        y[s] = mat4x4<f32>();
    }
    for (var column = 0u; column < reach(row + ROWS); column += COLUMNS) {
        let scores = marked(product(mat4x4<f32>(), q, row, k, column, at), row, column, masks, at);
        let mine = vec4(largest_of(scores[0]), largest_of(scores[1]), largest_of(scores[2]), largest_of(scores[3]));
        let next = max(largest, row_largest(mine, at));
        let shrink = exp(largest - next);
        largest = next;
        let weights = mat4x4(
            exponentials(scores[0], next.x), exponentials(scores[1], next.y), exponentials(scores[2], next.z),
            exponentials(scores[3], next.w),
        );
        sum = sum * shrink + across(weights);
        for (var s = 0u; s < SLOTS; s++) {
            y[s] = times_rows(y[s], shrink);
        }
        accumulate(&y, weights, v, column, work.first, at);
    }
    sum = row_sums(sum, at);
    let share = select(vec4(0.0), 1.0 / sum, sum > vec4(0.0));
    let out = dense(0u, 0u, work.batch, work.head, p.heads);
    for (var s = 0u; s < SLOTS; s++) {
        store(out, times_rows(y[s], share), row, work.first + s * 32u, at);
    }
    let logs = select(vec4(0.0), largest + log(sum), sum > vec4(0.0));
    if (at.x == 0u && work.first == 0u) {
        for (var i = 0u; i < 4u; i++) {
            let t = row + at.y + 16u * i;
            if (t < p.time) {
                lse[(work.batch * p.heads + work.head) * p.time + t] = logs[i];
            }
        }
    }
}
