// Entries of random projections, as in src/ops/project/entries.rs and normal.rs: functions of the words of a seed's array.

//!import philox

// Number of the word in row `row` and column `column` of rows of `width` words: lower word and upper.
fn number_of(row: u32, width: u32, column: u32) -> vec2<u32> {
    let start = wide(row, width);
    let low = start.x + column;
    return vec2(low, start.y + u32(low < column));
}

// Four words from number `first` on.
fn four_words(key: vec2<u32>, first: vec2<u32>) -> vec4<u32> {
    let block = vec2((first.x >> 2u) | (first.y << 30u), first.y >> 2u);
    let near = philox(key, vec4(block, 0u, 0u));
    let skip = first.x & 3u;
    if (skip == 0u) { return near; }
    let far = philox(key, vec4(block.x + 1u, block.y + u32(block.x == 0xffffffffu), 0u, 0u));
    switch skip {
        case 1u: { return vec4(near.yzw, far.x); }
        case 2u: { return vec4(near.zw, far.xy); }
        default: { return vec4(near.w, far.xyz); }
    }
}

// A Walsh function's parities at 32 places from 32 times each of `words` on.
fn parities(function: u32, words: vec4<u32>) -> vec4<u32> {
    let low = array(0xaaaaaaaau, 0xccccccccu, 0xf0f0f0f0u, 0xff00ff00u, 0xffff0000u);
    var sum = 0u - (countOneBits(vec4(function >> 5u) & words) & vec4(1u));
    for (var bit = 0u; bit < 5u; bit++) {
        sum ^= vec4(low[bit] & (0u - (function >> bit & 1u)));
    }
    return sum;
}

// The number whose bits are `scale`, negative where the bit of a word at a place is set.
fn signs(words: vec4<u32>, places: vec4<u32>, scale: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4(scale) | (words >> places << vec4(31u)));
}

// −ln x of normal numbers (Cephes' logf), the same formula as on the host rather than what a driver has.
fn minus_ln(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<i32>>(x);
    let n = (bits - vec4(0x3f3504f3)) >> vec4(23u);
    let f = bitcast<vec4<f32>>(bits - (n << vec4(23u))) - 1.0;
    var c = vec4(0.070376836);
    c = fma(c, f, vec4(-0.1151461));
    c = fma(c, f, vec4(0.116769984));
    c = fma(c, f, vec4(-0.12420141));
    c = fma(c, f, vec4(0.14249323));
    c = fma(c, f, vec4(-0.16668058));
    c = fma(c, f, vec4(0.20000714));
    c = fma(c, f, vec4(-0.24999994));
    c = fma(c, f, vec4(0.3333333));
    let e = vec4<f32>(n);
    let tail = fma(-0.5 * f, f, fma(c, f * f * f, -2.1219444e-4 * e));
    return fma(e, vec4(-0.6933594), -(f + tail));
}

// √2 erf⁻¹ of numbers in (−1, 1), by `scale` / √2: Giles (2010), single precision.
fn normals(words: vec4<u32>, scale: f32) -> vec4<f32> {
    let u = vec4<f32>(2 * vec4<i32>(words >> vec4(8u)) - 0xffffff) * (1.0 / 16777216.0);
    let w = minus_ln((1.0 - u) * (1.0 + u));
    let x = w - 2.5;
    var near = vec4(2.8102264e-8);
    near = fma(near, x, vec4(3.4327394e-7));
    near = fma(near, x, vec4(-3.5233877e-6));
    near = fma(near, x, vec4(-4.3915065e-6));
    near = fma(near, x, vec4(0.00021858087));
    near = fma(near, x, vec4(-0.001253725));
    near = fma(near, x, vec4(-0.0041776816));
    near = fma(near, x, vec4(0.24664073));
    near = fma(near, x, vec4(1.5014094));
    let z = sqrt(w) - 3.0;
    var far = vec4(-0.00020021426);
    far = fma(far, z, vec4(0.00010095056));
    far = fma(far, z, vec4(0.0013493432));
    far = fma(far, z, vec4(-0.0036734284));
    far = fma(far, z, vec4(0.0057395077));
    far = fma(far, z, vec4(-0.0076224613));
    far = fma(far, z, vec4(0.0094388705));
    far = fma(far, z, vec4(1.0016741));
    far = fma(far, z, vec4(2.8329768));
    return u * select(far, near, w < vec4(5.0)) * scale;
}
