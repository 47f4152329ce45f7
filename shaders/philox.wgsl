// Philox4x32-10, as in src/rng.rs: four random words as a function of a key and a counter.

//!import wide

fn philox(first_key: vec2<u32>, counter: vec4<u32>) -> vec4<u32> {
    var k = first_key;
    var c = counter;
    for (var round = 0; round < 10; round++) {
        let p = wide(0xd2511f53u, c.x);
        let q = wide(0xcd9e8d57u, c.z);
        c = vec4(q.y ^ c.y ^ k.x, q.x, p.y ^ c.w ^ k.y, p.x);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}
