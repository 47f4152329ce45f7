// Strided operands: where element `i` of a contiguous result lies in up to three views, in elements from the start of
// their storages. DIMS dimensions, innermost first; the outermost needs no size, and its steps come last.
// In larger parameters a view comes last, behind four words or eight: uniforms align it so.

struct View {
    // Elements of the result.
    count: u32,
    // Where the views begin.
    a: u32, b: u32, c: u32,
    // Sizes.
    n0: u32, n1: u32, n2: u32, n3: u32, n4: u32,
    // Steps.
    a0: u32, a1: u32, a2: u32, a3: u32, a4: u32, a5: u32,
    b0: u32, b1: u32, b2: u32, b3: u32, b4: u32, b5: u32,
    c0: u32, c1: u32, c2: u32, c3: u32, c4: u32, c5: u32,
}

fn places(v: View, i: u32) -> vec3<u32> {
    var rest = i;
    var at = vec3(v.a, v.b, v.c);
    if (DIMS > 1) {
        at += (rest % v.n0) * vec3(v.a0, v.b0, v.c0);
        rest /= v.n0;
    }
    if (DIMS > 2) {
        at += (rest % v.n1) * vec3(v.a1, v.b1, v.c1);
        rest /= v.n1;
    }
    if (DIMS > 3) {
        at += (rest % v.n2) * vec3(v.a2, v.b2, v.c2);
        rest /= v.n2;
    }
    if (DIMS > 4) {
        at += (rest % v.n3) * vec3(v.a3, v.b3, v.c3);
        rest /= v.n3;
    }
    if (DIMS > 5) {
        at += (rest % v.n4) * vec3(v.a4, v.b4, v.c4);
        rest /= v.n4;
    }
    return at + rest * vec3(v.a5, v.b5, v.c5);
}
