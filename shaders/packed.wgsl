// Elements of a matrix stored in fewer bits, row by row; as src/ops/quantised/format.rs says. ONE is how an element is
// read, FOUR how four beside each other are, PREPARE what has to be done before by all threads.
//
// The importer says where codes and scales begin, and how many columns there are.

@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;

// Workgroup memory: threads read different places of it at once.
var<workgroup> table: array<f32, 16>;

fn quantile(code: u32) -> f32 {
    switch code {
        case 0u: { return -1.0; }
        case 1u: { return -0.6961928009986877; }
        case 2u: { return -0.5250730514526367; }
        case 3u: { return -0.39491748809814453; }
        case 4u: { return -0.28444138169288635; }
        case 5u: { return -0.18477343022823334; }
        case 6u: { return -0.09105003625154495; }
        case 7u: { return 0.0; }
        case 8u: { return 0.07958029955625534; }
        case 9u: { return 0.16093020141124725; }
        case 10u: { return 0.24611230194568634; }
        case 11u: { return 0.33791524171829224; }
        case 12u: { return 0.44070982933044434; }
        case 13u: { return 0.5626170039176941; }
        case 14u: { return 0.7229568362236023; }
        default: { return 1.0; }
    }
}

fn prepare_nothing(thread: u32) {}
fn prepare_nf4(thread: u32) {
    if (thread < 16u) { table[thread] = quantile(thread); }
    workgroupBarrier();
}

fn element_at(row: u32, column: u32) -> u32 { return row * matrix_columns() + column; }
fn code_word(at: u32) -> u32 { return codes[codes_start() + at]; }

// By arithmetic on bits: drivers may take the smallest halves for zero.
fn half_of(bits: u32) -> f32 {
    let sign = (bits & 0x8000u) << 16u;
    let size = bits & 0x7fffu;
    if (size < 0x400u) { return bitcast<f32>(sign | bitcast<u32>(f32(size) * 5.9604644775390625e-8)); }
    let offset = select(112u << 23u, 224u << 23u, size >= 0x7c00u);
    return bitcast<f32>(sign | ((size << 13u) + offset));
}
// The sign is the highest bit of the byte.
fn byte_of(word: u32, byte: u32) -> f32 { return f32(bitcast<i32>(word << (24u - 8u * byte)) >> 24u); }

fn half_code(row: u32, column: u32) -> u32 {
    let e = element_at(row, column);
    return code_word(e / 2u) >> (16u * (e % 2u));
}
fn one_f16(row: u32, column: u32) -> f32 { return half_of(half_code(row, column)); }
fn one_bf16(row: u32, column: u32) -> f32 { return bitcast<f32>(half_code(row, column) << 16u); }
fn one_int8(row: u32, column: u32) -> f32 {
    let e = element_at(row, column);
    return byte_of(code_word(e / 4u), e % 4u) * scales[scales_start() + row];
}
fn one_nf4(row: u32, column: u32) -> f32 {
    let e = element_at(row, column);
    let code = (code_word(e / 8u) >> (4u * ((e % 8u) ^ 1u))) & 15u;
    return table[code] * scales[scales_start() + e / 64u];
}

// Columns beyond the last repeat it.
fn four_any(row: u32, column: u32) -> vec4<f32> {
    let last = matrix_columns() - 1u;
    return vec4(
        ONE(row, min(column, last)),
        ONE(row, min(column + 1u, last)),
        ONE(row, min(column + 2u, last)),
        ONE(row, min(column + 3u, last)),
    );
}

// Where columns are whole fours; beyond the last they repeat it.
fn first_of_four(row: u32, column: u32) -> u32 { return element_at(row, min(column, matrix_columns() - 4u)); }
fn four_f16(row: u32, column: u32) -> vec4<f32> {
    let at = first_of_four(row, column) / 2u;
    let low = code_word(at);
    let high = code_word(at + 1u);
    return vec4(half_of(low), half_of(low >> 16u), half_of(high), half_of(high >> 16u));
}
fn four_bf16(row: u32, column: u32) -> vec4<f32> {
    let at = first_of_four(row, column) / 2u;
    let low = code_word(at);
    let high = code_word(at + 1u);
    return bitcast<vec4<f32>>(vec4(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}
fn four_int8(row: u32, column: u32) -> vec4<f32> {
    let word = code_word(first_of_four(row, column) / 4u);
    return vec4(byte_of(word, 0u), byte_of(word, 1u), byte_of(word, 2u), byte_of(word, 3u)) * scales[scales_start() + row];
}
fn four_nf4(row: u32, column: u32) -> vec4<f32> {
    let e = first_of_four(row, column);
    let word = code_word(e / 8u) >> (4u * (e % 8u));
    let four = vec4(table[(word >> 4u) & 15u], table[word & 15u], table[(word >> 12u) & 15u], table[(word >> 8u) & 15u]);
    return four * scales[scales_start() + e / 64u];
}
