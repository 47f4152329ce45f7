// y of x, whose leading heads are turned by their position's angles, see ops/rotary.rs: a thread takes one pair of a
// head (d, d + half), or four pairs where everything lies in whole fours.

struct Params {
    // Pairs, or fours of them; those of a head; heads, and those that turn.
    count: u32, pairs: u32, heads: u32, turning: u32,
    // Positions of a sequence.
    time: u32,
    // Where x begins, and the first position's pairs in the table; in the units of a thread.
    x: u32, table: u32,
    // 1, or −1 to turn back.
    sign: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(0) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> table4: array<vec4<f32>>;

// Of thread `i`: where its head begins, its pair, the pair's place in the table, and whether the head turns.
struct Place { start: u32, pair: u32, turn: u32, turns: bool }

fn place(i: u32) -> Place {
    let head = i / p.pairs;
    let pair = i % p.pairs;
    let position = head / p.heads % p.time;
    return Place(head * p.pairs * 2u, pair, position * p.pairs + pair, head % p.heads < p.turning);
}

@compute @workgroup_size(256)
fn pairs(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = id.x + id.y * grid.x * 256u;
    if (i < p.count) {
        let at = place(i);
        let first = at.start + at.pair;
        let a = x[p.x + first];
        let b = x[p.x + first + p.pairs];
        var turn = vec2(1.0, 0.0);
        if (at.turns) {
            turn = vec2(table[p.table + 2u * at.turn], p.sign * table[p.table + 2u * at.turn + 1u]);
        }
        y[first] = a * turn.x - b * turn.y;
        y[first + p.pairs] = b * turn.x + a * turn.y;
    }
}

@compute @workgroup_size(256)
fn fours(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = id.x + id.y * grid.x * 256u;
    if (i < p.count) {
        let at = place(i);
        let first = at.start + at.pair;
        let a = x4[p.x + first];
        let b = x4[p.x + first + p.pairs];
        var cosines = vec4(1.0);
        var sines = vec4(0.0);
        if (at.turns) {
            let low = table4[p.table + 2u * at.turn];
            let high = table4[p.table + 2u * at.turn + 1u];
            cosines = vec4(low.xz, high.xz);
            sines = p.sign * vec4(low.yw, high.yw);
        }
        y4[first] = a * cosines - b * sines;
        y4[first + p.pairs] = b * cosines + a * sines;
    }
}
