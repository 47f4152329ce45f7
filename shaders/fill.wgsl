// One value everywhere.

struct Params { count: u32, value: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn fill(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = id.x + id.y * grid.x * 256u;
    if (i < p.count) {
        y[i] = p.value;
    }
}
