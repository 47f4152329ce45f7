// Conversions between element types. Halves lie two to a word; brain floats are the upper half of a single.

//!import view

var<immediate> p: View;

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;

// ---- element `at` of a storage as a number; indices stay whole numbers, beyond what singles hold

struct Number { real: f32, whole: u32 }

fn of_real(real: f32) -> Number {
    return Number(real, select(u32(clamp(real, 0.0, 4294967040.0)), 0xffffffffu, real >= 4294967296.0));
}
fn half(at: u32) -> u32 { return (x[at / 2u] >> (16u * (at % 2u))) & 0xffffu; }

fn read_f32(at: u32) -> Number { return of_real(bitcast<f32>(x[at])); }
fn read_u32(at: u32) -> Number { return Number(f32(x[at]), x[at]); }
// The next single towards zero, or the odd one of the two around: what is to be rounded further.
fn read_u32_odd(at: u32) -> Number {
    let beyond = 8u - min(countLeadingZeros(x[at]), 8u);
    let lost = x[at] & ((1u << beyond) - 1u);
    return Number(f32((x[at] - lost) | select(0u, 1u << beyond, lost != 0u)), x[at]);
}
// By arithmetic on bits: drivers may take the smallest halves for zero.
fn read_f16(at: u32) -> Number {
    let bits = half(at);
    let sign = (bits & 0x8000u) << 16u;
    let size = bits & 0x7fffu;
    if (size < 0x400u) { return of_real(bitcast<f32>(sign | bitcast<u32>(f32(size) * 5.9604644775390625e-8))); }
    let offset = select(112u << 23u, 224u << 23u, size >= 0x7c00u);
    return of_real(bitcast<f32>(sign | ((size << 13u) + offset)));
}
fn read_bf16(at: u32) -> Number { return of_real(bitcast<f32>(half(at) << 16u)); }

// ---- a number as bits

fn write_f32(n: Number) -> u32 { return bitcast<u32>(n.real); }
fn write_u32(n: Number) -> u32 { return n.whole; }
// To nearest, ties to even, by arithmetic on bits: drivers may round packed halves towards zero.
fn write_f16(n: Number) -> u32 {
    let bits = bitcast<u32>(n.real);
    let sign = (bits >> 16u) & 0x8000u;
    let size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) { return sign | 0x7e00u; }
    if (size >= 0x477ff000u) { return sign | 0x7c00u; }
    if (size < 0x33000000u) { return sign; }
    // Below 2⁻¹⁴ halves have a fixed exponent, and the hidden bit shows.
    let exponent = size >> 23u;
    let small = exponent < 113u;
    let shift = select(13u, 126u - exponent, small);
    let whole = select(size - (112u << 23u), (size & 0x7fffffu) | 0x800000u, small);
    let low = whole & ((1u << shift) - 1u);
    let middle = 1u << (shift - 1u);
    let kept = whole >> shift;
    return sign | (kept + select(0u, 1u, low > middle || (low == middle && (kept & 1u) == 1u)));
}
fn write_bf16(n: Number) -> u32 {
    let bits = bitcast<u32>(n.real);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

@compute @workgroup_size(256)
fn cast_to_words(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        y[i] = WRITE(READ(places(p, i).x));
    }
}

@compute @workgroup_size(256)
fn cast_to_halves(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = 2u * index(id, grid);
    if (i < p.count) {
        let second = min(i + 1u, p.count - 1u);
        y[i / 2u] = WRITE(READ(places(p, i).x)) | (WRITE(READ(places(p, second).x)) << 16u);
    }
}
