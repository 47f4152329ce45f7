// The sum over parts of k, in their order, and what it is added to; without parts that alone.

struct Params {
    // Elements of the result, parts, and elements of a row.
    count: u32, parts: u32, n: u32,
    // As in matmul_blocks.wgsl, for the bias of a row.
    bias: u32, bias_n: u32, start: u32,
    // Where the result begins.
    y: u32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;

@compute @workgroup_size(256)
fn sum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = id.x + id.y * grid.x * 256u;
    if (i < p.count) {
        var x = 0.0;
        for (var l = 0u; l < p.parts; l++) {
            x += part[l * p.count + i];
        }
        if ((p.start & 2u) != 0u) { x += bias[p.bias + i % p.n * p.bias_n]; }
        if ((p.start & 1u) != 0u) { x += y[p.y + i]; }
        y[p.y + i] = x;
    }
}
