// A partial sum of squares for every 4096 elements of TENSORS gradients, which are dealt out to workgroups one after the
// other.

//!import lanes

struct Params {
    // Where the first workgroup's sum goes.
    start: u32,
//!repeat TENSORS
    // Elements, first workgroup.
    count#: u32, group#: u32,
//!end
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> sums: array<f32>;
//!repeat TENSORS
@group(0) @binding(1 + #) var<storage, read> gradient#: array<f32>;
//!end

@compute @workgroup_size(256)
fn squares(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.x + id.y * grid.x;
    var inside = false;
    var sum = 0.0;
//!repeat TENSORS
    if (group >= p.group# && (group - p.group#) * 4096u < p.count#) {
        inside = true;
        for (var k = 0u; k < 16u; k++) {
            let i = (group - p.group#) * 4096u + k * 256u + thread;
            if (i < p.count#) {
                sum += gradient#[i] * gradient#[i];
            }
        }
    }
//!end
    let total = sum_across(thread, sum);
    if (thread == 0u && inside) {
        sums[p.start + group] = total;
    }
}
