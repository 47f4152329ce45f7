// Products with a matrix S in fewer bits: the elements of a tile are unpacked right before they are used. S is the right
// operand, its rows counted first if TRANSPOSED.

//!import matmul_sums
//!import packed

// Parameters that would say where a right operand lies say where codes and scales do, how many columns S has, and which of
// its rows is the first.
fn codes_start() -> u32 { return p.b; }
fn scales_start() -> u32 { return p.b_k; }
fn matrix_columns() -> u32 { return p.b_n; }
fn first_row() -> u32 { return p.b0; }

// Columns of the result from `j` on, places from `l` on; beyond the last they repeat it, against zeros of x or for
// results that are not stored.
fn unpacked(j: u32, l: u32) -> mat4x4<f32> {
    if (TRANSPOSED) {
        let last = p.n - 1u;
        return transpose(mat4x4(
            FOUR(first_row() + min(j, last), l),
            FOUR(first_row() + min(j + 1u, last), l),
            FOUR(first_row() + min(j + 2u, last), l),
            FOUR(first_row() + min(j + 3u, last), l),
        ));
    }
    let last = p.k - 1u;
    return mat4x4(
        FOUR(first_row() + min(l, last), j),
        FOUR(first_row() + min(l + 1u, last), j),
        FOUR(first_row() + min(l + 2u, last), j),
        FOUR(first_row() + min(l + 3u, last), j),
    );
}

fn fill_b(job: Job, block: u32, l: u32) {
    let fours = COLUMNS / 4u;
    let quarter = select(block / fours, block % 4u, TRANSPOSED);
    let four = select(block % fours, block / 4u, TRANSPOSED);
    let x = unpacked(job.column * COLUMNS + 4u * four, l + 4u * quarter);
    let to = 4u * quarter * fours + turned(four, quarter, fours);
    tile_b[to] = x[0];
    tile_b[to + fours] = x[1];
    tile_b[to + 2u * fours] = x[2];
    tile_b[to + 3u * fours] = x[3];
}

// Both tiles from place `l` on.
fn fill(job: Job, thread: u32, l: u32) {
    if (l == job.first) {
        PREPARE(thread);
    }
    for (var block = thread; block < ROWS + COLUMNS; block += THREADS) {
        if (block < ROWS) {
            fill_a(job, block, l);
        } else {
            fill_b(job, block - ROWS, l);
        }
    }
}
