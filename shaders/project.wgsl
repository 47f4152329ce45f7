// Products with a matrix P that is drawn, never stored: the entries of a tile come from P's seed right before they are
// used. P is the right operand, and x is read with its columns first, so that results are those of P x transposed; of
// Pᵀ x if BACK. ENTRIES is how P's entries are made.

//!import matmul_sums
//!import entries

// Parameters that would say where a right operand lies say what P is: its key, its columns, the first of those that are
// used (a multiple of 128), the scale of its entries and, of signs, the order of Walsh functions; there is one batch alone,
// so that steps between batches can say it too.
fn key() -> vec2<u32> { return vec2(p.b, p.b_n); }
fn size() -> u32 { return p.b_k; }
fn first_column() -> u32 { return p.b0; }
fn scale() -> u32 { return p.b1; }
fn group() -> u32 { return p.b2; }

// As in src/ops/project/walsh.rs.
fn function_of(row: u32) -> u32 {
    let mask = group() - 1u;
    var k = ((row & mask) * p.a0 + p.a1) & mask;
    k ^= k >> p.b3;
    return (k * p.a2 + p.a3) & mask;
}

// Signs: for rows of P, four words of each. They last for 128 places along k, or, going back, for 64 rows.
var<workgroup> rows: array<vec4<u32>, 64>;

fn draw(job: Job, thread: u32, l: u32) {
    let tile = job.column * COLUMNS;
    let row = select(tile, l, BACK);
    let column = first_column() + select(l, tile, BACK);
    let count = select(min(COLUMNS, p.n - tile), min(64u, p.k - l), BACK);
    for (var i = thread; i < count; i += THREADS) {
        let words = four_words(key(), number_of((row + i) / group(), (size() + 31u) / 32u, column / 32u));
        rows[i] = words ^ parities(function_of(row + i), column / 32u + vec4(0u, 1u, 2u, 3u));
    }
    workgroupBarrier();
}

// Entries for four columns of the tile from `column` on, at four places from `place` behind `l` on.

fn signs_ahead(job: Job, column: u32, l: u32, place: u32) -> mat4x4<f32> {
    let at = l % 128u + place;
    let word = at / 32u;
    let words = vec4(rows[column][word], rows[column + 1u][word], rows[column + 2u][word], rows[column + 3u][word]);
    let bit = vec4(at % 32u);
    return mat4x4(
        signs(words, bit, scale()),
        signs(words, bit + 1u, scale()),
        signs(words, bit + 2u, scale()),
        signs(words, bit + 3u, scale()),
    );
}

fn signs_back(job: Job, column: u32, l: u32, place: u32) -> mat4x4<f32> {
    let row = l % 64u + place;
    let word = column / 32u;
    let bits = column % 32u + vec4(0u, 1u, 2u, 3u);
    return mat4x4(
        signs(vec4(rows[row][word]), bits, scale()),
        signs(vec4(rows[row + 1u][word]), bits, scale()),
        signs(vec4(rows[row + 2u][word]), bits, scale()),
        signs(vec4(rows[row + 3u][word]), bits, scale()),
    );
}

fn four_normals(row: u32, column: u32) -> vec4<f32> {
    return normals(four_words(key(), number_of(row, size(), first_column() + column)), bitcast<f32>(scale()));
}

fn normals_ahead(job: Job, column: u32, l: u32, place: u32) -> mat4x4<f32> {
    let row = job.column * COLUMNS + column;
    let at = l + place;
    return transpose(mat4x4(
        four_normals(row, at),
        four_normals(row + 1u, at),
        four_normals(row + 2u, at),
        four_normals(row + 3u, at),
    ));
}

fn normals_back(job: Job, column: u32, l: u32, place: u32) -> mat4x4<f32> {
    let row = l + place;
    let at = job.column * COLUMNS + column;
    return mat4x4(
        four_normals(row, at),
        four_normals(row + 1u, at),
        four_normals(row + 2u, at),
        four_normals(row + 3u, at),
    );
}

fn fill_b(job: Job, block: u32, l: u32) {
    let fours = COLUMNS / 4u;
    let quarter = block / fours;
    let four = block % fours;
    let x = ENTRIES(job, 4u * four, l, 4u * quarter);
    let to = 4u * quarter * fours + turned(four, quarter, fours);
    tile_b[to] = x[0];
    tile_b[to + fours] = x[1];
    tile_b[to + 2u * fours] = x[2];
    tile_b[to + 3u * fours] = x[3];
}

// Both tiles from place `l` on; parts of k begin at multiples of 128.
fn fill(job: Job, thread: u32, l: u32) {
    if (SIGNS && l % select(128u, 64u, BACK) == 0u) {
        draw(job, thread, l);
    }
    for (var block = thread; block < ROWS + COLUMNS; block += THREADS) {
        if (block < ROWS) {
            fill_a(job, block, l);
        } else {
            fill_b(job, block - ROWS, l);
        }
    }
}
