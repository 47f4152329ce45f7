//! Which kernel multiplies two matrices on a GPU: a formula of their sizes and of the kind of device, without trials.

/// Sizes of a product: [m, k] times [k, n], for each of some batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batches: usize,
}

/// Kernels of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One element a thread.
    Naive,
    /// Eight by eight elements a thread, straight from storage: for drivers that run on the host.
    Direct,
    /// At most eight columns (or rows), streaming the other operand.
    Narrow,
    /// Tiles of that many rows and columns in workgroup memory: 128×128, 64×64, 32×32, or 64×16 for few columns.
    Tiles(usize, usize),
}

/// A kernel by tiles.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
    /// Blocks of four by four that a thread sums in each direction.
    blocks: usize,
    /// Workgroups that keep a card busy.
    busy: usize,
    /// Speed when it is busy, in per cent of the fastest.
    speed: usize,
}

/// The last is for at most sixteen columns.
const TILES: [Tile; 4] = [
    Tile { rows: 128, columns: 128, blocks: 2, busy: 256, speed: 100 },
    Tile { rows: 64, columns: 64, blocks: 2, busy: 512, speed: 80 },
    Tile { rows: 32, columns: 32, blocks: 1, busy: 1024, speed: 55 },
    Tile { rows: 64, columns: 16, blocks: 1, busy: 1024, speed: 55 },
];
const SLIM: usize = 16;

impl Tile {
    fn of(rows: usize, columns: usize) -> Tile {
        let found = TILES.into_iter().find(|tile| (tile.rows, tile.columns) == (rows, columns));
        found.unwrap_or_else(|| panic!("no tiles of {rows} by {columns}"))
    }

    fn family(&self) -> Family {
        Family::Tiles(self.rows, self.columns)
    }

    fn groups(&self, size: &Size) -> usize {
        size.m.div_ceil(self.rows) * size.n.div_ceil(self.columns) * size.batches
    }

    /// Time of a product in arbitrary units: what all groups multiply, or what a card does meanwhile if they leave it
    /// idle.
    fn cost(&self, size: &Size) -> u128 {
        let plan = Plan::of(self.family(), size, [false; 2]);
        let groups = (self.groups(size) * plan.parts).max(self.busy);
        (groups * self.rows * self.columns) as u128 * plan.depth as u128 * 100 / self.speed as u128
    }
}

/// Most parts that k is cut into: one thread adds up an element's.
const MOST_PARTS: usize = 64;
/// Workgroups of the narrow kernel that keep a card busy.
const NARROW_GROUPS: usize = 512;
/// Threads that keep a host busy, and places of k that are worth a thread.
const DIRECT_BUSY: usize = 128;
const DIRECT_DEPTH: usize = 256;
/// Places of k that are worth a tile of their own.
const TILE_DEPTH: usize = 512;

/// A kernel with its constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub family: Family,
    /// Whether the transposed result is computed, from the transposed operands.
    pub swap: bool,
    /// Direct: threads of a workgroup along columns. Narrow: threads along rows.
    pub side: usize,
    /// Parts of k, and their depth.
    pub parts: usize,
    pub depth: usize,
}

impl Plan {
    /// The kernel for a product whose operands lie along k or not.
    pub fn choose(size: &Size, along_k: [bool; 2], software: bool) -> Plan {
        let least = size.m.min(size.n);
        let family = match () {
            () if software => Family::Direct,
            () if least <= 8 => Family::Narrow,
            () if least <= SLIM => Family::Tiles(64, SLIM),
            () => TILES[..3].iter().min_by_key(|tile| tile.cost(size)).expect("there are tiles").family(),
        };
        Plan::of(family, size, along_k)
    }

    /// A kernel of this family.
    pub fn of(family: Family, size: &Size, along_k: [bool; 2]) -> Plan {
        let swap = size.m < size.n && matches!(family, Family::Narrow | Family::Tiles(_, SLIM));
        let (m, n) = if swap { (size.n, size.m) } else { (size.m, size.n) };
        let size = Size { m, n, ..*size };
        let plan = Plan { family, swap, side: 0, parts: 1, depth: size.k };
        match family {
            Family::Naive => plan,
            Family::Direct => {
                let threads = size.m.div_ceil(8) * size.n.div_ceil(8) * size.batches;
                let side = size.n.div_ceil(8).next_power_of_two().min(8);
                Plan { side, ..plan }.split(size.k, DIRECT_BUSY / threads, DIRECT_DEPTH, 4)
            }
            Family::Narrow => {
                assert!(size.n <= 8, "{size:?} by the narrow kernel");
                // Threads go where the operand lies together, and where there is work for them.
                let most = if along_k[usize::from(swap)] { 4 } else { 32 };
                let deep = size.k.div_ceil(4).next_power_of_two().min(256);
                let side = size.m.div_ceil(4).next_power_of_two().min(most).max(256 / deep);
                let groups = size.m.div_ceil(4 * side) * size.batches;
                let round = 4 * (256 / side);
                Plan { side, ..plan }.split(size.k, NARROW_GROUPS / groups, 4 * round, round)
            }
            Family::Tiles(rows, columns) => {
                let tile = Tile::of(rows, columns);
                plan.split(size.k, tile.busy / tile.groups(&size), TILE_DEPTH, 16)
            }
        }
    }

    /// The same with at most `most` parts.
    pub fn limited(self, k: usize, most: usize) -> Plan {
        let depth = self.depth * self.parts.div_ceil(most.max(1));
        Plan { parts: k.div_ceil(depth), depth, ..self }
    }

    /// Cuts k into at most `parts`, none of them shorter than `least`, in whole multiples of `unit`.
    fn split(self, k: usize, parts: usize, least: usize, unit: usize) -> Plan {
        let parts = parts.min(k / least).clamp(1, MOST_PARTS);
        let depth = k.div_ceil(parts).next_multiple_of(unit);
        Plan { parts: k.div_ceil(depth), depth, ..self }
    }
}

/// Blocks of four by four that a thread sums in each direction, by tiles of that many rows and columns.
pub(super) fn blocks(rows: usize, columns: usize) -> usize {
    Tile::of(rows, columns).blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(m: usize, k: usize, n: usize) -> Plan {
        Plan::choose(&Size { m, n, k, batches: 1 }, [true, false], false)
    }

    #[test]
    fn kernels_fit_shapes() {
        let family = |m, k, n| chosen(m, k, n).family;
        assert_eq!(family(4096, 4096, 4096), Family::Tiles(128, 128));
        assert_eq!(family(16384, 8, 4096), Family::Tiles(128, 128));
        assert_eq!(family(200, 200, 200), Family::Tiles(32, 32));
        assert_eq!(family(4096, 4096, 16), Family::Tiles(64, 16));
        assert_eq!(family(8, 4096, 4096), Family::Narrow);
        assert_eq!(family(4096, 4096, 1), Family::Narrow);
        let host = Plan::choose(&Size { m: 512, n: 512, k: 512, batches: 1 }, [true; 2], true);
        assert_eq!(host.family, Family::Direct);
    }

    /// A short side is that of columns, long products are cut, and parts are whole fours and cover k.
    #[test]
    fn parts_cover_k() {
        assert!(chosen(8, 16384, 4096).swap && !chosen(4096, 16384, 8).swap);
        for (m, k, n) in [(8, 16384, 4096), (64, 100_001, 64), (1, 1_000_000, 1), (768, 5000, 768), (20, 9000, 16)] {
            for software in [false, true] {
                let plan = Plan::choose(&Size { m, n, k, batches: 1 }, [true; 2], software);
                assert!(plan.parts <= MOST_PARTS && plan.depth.is_multiple_of(4), "{m} {k} {n}: {plan:?}");
                assert!((plan.parts - 1) * plan.depth < k && k <= plan.parts * plan.depth, "{m} {k} {n}: {plan:?}");
                assert!(plan.parts > 1 || m * n > 4096, "{m} {k} {n}: {plan:?}");
            }
        }
    }
}
