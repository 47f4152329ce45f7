// Where the largest element of a row lies. Largest elements themselves are found by reduce.wgsl.

//!import rows

struct Params { rows: u32, width: u32, x: u32, start: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<X>;

const NOWHERE: u32 = 0xffffffffu;

// By rows of the workgroup.
var<workgroup> first: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn argmax(
    @builtin(local_invocation_index) thread: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
) {
    let s = span(thread, workgroup, grid, p.rows, p.width);
    let slot = thread / LANES;
    var most = X(p.start);
    for (var j = s.lane; j < s.width; j += LANES) {
        let v = x[p.x + s.start + j];
        most = select(most, v, most < v);
    }
    let largest = across(LARGEST, thread, vec2(largest_of(most))).x;
    if (s.lane == 0u) { atomicStore(&first[slot], NOWHERE); }
    workgroupBarrier();
    // A thread comes to its first one first.
    for (var j = s.lane; j < s.width; j += LANES) {
        let same = four(x[p.x + s.start + j]) == vec4(largest);
        if (any(same)) {
            let k = select(select(select(3u, 2u, same.z), 1u, same.y), 0u, same.x);
            atomicMin(&first[slot], PACK * j + k);
            break;
        }
    }
    workgroupBarrier();
    if (s.row < p.rows && s.lane == 0u) {
        let found = atomicLoad(&first[slot]);
        y[s.row] = select(found, 0u, found == NOWHERE);
    }
}
