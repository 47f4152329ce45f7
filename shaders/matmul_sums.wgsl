// What products by tiles of ROWS by COLUMNS in workgroup memory share, whatever b is: sixteen places of k at a time, which
// the importer's `fill` brings in. A thread sums one block (`small`) or four (`large`), so that a workgroup has WIDE
// threads along columns, and THREADS in all.
//
// Workgroup memory holds fours of rows, place by place: `ROWS / 4` for each place. Threads that load along k write four
// places each; which four of a place goes where is turned by the place, so that they meet different banks.

//!import matmul_blocks

var<workgroup> tile_a: array<vec4<f32>, 4 * ROWS>;
var<workgroup> tile_b: array<vec4<f32>, 4 * COLUMNS>;

// Where the `four`th four of rows is found in places 4 `quarter` to 4 `quarter` + 3, of `fours`.
fn turned(four: u32, quarter: u32, fours: u32) -> u32 {
    return four ^ ((2u * quarter) & (fours - 1u));
}

fn fill_a(job: Job, block: u32, l: u32) {
    let fours = ROWS / 4u;
    let quarter = select(block / fours, block % 4u, A_ALONG_K);
    let four = select(block % fours, block / 4u, A_ALONG_K);
    let x = a_block(job.a, job.row * ROWS + 4u * four, l + 4u * quarter, job.end);
    let to = 4u * quarter * fours + turned(four, quarter, fours);
    tile_a[to] = x[0];
    tile_a[to + fours] = x[1];
    tile_a[to + 2u * fours] = x[2];
    tile_a[to + 3u * fours] = x[3];
}

// Where a thread's fours are in places from 4 `quarter` on; a place further on is `ROWS / 4` or `COLUMNS / 4` later.
fn start_a(four: u32, quarter: u32) -> u32 {
    return quarter * ROWS + turned(four, quarter, ROWS / 4u);
}
fn start_b(four: u32, quarter: u32) -> u32 {
    return quarter * COLUMNS + turned(four, quarter, COLUMNS / 4u);
}

@compute @workgroup_size(THREADS)
fn small(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let group = id.x + id.y * grid.x;
    if (group >= groups(ROWS, COLUMNS)) { return; }
    let job = job_of(group, ROWS, COLUMNS);
    let row = thread / WIDE;
    let column = thread % WIDE;
    let down = ROWS / 4u;
    let right = COLUMNS / 4u;
    var c = mat4x4<f32>();
    for (var l = job.first; l < job.end; l += 16u) {
        fill(job, thread, l);
        workgroupBarrier();
        for (var quarter = 0u; quarter < 4u; quarter++) {
            let a = start_a(row, quarter);
            let b = start_b(column, quarter);
            c = outer(c, tile_a[a], tile_b[b]);
            c = outer(c, tile_a[a + down], tile_b[b + right]);
            c = outer(c, tile_a[a + 2u * down], tile_b[b + 2u * right]);
            c = outer(c, tile_a[a + 3u * down], tile_b[b + 3u * right]);
        }
        workgroupBarrier();
    }
    STORE(job.y, job.row * ROWS + 4u * row, job.column * COLUMNS + 4u * column, c);
}

// A thread's blocks lie half a tile apart, so that neighbours read neighbouring fours.
struct Sums {
    c00: mat4x4<f32>, c01: mat4x4<f32>, c10: mat4x4<f32>, c11: mat4x4<f32>,
}

// Half a tile is a multiple of eight fours, beyond what `turned` changes.
fn place(c: Sums, a: u32, b: u32) -> Sums {
    let a0 = tile_a[a];
    let a1 = tile_a[a + ROWS / 8u];
    let b0 = tile_b[b];
    let b1 = tile_b[b + COLUMNS / 8u];
    return Sums(outer(c.c00, a0, b0), outer(c.c01, a0, b1), outer(c.c10, a1, b0), outer(c.c11, a1, b1));
}

@compute @workgroup_size(THREADS)
fn large(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let group = id.x + id.y * grid.x;
    if (group >= groups(ROWS, COLUMNS)) { return; }
    let job = job_of(group, ROWS, COLUMNS);
    let row = thread / WIDE;
    let column = thread % WIDE;
    let down = ROWS / 4u;
    let right = COLUMNS / 4u;
    var c = Sums();
    for (var l = job.first; l < job.end; l += 16u) {
        fill(job, thread, l);
        workgroupBarrier();
        for (var quarter = 0u; quarter < 4u; quarter++) {
            let a = start_a(row, quarter);
            let b = start_b(column, quarter);
            c = place(c, a, b);
            c = place(c, a + down, b + right);
            c = place(c, a + 2u * down, b + 2u * right);
            c = place(c, a + 3u * down, b + 3u * right);
        }
        workgroupBarrier();
    }
    let i = job.row * ROWS + 4u * row;
    let j = job.column * COLUMNS + 4u * column;
    store_blocks(job.y, i, j, ROWS / 2u, COLUMNS / 2u, c.c00, c.c01, c.c10, c.c11);
}
