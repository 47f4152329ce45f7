// Rows by index. `gather` copies them. `scatter_add` sums those with one index in the order of their positions,
// without atomics: positions are sorted by index, first in blocks of 256, then over all blocks, each position finding
// its place by counting those before it; a row of the result then reads its part of the list.
//
// T is a number or four of them, U the same as words: what a thread moves. Indices come from data: those beyond the
// table give NaN, so that they are noticed.

struct Params {
    // Positions, rows of the table, elements of type T in a row.
    count: u32, rows: u32, width: u32,
    // Where rows (in elements of type T) and indices begin in their storages.
    start: u32, ids: u32,
    // Words of the result.
    size: u32,
    // Whether to add to the result.
    add: u32,
    // Where only some rows of the table are bound: how many come before them, and, to gather, how many there are in all.
    before: u32, all: u32,
}
var<immediate> p: Params;

const NAN: u32 = 0x7fc00000u;

fn index(id: vec3<u32>, grid: vec3<u32>) -> u32 {
    return id.x + id.y * grid.x * 256u;
}

// ---- gather

@group(0) @binding(0) var<storage, read_write> gathered: array<U>;
@group(0) @binding(1) var<storage, read> table: array<U>;
@group(0) @binding(2) var<storage, read> gather_ids: array<u32>;

@compute @workgroup_size(256)
fn gather(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i >= p.size) { return; }
    let at = gather_ids[p.ids + i / p.width];
    let row = at - p.before;
    if (row < p.rows) {
        gathered[i] = table[p.start + row * p.width + i % p.width];
    } else if (at >= p.all) {
        gathered[i] = U(NAN);
    }
}

@group(0) @binding(0) var<storage, read_write> gathered_words: array<u32>;
@group(0) @binding(1) var<storage, read> table_words: array<u32>;

// Element `i` of the result, in the low half, which was `old`. These upper bits of a NaN are one in both formats of 16
// bits.
fn gathered_half(i: u32, old: u32) -> u32 {
    let id = gather_ids[p.ids + i / p.width];
    if (id >= p.all) { return NAN >> 16u; }
    let row = id - p.before;
    if (row >= p.rows) { return old; }
    let at = p.start + row * p.width + i % p.width;
    return (table_words[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
}

// A thread makes a whole word, so that no two write the same one.
@compute @workgroup_size(256)
fn gather_halves(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = 2u * index(id, grid);
    if (i < p.size) {
        var old = 0u;
        if (p.rows < p.all) { old = gathered_words[i / 2u]; }
        let high = gathered_half(min(i + 1u, p.size - 1u), old >> 16u);
        gathered_words[i / 2u] = gathered_half(i, old & 0xffffu) | (high << 16u);
    }
}

// ---- positions sorted by index: `count` indices, then the positions they come from

@group(0) @binding(0) var<storage, read_write> sorted: array<u32>;
@group(0) @binding(1) var<storage, read> unsorted: array<u32>;

const BLOCK: u32 = 256u;
var<workgroup> block: array<u32, 256>;

@compute @workgroup_size(256)
fn sort_blocks(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first = (group.x + group.y * grid.x) * BLOCK;
    let here = select(0u, min(p.count - first, BLOCK), first < p.count);
    if (thread < here) { block[thread] = unsorted[p.ids + first + thread]; }
    workgroupBarrier();
    if (thread >= here) { return; }
    let mine = block[thread];
    var before = 0u;
    for (var j = 0u; j < here; j++) {
        let other = block[j];
        before += select(0u, 1u, other < mine || (other == mine && j < thread));
    }
    sorted[first + before] = mine;
    sorted[p.count + first + before] = first + thread;
}

// Indices below `bound` among the sorted ones from `first` to `end`.
fn below(bound: u32, first: u32, end: u32) -> u32 {
    var low = first;
    var high = end;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (unsorted[middle] < bound) { low = middle + 1u; } else { high = middle; }
    }
    return low - first;
}

// Sorted blocks are read from `unsorted`.
@compute @workgroup_size(256)
fn merge_blocks(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let i = index(id, grid);
    if (i >= p.count) { return; }
    let mine = unsorted[i];
    let own = i / BLOCK * BLOCK;
    var before = i - own;
    for (var first = 0u; first < p.count; first += BLOCK) {
        let end = min(first + BLOCK, p.count);
        // Equal indices of earlier blocks come first. No index is the largest word: below() treats it as beyond all.
        if (first < own) {
            before += select(below(mine + 1u, first, end), end - first, mine == 0xffffffffu);
        } else if (first > own) {
            before += below(mine, first, end);
        }
    }
    sorted[before] = mine;
    sorted[p.count + before] = unsorted[p.count + i];
}

// Where the positions of each row begin, and where those of the last one end.
@compute @workgroup_size(256)
fn find_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let row = index(id, grid);
    if (row <= p.rows) {
        sorted[row] = below(row, 0u, p.count);
    }
}

// ---- sums

@group(0) @binding(0) var<storage, read_write> y: array<U>;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;

fn part(i: u32, column: u32) -> T {
    return x[p.start + order[p.count + i] * p.width + column];
}

@compute @workgroup_size(256)
fn sum_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let at = index(id, grid);
    if (at >= p.size) { return; }
    let row = p.before + at / p.width;
    let column = at % p.width;
    var i = starts[row];
    let end = starts[row + 1u];
    let lost = starts[p.rows] < p.count;
    if (i == end && p.add == 1u && !lost) { return; }
    var sum = T();
    if (p.add == 1u) { sum = bitcast<T>(y[at]); }
    // Four reads at a time are under way; the order of the sum stays.
    for (; i + 4u <= end; i += 4u) {
        let a = part(i, column);
        let b = part(i + 1u, column);
        let c = part(i + 2u, column);
        let d = part(i + 3u, column);
        sum = (((sum + a) + b) + c) + d;
    }
    for (; i < end; i++) { sum += part(i, column); }
    y[at] = select(bitcast<U>(sum), U(NAN), lost);
}
