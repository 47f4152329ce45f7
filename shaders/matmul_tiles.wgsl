// Products by tiles of two stored matrices.

//!import matmul_sums

fn fill_b(job: Job, block: u32, l: u32) {
    let fours = COLUMNS / 4u;
    let quarter = select(block / fours, block % 4u, B_ALONG_K);
    let four = select(block % fours, block / 4u, B_ALONG_K);
    let x = b_block(job.b, job.column * COLUMNS + 4u * four, l + 4u * quarter, job.end);
    let to = 4u * quarter * fours + turned(four, quarter, fours);
    tile_b[to] = x[0];
    tile_b[to + fours] = x[1];
    tile_b[to + 2u * fours] = x[2];
    tile_b[to + 3u * fours] = x[3];
}

// Both tiles from place `l` on.
fn fill(job: Job, thread: u32, l: u32) {
    for (var block = thread; block < ROWS + COLUMNS; block += THREADS) {
        if (block < ROWS) {
            fill_a(job, block, l);
        } else {
            fill_b(job, block - ROWS, l);
        }
    }
}
