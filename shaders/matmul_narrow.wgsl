// Products with at most eight columns, which only read: a is streamed once, straight into sums. A workgroup takes
// 4 `side` rows; the threads that share four of them take one block of a after the other, and add up what they have at
// the end. EIGHT is whether there are more than four columns.

//!import matmul_blocks

// Sums of half the threads, four by four.
var<workgroup> sums: array<vec4<f32>, 1024>;

fn keep(slot: u32, part: u32, c: mat4x4<f32>) {
    sums[slot + part * 512u] = c[0];
    sums[slot + part * 512u + 128u] = c[1];
    sums[slot + part * 512u + 256u] = c[2];
    sums[slot + part * 512u + 384u] = c[3];
}

fn kept(slot: u32, part: u32) -> mat4x4<f32> {
    let first = slot + part * 512u;
    return mat4x4(sums[first], sums[first + 128u], sums[first + 256u], sums[first + 384u]);
}

@compute @workgroup_size(256)
fn narrow(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let group = id.x + id.y * grid.x;
    let wide = p.side;
    let depth = 256u / p.side;
    if (group >= groups(4u * wide, 8u)) { return; }
    let job = job_of(group, 4u * wide, 8u);
    // Neighbours lie along the direction in which a does.
    let high = select(thread % wide, thread / depth, A_ALONG_K);
    let deep = select(thread / wide, thread % depth, A_ALONG_K);
    let i = 4u * (job.row * wide + high);
    var c0 = mat4x4<f32>();
    var c1 = mat4x4<f32>();
    for (var l = job.first + 4u * deep; l < job.end; l += 4u * depth) {
        let a = a_block(job.a, i, l, job.end);
        c0 = multiplied(c0, a, b_block(job.b, 0u, l, job.end));
        if (EIGHT) {
            c1 = multiplied(c1, a, b_block(job.b, 4u, l, job.end));
        }
    }
    for (var half = depth / 2u; half > 0u; half /= 2u) {
        let slot = high * half + deep % half;
        if (deep >= half && deep < 2u * half) {
            keep(slot, 0u, c0);
            if (EIGHT) { keep(slot, 1u, c1); }
        }
        workgroupBarrier();
        if (deep < half) {
            c0 += kept(slot, 0u);
            if (EIGHT) { c1 += kept(slot, 1u); }
        }
        workgroupBarrier();
    }
    if (deep == 0u) {
        STORE(job.y, i, 0u, c0);
        if (EIGHT) { STORE(job.y, i, 4u, c1); }
    }
}
