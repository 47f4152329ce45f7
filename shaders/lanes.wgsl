// Joining what the threads of a workgroup found: LANES of them, LANE_STEP apart, share a result. A workgroup has 256
// threads, and LANES is a power of four.

const SUM: u32 = 0u;
const LARGEST: u32 = 1u;
const SMALLEST: u32 = 2u;
// A largest exponent m and Σ eˣ⁻ᵐ.
const EXPONENTIALS: u32 = 3u;

const LOWEST: f32 = -3.4028234e38;

var<workgroup> lanes: array<vec2<f32>, 256>;

// eˣ for x ≤ 0; what is not a number stays so.
fn decay(x: f32) -> f32 { return select(exp(x), 0.0, x < -87.0); }

// Not a number on the right is passed over by extremes.
fn join(kind: u32, a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    switch kind {
        case SUM: { return a + b; }
        case LARGEST: { return select(a, b, a < b); }
        case SMALLEST: { return select(a, b, a > b); }
        default: {
            let largest = max(a.x, b.x);
            return vec2(largest, a.y * decay(a.x - largest) + b.y * decay(b.x - largest));
        }
    }
}

// Joins `x` over the lanes of a result, in a fixed order; all of them get it. All threads must call it together.
fn across(kind: u32, thread: u32, x: vec2<f32>) -> vec2<f32> {
    if (LANES == 1u) { return x; }
    let lane = thread / LANE_STEP % LANES;
    // What was joined before may still be read.
    workgroupBarrier();
    lanes[thread] = x;
    for (var apart = LANES / 4u; apart > 0u; apart /= 4u) {
        workgroupBarrier();
        if (lane < apart) {
            let step = apart * LANE_STEP;
            let near = join(kind, lanes[thread], lanes[thread + step]);
            let far = join(kind, lanes[thread + 2u * step], lanes[thread + 3u * step]);
            lanes[thread] = join(kind, near, far);
        }
    }
    workgroupBarrier();
    return lanes[thread - lane * LANE_STEP];
}

fn sum_across(thread: u32, x: f32) -> f32 { return across(SUM, thread, vec2(x, 0.0)).x; }

fn four_across(kind: u32, thread: u32, x: vec4<f32>) -> vec4<f32> {
    let near = across(kind, thread, x.xy);
    let far = across(kind, thread, x.zw);
    return vec4(near, far);
}
