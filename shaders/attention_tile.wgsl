// What the kernels of attention share: tiles of 64 rows by 32 columns, rows being queries and columns keys or the other
// way round. A workgroup of 8 × 16 threads owns 64 rows and walks over the columns; scores of a tile are products over
// the head's dimensions, and never leave the workgroup.
//
// Thread (x, y) holds a tile as a matrix m, m[i][j] for row y + 16 i and column x + 8 j, and sums over columns as SLOTS
// such matrices, one for every 32 dimensions. Numbers that threads share lie in fours, rows y + 16 i or columns x + 8 j,
// so that neighbours read neighbours' words; places are exchanged (^) so that transposed writes do not share a bank.

struct Params {
    groups: u32,
    // Tiles of rows, and parts of a head's dimensions that different workgroups sum.
    tiles: u32, slabs: u32,
    time: u32, heads: u32, kv_heads: u32, dim: u32,
    scale: f32,
    // Where the packed operand begins, and its steps.
    qkv: u32, qkv_batch: u32, qkv_time: u32, qkv_slot: u32, qkv_dim: u32,
    // The same of the mask.
    mask: u32, mask_batch: u32, mask_head: u32, mask_query: u32, mask_key: u32,
    // Where operands without gaps begin: the packed operand's tangent, the cotangent, and its tangent.
    qkv_dot: u32, cotangent: u32, cotangent_dot: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@group(0) @binding(MASK_BINDING) var<storage, read> mask: array<u32>;

const ROWS = 64u;
const COLUMNS = 32u;
const THREADS = 128u;
// Dimensions of a product staged at once; columns whose values are.
const DEPTH = DEPTH_STAGED;
const KEYS = KEYS_STAGED;
const SLOTS = SLOTS_HELD;

// Rows' numbers of a product, or weights of a tile.
var<workgroup> left: array<vec4<f32>, 512>;
// Columns' numbers of a product, or values; between them, what rows exchange.
var<workgroup> right: array<vec4<f32>, 512>;

// One head of an operand [time, dim]: which storage (see `load`), where it begins, and its steps.
struct Head { source: u32, start: u32, time: u32, dim: u32 }

// Slot `slot` of the packed operand.
fn packed(source: u32, batch: u32, slot: u32) -> Head {
    return Head(source, p.qkv + batch * p.qkv_batch + slot * p.qkv_slot, p.qkv_time, p.qkv_dim);
}

// Slot `slot` of [batch, time, slots, dim] without gaps, from `start` on.
fn dense(source: u32, start: u32, batch: u32, slot: u32, slots: u32) -> Head {
    return Head(source, start + (batch * p.time * slots + slot) * p.dim, slots * p.dim, 1u);
}

fn key_slot(kv: u32) -> u32 { return p.heads + kv; }
fn value_slot(kv: u32) -> u32 { return p.heads + p.kv_heads + kv; }
fn slots() -> u32 { return p.heads + 2u * p.kv_heads; }

// A workgroup's work: `tile` of one head, and the first of the dimensions that it sums.
struct Place { batch: u32, head: u32, tile: u32, first: u32 }

fn place(group: u32, heads: u32) -> Place {
    let part = group / p.tiles;
    let head = part / p.slabs;
    return Place(head / heads, head % heads, group % p.tiles, part % p.slabs * SLOTS * 32u);
}

// 0 outside. The first element is read instead, without a branch, so that loads need not wait for each other.
fn element(x: Head, t: u32, d: u32) -> f32 {
    let inside = t < p.time && d < p.dim;
    let value = load(x.source, x.start + select(0u, t * x.time + d * x.dim, inside));
    return select(0.0, value, inside);
}

// Times t + step (0, 1, 2, 3).
fn four(x: Head, t: u32, step: u32, d: u32) -> vec4<f32> {
    return vec4(element(x, t, d), element(x, t + step, d), element(x, t + 2u * step, d), element(x, t + 3u * step, d));
}

// sum + a bᵀ.
fn outer(sum: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(sum[0] + a.x * b, sum[1] + a.y * b, sum[2] + a.z * b, sum[3] + a.w * b);
}

// sum + a bᵀ for rows `row..` of a head and columns `column..` of another, summed over all dimensions.
fn product(sum: mat4x4<f32>, a: Head, row: u32, b: Head, column: u32, at: vec2<u32>) -> mat4x4<f32> {
    var total = sum;
    let lane = at.x + 8u * at.y;
    for (var first = 0u; first < p.dim; first += DEPTH) {
        workgroupBarrier();
        for (var i = lane; i < 16u * DEPTH; i += THREADS) {
            let d = i % DEPTH;
            let y = i / DEPTH;
            left[d * 16u + (y ^ (d & 15u))] = four(a, row + y, 16u, first + d);
        }
        for (var i = lane; i < 8u * DEPTH; i += THREADS) {
            let d = i % DEPTH;
            let x = i / DEPTH;
            right[d * 8u + (x ^ (d & 7u))] = four(b, column + x, 8u, first + d);
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            total = outer(total, left[d * 16u + (at.y ^ (d & 15u))], right[d * 8u + (at.x ^ (d & 7u))]);
        }
    }
    return total;
}

// sums += weights × values: a tile's weights, and dimensions `first..` of the columns `column..` of a head.
fn accumulate(
    sums: ptr<function, array<mat4x4<f32>, SLOTS>>, weights: mat4x4<f32>,
    values: Head, column: u32, first: u32, at: vec2<u32>,
) {
    let lane = at.x + 8u * at.y;
    var columns = transpose(weights);
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) {
        let k = at.x + 8u * j;
        left[k * 16u + (at.y ^ (k & 15u))] = columns[j];
    }
    for (var start = 0u; start < COLUMNS; start += KEYS) {
        if (start > 0u) {
            workgroupBarrier();
        }
        for (var i = lane; i < KEYS * SLOTS * 8u; i += THREADS) {
            let k = column + start + i / (SLOTS * 8u);
            let d = first + i / 8u % SLOTS * 32u + i % 8u;
            right[i] = vec4(
                element(values, k, d), element(values, k, d + 8u), element(values, k, d + 16u),
                element(values, k, d + 24u),
            );
        }
        workgroupBarrier();
        for (var i = 0u; i < KEYS; i++) {
            let k = start + i;
            let weight = left[k * 16u + (at.y ^ (k & 15u))];
            for (var s = 0u; s < SLOTS; s++) {
                (*sums)[s] = outer((*sums)[s], weight, right[(i * SLOTS + s) * 8u + at.x]);
            }
        }
    }
}

// Rows y + 16 i, dimensions first + x + 8 j of a head of the result.
fn store(x: Head, values: mat4x4<f32>, row: u32, first: u32, at: vec2<u32>) {
    var m = values;
    for (var i = 0u; i < 4u; i++) {
        let t = row + at.y + 16u * i;
        for (var j = 0u; j < 4u; j++) {
            let d = first + at.x + 8u * j;
            if (t < p.time && d < p.dim) {
                result[x.start + t * x.time + d * x.dim] = m[i][j];
            }
        }
    }
}

// Row i times f[i].
fn times_rows(m: mat4x4<f32>, f: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(m[0] * f.x, m[1] * f.y, m[2] * f.z, m[3] * f.w);
}

// Sums over the four columns of each row.
fn across(m: mat4x4<f32>) -> vec4<f32> {
    return vec4(1.0) * m;
}

// Element by element.
fn times(a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4(a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]);
}

// Row i less f[i].
fn minus_rows(m: mat4x4<f32>, f: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(m[0] - f.x, m[1] - f.y, m[2] - f.z, m[3] - f.w);
}

// Column j less f[j].
fn minus_columns(m: mat4x4<f32>, f: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(m[0] - f, m[1] - f, m[2] - f, m[3] - f);
}

// The sum over all threads of a row, for each of a thread's four rows.
fn row_sums(mine: vec4<f32>, at: vec2<u32>) -> vec4<f32> {
    share(mine, at);
    var sum = right[at.y];
    for (var x = 1u; x < 8u; x++) {
        sum += right[x * 16u + at.y];
    }
    return sum;
}

fn row_largest(mine: vec4<f32>, at: vec2<u32>) -> vec4<f32> {
    share(mine, at);
    var largest = right[at.y];
    for (var x = 1u; x < 8u; x++) {
        largest = max(largest, right[x * 16u + at.y]);
    }
    return largest;
}

fn share(mine: vec4<f32>, at: vec2<u32>) {
    workgroupBarrier();
    right[at.x * 16u + at.y] = mine;
    workgroupBarrier();
}

// Where a head's mask begins.
fn mask_of(batch: u32, head: u32) -> u32 {
    return p.mask + batch * p.mask_batch + head * p.mask_head;
}

// Whether a query sees a key.
fn sees(query: u32, key: u32, masks: u32) -> bool {
    if (query >= p.time || key >= p.time || (CAUSAL && key > query)) {
        return false;
    }
    if (MASKED) {
        return mask[masks + query * p.mask_query + key * p.mask_key] != 0u;
    }
    return true;
}

// The first query that sees a key.
fn seen_from(key: u32) -> u32 {
    return select(0u, key, CAUSAL);
}

// Keys that the queries before `end` see between them.
fn reach(end: u32) -> u32 {
    return select(p.time, min(end, p.time), CAUSAL);
}

// Numbers of a row each: [batch, heads, time].
fn of_rows(source: u32, batch: u32, head: u32) -> Head {
    return Head(source, (batch * p.heads + head) * p.time, 1u, 0u);
}

// Probabilities from products of queries and keys: e^(score − log-sum-exp). Rows are queries, or keys if `flip`.
fn probabilities(
    products: mat4x4<f32>, row: u32, column: u32, lse: vec4<f32>, flip: bool, masks: u32, at: vec2<u32>,
) -> mat4x4<f32> {
    var m = products;
    for (var i = 0u; i < 4u; i++) {
        let r = row + at.y + 16u * i;
        for (var j = 0u; j < 4u; j++) {
            let c = column + at.x + 8u * j;
            let e = exp(m[i][j] * p.scale - lse[select(i, j, flip)]);
            m[i][j] = select(0.0, e, sees(select(r, c, flip), select(c, r, flip), masks));
        }
    }
    return m;
}
