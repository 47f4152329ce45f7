// Products straight from storage: a thread sums four blocks, eight rows and columns, and no memory is shared. That is
// what drivers that run on the host like best. `side` of a workgroup's THREADS lie along columns. FOURS is whether both
// operands are read by LOAD_A and LOAD_B.

//!import matmul_blocks

@compute @workgroup_size(THREADS)
fn direct(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let rows = 8u * (THREADS / p.side);
    let columns = 8u * p.side;
    let group = id.x + id.y * grid.x;
    if (group >= groups(rows, columns)) { return; }
    let job = job_of(group, rows, columns);
    let i = job.row * rows + 8u * (thread / p.side);
    let j = job.column * columns + 8u * (thread % p.side);
    if (i >= p.m || j >= p.n) { return; }
    var c00 = mat4x4<f32>();
    var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>();
    var c11 = mat4x4<f32>();
    var l = job.first;
    if (FOURS) {
        for (; l + 4u <= job.end; l += 4u) {
            let a0 = LOAD_A(job.a, i, l, job.end);
            let a1 = LOAD_A(job.a, i + 4u, l, job.end);
            let b0 = LOAD_B(job.b, j, l, job.end);
            let b1 = LOAD_B(job.b, j + 4u, l, job.end);
            c00 = multiplied(c00, a0, b0);
            c01 = multiplied(c01, a0, b1);
            c10 = multiplied(c10, a1, b0);
            c11 = multiplied(c11, a1, b1);
        }
    }
    for (; l < job.end; l++) {
        let a0 = a_column(job.a, i, l, job.end);
        let a1 = a_column(job.a, i + 4u, l, job.end);
        let b0 = b_column(job.b, j, l, job.end);
        let b1 = b_column(job.b, j + 4u, l, job.end);
        c00 = outer(c00, a0, b0);
        c01 = outer(c01, a0, b1);
        c10 = outer(c10, a1, b0);
        c11 = outer(c11, a1, b1);
    }
    store_blocks(job.y, i, j, 4u, 4u, c00, c01, c10, c11);
}
