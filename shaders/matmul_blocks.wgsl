// What kernels of matrix products share: y[m, n] = start + a[m, k] b[n, k]ᵀ for each batch, b with its columns counted
// first so that both operands are alike. They are read in blocks: four rows, and four places along k, as a matrix whose
// columns are those places. LOAD_A and LOAD_B say how whole blocks are read, STORE how results are written.

struct Params {
    m: u32, n: u32, k: u32,
    // Where operands begin, and their steps.
    a: u32, a_m: u32, a_k: u32,
    b: u32, b_n: u32, b_k: u32,
    // Where the result begins, and its steps; each batch's is behind that of the one before.
    y: u32, y_m: u32, y_n: u32,
    // A bias, read in every batch, and whether there is one (2) and whether what y holds stays in the sum (1).
    bias: u32, bias_m: u32, bias_n: u32, start: u32,
    // k is cut into parts of this depth, a multiple of 4; each writes sums of its own.
    parts: u32, depth: u32,
    // Batches, sizes of their inner dimensions, innermost first, and steps; the outermost step comes last.
    batches: u32, n0: u32, n1: u32, n2: u32,
    a0: u32, a1: u32, a2: u32, a3: u32,
    b0: u32, b1: u32, b2: u32, b3: u32,
    // Of kernels that need it: threads of a workgroup along one side.
    side: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(0) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> a4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

// ---- what a workgroup does

struct Job {
    // Where the batch's operands and results begin.
    a: u32, b: u32, y: u32,
    // Tile, by row and column.
    row: u32, column: u32,
    // Part of k.
    first: u32, end: u32,
}

// Tiles are `rows` by `columns`. Eight rows of tiles are walked column by column, so that operands stay in the cache.
fn job_of(group: u32, rows: u32, columns: u32) -> Job {
    let high = (p.m + rows - 1u) / rows;
    let wide = (p.n + columns - 1u) / columns;
    let tile = group % (high * wide);
    let place = group / (high * wide);
    let above = tile / (8u * wide) * 8u;
    let within = tile % (8u * wide);
    let band = min(8u, high - above);
    let batch = place % p.batches;
    let first = place / p.batches * p.depth;
    let at = batch_start(batch);
    let row = above + within % band;
    return Job(at.x, at.y, p.y + place * p.m * p.n, row, within / band, first, min(p.k, first + p.depth));
}

fn groups(rows: u32, columns: u32) -> u32 {
    return (p.m + rows - 1u) / rows * ((p.n + columns - 1u) / columns) * p.batches * p.parts;
}

fn batch_start(batch: u32) -> vec2<u32> {
    var at = vec2(p.a, p.b) + batch % p.n0 * vec2(p.a0, p.b0);
    var rest = batch / p.n0;
    at += rest % p.n1 * vec2(p.a1, p.b1);
    rest /= p.n1;
    at += rest % p.n2 * vec2(p.a2, p.b2);
    return at + rest / p.n2 * vec2(p.a3, p.b3);
}

// ---- blocks of a: rows from `i`, places from `l` on; rows beyond the last repeat it

fn a_one(at: u32, i: u32, l: u32, end: u32) -> f32 {
    let x = at + min(i, p.m - 1u) * p.a_m + min(l, p.k - 1u) * p.a_k;
    return select(0.0, a4[x / 4u][x % 4u], l < end);
}
fn a_column(at: u32, i: u32, l: u32, end: u32) -> vec4<f32> {
    return vec4(a_one(at, i, l, end), a_one(at, i + 1u, l, end), a_one(at, i + 2u, l, end), a_one(at, i + 3u, l, end));
}
// However a lies, with zeros from `end` on. Loops that shift keep code short without indexing registers.
fn a_any(at: u32, i: u32, l: u32, end: u32) -> mat4x4<f32> {
    var x = mat4x4<f32>();
    for (var place = l; place < l + 4u; place++) {
        x = mat4x4(x[1], x[2], x[3], a_column(at, i, place, end));
    }
    return x;
}
// Four places lie together.
fn a_along_k(at: u32, i: u32, l: u32, end: u32) -> mat4x4<f32> {
    let last = p.m - 1u;
    let first = at + l;
    return transpose(mat4x4(
        a4[(first + min(i, last) * p.a_m) / 4u],
        a4[(first + min(i + 1u, last) * p.a_m) / 4u],
        a4[(first + min(i + 2u, last) * p.a_m) / 4u],
        a4[(first + min(i + 3u, last) * p.a_m) / 4u],
    ));
}
// Four rows lie together.
fn a_along_rows(at: u32, i: u32, l: u32, end: u32) -> mat4x4<f32> {
    let first = (at + min(i, (p.m - 1u) / 4u * 4u) + l * p.a_k) / 4u;
    let step = p.a_k / 4u;
    return mat4x4(a4[first], a4[first + step], a4[first + 2u * step], a4[first + 3u * step]);
}
fn a_block(at: u32, i: u32, l: u32, end: u32) -> mat4x4<f32> {
    if (l + 4u <= end) {
        return LOAD_A(at, i, l, end);
    }
    if (l >= end) {
        return mat4x4<f32>();
    }
    return a_any(at, i, l, end);
}

// ---- blocks of b: columns from `j`, places from `l` on

fn b_one(at: u32, j: u32, l: u32, end: u32) -> f32 {
    let x = at + min(j, p.n - 1u) * p.b_n + min(l, p.k - 1u) * p.b_k;
    return select(0.0, b4[x / 4u][x % 4u], l < end);
}
fn b_column(at: u32, j: u32, l: u32, end: u32) -> vec4<f32> {
    return vec4(b_one(at, j, l, end), b_one(at, j + 1u, l, end), b_one(at, j + 2u, l, end), b_one(at, j + 3u, l, end));
}
fn b_any(at: u32, j: u32, l: u32, end: u32) -> mat4x4<f32> {
    var x = mat4x4<f32>();
    for (var place = l; place < l + 4u; place++) {
        x = mat4x4(x[1], x[2], x[3], b_column(at, j, place, end));
    }
    return x;
}
fn b_along_k(at: u32, j: u32, l: u32, end: u32) -> mat4x4<f32> {
    let last = p.n - 1u;
    let first = at + l;
    return transpose(mat4x4(
        b4[(first + min(j, last) * p.b_n) / 4u],
        b4[(first + min(j + 1u, last) * p.b_n) / 4u],
        b4[(first + min(j + 2u, last) * p.b_n) / 4u],
        b4[(first + min(j + 3u, last) * p.b_n) / 4u],
    ));
}
fn b_along_rows(at: u32, j: u32, l: u32, end: u32) -> mat4x4<f32> {
    let first = (at + min(j, (p.n - 1u) / 4u * 4u) + l * p.b_k) / 4u;
    let step = p.b_k / 4u;
    return mat4x4(b4[first], b4[first + step], b4[first + 2u * step], b4[first + 3u * step]);
}
fn b_block(at: u32, j: u32, l: u32, end: u32) -> mat4x4<f32> {
    if (l + 4u <= end) {
        return LOAD_B(at, j, l, end);
    }
    if (l >= end) {
        return mat4x4<f32>();
    }
    return b_any(at, j, l, end);
}

// ---- sums of four rows and four columns; columns of the matrix are rows of the result

fn outer(c: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(vec4(a.x), b, c[0]), fma(vec4(a.y), b, c[1]), fma(vec4(a.z), b, c[2]), fma(vec4(a.w), b, c[3]));
}
fn multiplied(c: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return outer(outer(outer(outer(c, a[0], b[0]), a[1], b[1]), a[2], b[2]), a[3], b[3]);
}

// ---- results: the block from (i, j) on, of the batch that begins at `at`

fn from_bias(i: u32, j: u32) -> f32 {
    return bias[p.bias + i * p.bias_m + j * p.bias_n];
}

fn store_one(at: u32, i: u32, j: u32, sum: f32) {
    if (i < p.m && j < p.n) {
        let place = at + i * p.y_m + j * p.y_n;
        var x = sum;
        if ((p.start & 2u) != 0u) { x += from_bias(i, j); }
        if ((p.start & 1u) != 0u) { x += y[place]; }
        y[place] = x;
    }
}
fn store_any(at: u32, i: u32, j: u32, c: mat4x4<f32>) {
    var rest = c;
    for (var row = i; row < i + 4u; row++) {
        store_one(at, row, j, rest[0].x);
        store_one(at, row, j + 1u, rest[0].y);
        store_one(at, row, j + 2u, rest[0].z);
        store_one(at, row, j + 3u, rest[0].w);
        rest = mat4x4(rest[1], rest[2], rest[3], rest[0]);
    }
}

// Four that lie together, (down, right) apart.
fn store_four(at: u32, i: u32, j: u32, down: u32, right: u32, sums: vec4<f32>) {
    if (i < p.m && j < p.n) {
        let place = (at + i * p.y_m + j * p.y_n) / 4u;
        var x = sums;
        if ((p.start & 2u) != 0u) {
            let two = from_bias(i + 2u * down, j + 2u * right);
            let three = from_bias(i + 3u * down, j + 3u * right);
            x += vec4(from_bias(i, j), from_bias(i + down, j + right), two, three);
        }
        if ((p.start & 1u) != 0u) { x += y4[place]; }
        y4[place] = x;
    }
}
// n is a multiple of 4.
fn store_rows(at: u32, i: u32, j: u32, c: mat4x4<f32>) {
    var rest = c;
    for (var row = i; row < i + 4u; row++) {
        store_four(at, row, j, 0u, 1u, rest[0]);
        rest = mat4x4(rest[1], rest[2], rest[3], rest[0]);
    }
}
// m is a multiple of 4, and columns of the result lie together.
fn store_columns(at: u32, i: u32, j: u32, c: mat4x4<f32>) {
    var rest = transpose(c);
    for (var column = j; column < j + 4u; column++) {
        store_four(at, i, column, 1u, 0u, rest[0]);
        rest = mat4x4(rest[1], rest[2], rest[3], rest[0]);
    }
}

// Two by two blocks, (down, right) apart.
fn store_blocks(
    at: u32, i: u32, j: u32, down: u32, right: u32, c00: mat4x4<f32>, c01: mat4x4<f32>, c10: mat4x4<f32>, c11: mat4x4<f32>,
) {
    var next = c00;
    var second = c01;
    var third = c10;
    for (var block = 0u; block < 4u; block++) {
        STORE(at, i + block / 2u * down, j + block % 2u * right, next);
        next = second;
        second = third;
        third = c11;
    }
}
