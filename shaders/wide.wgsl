// Lower and upper word of a product of two words.
fn wide(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let first = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let second = (a & 0xffffu) * (b >> 16u) + (first & 0xffffu);
    return vec2(a * b, (a >> 16u) * (b >> 16u) + (first >> 16u) + (second >> 16u));
}
