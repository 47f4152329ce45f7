// Products one element at a time, however operands lie: what the others are measured against.

//!import matmul_blocks

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;

@compute @workgroup_size(256)
fn naive(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let place = id.x + id.y * grid.x * 256u;
    let size = p.m * p.n;
    if (place < size * p.batches) {
        let at = batch_start(place / size);
        let i = place % size / p.n;
        let j = place % p.n;
        let row = at.x + i * p.a_m;
        let column = at.y + j * p.b_n;
        var sum = 0.0;
        for (var l = 0u; l < p.k; l++) {
            sum += a[row + l * p.a_k] * b[column + l * p.b_k];
        }
        store_one(p.y + place / size * size, i, j, sum);
    }
}
