// Products straight from storage: a thread sums four blocks, eight rows and columns, and no memory is shared. That is
// what drivers that run on the host like best. WIDE threads of a workgroup lie along columns, THREADS in all.

//!import matmul_blocks

@compute @workgroup_size(THREADS)
fn direct(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let rows = 8u * (THREADS / WIDE);
    let columns = 8u * WIDE;
    let group = id.x + id.y * grid.x;
    if (group >= groups(rows, columns)) { return; }
    let job = job_of(group, rows, columns);
    let i = job.row * rows + 8u * (thread / WIDE);
    let j = job.column * columns + 8u * (thread % WIDE);
    if (i >= p.m || j >= p.n) { return; }
    var c00 = mat4x4<f32>();
    var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>();
    var c11 = mat4x4<f32>();
    for (var l = job.first; l < job.end; l += 4u) {
        let a0 = a_block(job.a, i, l, job.end);
        let a1 = a_block(job.a, i + 4u, l, job.end);
        let b0 = b_block(job.b, j, l, job.end);
        let b1 = b_block(job.b, j + 4u, l, job.end);
        c00 = multiplied(c00, a0, b0);
        c01 = multiplied(c01, a0, b1);
        c10 = multiplied(c10, a1, b0);
        c11 = multiplied(c11, a1, b1);
    }
    STORE(job.y, i, j, c00);
    STORE(job.y, i, j + 4u, c01);
    STORE(job.y, i + 4u, j, c10);
    STORE(job.y, i + 4u, j + 4u, c11);
}
