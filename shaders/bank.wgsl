// Products with one matrix of a bank per example, read where it lies. `gathered`: each example's own matrix times the one
// that its index names. `collected`: for each matrix of the bank, the sum of products of the examples that name it, in
// their order. A workgroup makes ROWS by COLUMNS results, 1024 in all, sixteen places of k at a time; a thread four that
// lie below each other.

struct Params {
    // Results that are matrices of their own, examples, and matrices of the bank.
    batches: u32, examples: u32, adapters: u32,
    m: u32, n: u32, k: u32,
    // Where operands begin, and their steps from matrix to matrix, from row to row and from column to column.
    left: u32, left_step: u32, left_m: u32, left_k: u32,
    right: u32, right_step: u32, right_k: u32, right_n: u32,
    ids: u32,
    // Whether to add to what the result holds, what products are multiplied by, and what is no number.
    add: u32, scale: f32, nan: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<u32>;

const DEPTH: u32 = 16u;

// Place by place of k.
var<workgroup> left_tile: array<f32, 16 * ROWS>;
var<workgroup> right_tile: array<f32, 16 * COLUMNS>;

// Which results a workgroup makes.
struct Job { batch: u32, row: u32, column: u32 }

fn job_of(group: u32) -> Job {
    let wide = (p.n + COLUMNS - 1u) / COLUMNS;
    let tiles = wide * ((p.m + ROWS - 1u) / ROWS);
    return Job(group / tiles, group % tiles / wide * ROWS, group % wide * COLUMNS);
}

// Neighbouring threads read what lies together; what is beyond an operand is 0.
fn fill(job: Job, thread: u32, left_at: u32, right_at: u32, l: u32) {
    for (var e = thread; e < DEPTH * ROWS; e += 256u) {
        let place = select(e / ROWS, e % DEPTH, LEFT_ALONG_K);
        let row = select(e % ROWS, e / DEPTH, LEFT_ALONG_K);
        var x = 0.0;
        if (job.row + row < p.m && l + place < p.k) {
            x = left[left_at + (job.row + row) * p.left_m + (l + place) * p.left_k];
        }
        left_tile[place * ROWS + row] = x;
    }
    for (var e = thread; e < DEPTH * COLUMNS; e += 256u) {
        let place = select(e / COLUMNS, e % DEPTH, RIGHT_ALONG_K);
        let column = select(e % COLUMNS, e / DEPTH, RIGHT_ALONG_K);
        var x = 0.0;
        if (job.column + column < p.n && l + place < p.k) {
            x = right[right_at + (l + place) * p.right_k + (job.column + column) * p.right_n];
        }
        right_tile[place * COLUMNS + column] = x;
    }
}

// `sum` and the product of the matrices that begin there.
fn multiplied(sum: vec4<f32>, job: Job, thread: u32, left_at: u32, right_at: u32) -> vec4<f32> {
    let row = thread / COLUMNS * 4u;
    let column = thread % COLUMNS;
    var total = sum;
    for (var l = 0u; l < p.k; l += DEPTH) {
        fill(job, thread, left_at, right_at, l);
        workgroupBarrier();
        for (var place = 0u; place < DEPTH; place++) {
            let a = place * ROWS + row;
            let four = vec4(left_tile[a], left_tile[a + 1u], left_tile[a + 2u], left_tile[a + 3u]);
            total = fma(four, vec4(right_tile[place * COLUMNS + column]), total);
        }
        workgroupBarrier();
    }
    return total;
}

fn store(job: Job, thread: u32, sum: vec4<f32>) {
    let row = job.row + thread / COLUMNS * 4u;
    let column = job.column + thread % COLUMNS;
    var rest = sum * p.scale;
    for (var i = row; i < min(row + 4u, p.m); i++) {
        if (column < p.n) {
            let place = (job.batch * p.m + i) * p.n + column;
            var x = rest.x;
            if (p.add == 1u) { x += y[place]; }
            y[place] = x;
        }
        rest = rest.yzwx;
    }
}

@compute @workgroup_size(256)
fn gathered(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let job = job_of(id.x + id.y * grid.x);
    if (job.batch >= p.batches) { return; }
    let adapter = ids[p.ids + job.batch];
    // Indices come from data: one beyond the bank gives NaN, so that it is noticed.
    if (adapter >= p.adapters) {
        store(job, thread, vec4(p.nan));
        return;
    }
    let left_at = p.left + job.batch * p.left_step;
    store(job, thread, multiplied(vec4(0.0), job, thread, left_at, p.right + adapter * p.right_step));
}

@compute @workgroup_size(256)
fn collected(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let job = job_of(id.x + id.y * grid.x);
    if (job.batch >= p.batches) { return; }
    var sum = vec4(0.0);
    for (var e = 0u; e < p.examples; e++) {
        if (ids[p.ids + e] == job.batch) {
            sum = multiplied(sum, job, thread, p.left + e * p.left_step, p.right + e * p.right_step);
        }
    }
    store(job, thread, sum);
}
