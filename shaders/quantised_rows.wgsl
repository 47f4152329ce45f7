// Rows of a matrix in fewer bits as numbers. ROW says which one a row of the result is. Indices come from data: those
// beyond the matrix give NaN, so that they are noticed.

//!import packed

struct Params {
    // Elements of the result; columns and rows of the matrix.
    size: u32, columns: u32, rows: u32,
    // Where codes, scales and indices begin.
    codes: u32, scales: u32, ids: u32,
    // Row of the matrix that is the result's first; those whose codes are bound.
    first: u32, begin: u32, end: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;

fn codes_start() -> u32 { return p.codes; }
fn scales_start() -> u32 { return p.scales; }
fn matrix_columns() -> u32 { return p.columns; }

fn row_by_index(i: u32) -> u32 { return ids[p.ids + i]; }
fn row_in_turn(i: u32) -> u32 { return p.first + i; }

@compute @workgroup_size(256)
fn unpack(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    PREPARE(thread);
    let i = (id.x + id.y * grid.x) * 256u + thread;
    if (i >= p.size) { return; }
    let row = ROW(i / p.columns);
    if (row >= p.rows) {
        y[i] = 0x7fc00000u;
    } else if (row >= p.begin && row < p.end) {
        y[i] = bitcast<u32>(ONE(row, i % p.columns));
    }
}
