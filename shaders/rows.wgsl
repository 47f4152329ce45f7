// Kernels over the rows of contiguous operands: LANES threads take a row together. Elements are read one by one (X is
// f32, PACK 1, FIT x) or in fours (X is vec4<f32>, PACK 4, FIT xyzw), where all rows begin on whole fours.

//!import lanes

// What a thread takes of a row: elements `start + j`, for j from `lane` on in steps of LANES, below `width`, which is
// 0 beyond the last row.
struct Span { row: u32, start: u32, lane: u32, width: u32 }

fn span(thread: u32, workgroup: vec3<u32>, grid: vec3<u32>, rows: u32, width: u32) -> Span {
    let row = (workgroup.x + workgroup.y * grid.x) * (256u / LANES) + thread / LANES;
    return Span(row, row * width, thread % LANES, select(0u, width, row < rows));
}

// ---- one element or four: functions of either are told apart by PACK

fn four(x: X) -> vec4<f32> { return vec4<f32>(x); }

// The first of them, or all.
fn fit(x: vec4<f32>) -> X { return x.FIT; }

// Σ x.
fn total(x: X) -> f32 {
    if (PACK == 1u) { return four(x).x; }
    let v = four(x);
    return (v.x + v.y) + (v.z + v.w);
}

fn largest_of(x: X) -> f32 {
    let v = four(x);
    return max(max(v.x, v.y), max(v.z, v.w));
}

// eˣ for x ≤ 0; what is not a number stays so.
fn decays(x: X) -> X { return select(exp(x), X(0.0), x < X(-87.0)); }

// `e` is a largest exponent and Σ e^(x − largest) beside it; the same with `x` included.
fn include(e: vec2<f32>, x: X) -> vec2<f32> {
    let largest = max(e.x, largest_of(x));
    return vec2(largest, e.y * decay(e.x - largest) + total(decays(x - X(largest))));
}
