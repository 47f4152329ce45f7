// y = f(a, b, c) element by element, f one of functions.wgsl: ONE, TWO or THREE stands for it, by its number of
// operands, which are of types A, B and C, or UPDATE where it changes y. `dense_*` take four elements a thread from operands that lie like the result, or are a single element
// (steps A_STEP, B_STEP, C_STEP of 1 or 0); the others read any view.

//!import view
//!import functions

var<immediate> p: View;

@group(0) @binding(0) var<storage, read_write> y: array<Y>;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> b: array<B>;
@group(0) @binding(3) var<storage, read> c: array<C>;
@group(0) @binding(0) var<storage, read_write> y4: array<vec4<Y>>;
@group(0) @binding(1) var<storage, read> a4: array<vec4<A>>;
@group(0) @binding(2) var<storage, read> b4: array<vec4<B>>;
@group(0) @binding(3) var<storage, read> c4: array<vec4<C>>;

// What the others stand for.
fn none_one(a: A) -> Y { return Y(a); }
fn none_two(a: A, b: B) -> Y { return Y(a); }
fn none_update(y: Y, a: A) -> Y { return y; }
fn none_three(a: A, b: B, c: C) -> Y { return Y(a); }

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

// Four elements from `4 i` on; storages are padded to whole fours.
fn four_a(i: u32) -> vec4<A> {
    let start = p.a;
    if (A_STEP == 0) { return vec4(a4[start / 4u][start % 4u]); }
    return a4[start / 4u + i];
}
fn four_b(i: u32) -> vec4<B> {
    let start = p.b;
    if (B_STEP == 0) { return vec4(b4[start / 4u][start % 4u]); }
    return b4[start / 4u + i];
}
fn four_c(i: u32) -> vec4<C> {
    let start = p.c;
    if (C_STEP == 0) { return vec4(c4[start / 4u][start % 4u]); }
    return c4[start / 4u + i];
}

@compute @workgroup_size(256)
fn dense_one(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.count) {
        let a = four_a(i);
        y4[i] = vec4(ONE(a.x), ONE(a.y), ONE(a.z), ONE(a.w));
    }
}

@compute @workgroup_size(256)
fn dense_two(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.count) {
        let a = four_a(i);
        let b = four_b(i);
        y4[i] = vec4(TWO(a.x, b.x), TWO(a.y, b.y), TWO(a.z, b.z), TWO(a.w, b.w));
    }
}

@compute @workgroup_size(256)
fn dense_three(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.count) {
        let a = four_a(i);
        let b = four_b(i);
        let c = four_c(i);
        y4[i] = vec4(
            THREE(a.x, b.x, c.x), THREE(a.y, b.y, c.y), THREE(a.z, b.z, c.z), THREE(a.w, b.w, c.w),
        );
    }
}

// y = f(y, a).
@compute @workgroup_size(256)
fn dense_update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (4u * i < p.count) {
        let y = y4[i];
        let a = four_a(i);
        y4[i] = vec4(UPDATE(y.x, a.x), UPDATE(y.y, a.y), UPDATE(y.z, a.z), UPDATE(y.w, a.w));
    }
}

@compute @workgroup_size(256)
fn strided_one(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        y[i] = ONE(a[places(p, i).x]);
    }
}

@compute @workgroup_size(256)
fn strided_two(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        let at = places(p, i);
        y[i] = TWO(a[at.x], b[at.y]);
    }
}

@compute @workgroup_size(256)
fn strided_three(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        let at = places(p, i);
        y[i] = THREE(a[at.x], b[at.y], c[at.z]);
    }
}

@compute @workgroup_size(256)
fn strided_update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i < p.count) {
        y[i] = UPDATE(y[i], a[places(p, i).x]);
    }
}
