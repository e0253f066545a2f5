//! Theoretical occupancy: how many blocks of a kernel an SM can hold at once, and what stops it from
//! holding more. The rules are those of the CUDA occupancy calculator.

/// What an SM of one compute capability holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Compute capability times ten: 80, 90.
    pub arch: u32,
    /// Warps on an SM.
    pub warps: u32,
    /// Blocks on an SM.
    pub blocks: u32,
    /// Bytes of shared memory of an SM.
    pub shared: u32,
    /// Bytes of it that a block may have at most.
    pub shared_a_block: u32,
    /// Bytes that the system takes of every block's share.
    pub shared_reserved: u32,
    /// Shared memory is given out in pieces of so many bytes.
    pub shared_unit: u32,
}

/// Threads a warp.
const WARP: u32 = 32;
/// Threads a block at most.
const BLOCK: u32 = 1024;
/// Registers of an SM, and of a block at most.
const REGISTERS: u32 = 65536;
/// Registers are given to warps in pieces of so many.
const REGISTER_UNIT: u32 = 256;
/// Parts of an SM that have registers of their own; a warp stays in one.
const PARTS: u32 = 4;

const fn limits(arch: u32, warps: u32, blocks: u32, shared_kib: u32) -> Limits {
    let reserved = 1024;
    Limits {
        arch,
        warps,
        blocks,
        shared: shared_kib * 1024,
        shared_a_block: shared_kib * 1024 - reserved,
        shared_reserved: reserved,
        shared_unit: 128,
    }
}

/// The compute capabilities there are figures of, oldest first.
pub const ALL: [Limits; 7] = [
    Limits { shared_a_block: 65536, shared_reserved: 0, shared_unit: 256, ..limits(75, 32, 16, 64) },
    limits(80, 64, 32, 164),
    limits(86, 48, 16, 100),
    limits(89, 48, 24, 100),
    limits(90, 64, 32, 228),
    limits(100, 64, 32, 228),
    limits(120, 48, 24, 100),
];

/// The limits of a compute capability, times ten; of the nearest older one where it is not in [`ALL`].
pub fn limits_of(arch: u32) -> Limits {
    *ALL.iter().rfind(|l| l.arch <= arch).unwrap_or(&ALL[0])
}

/// What stops an SM from holding more blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All warps are taken.
    Warps,
    /// All block slots are taken.
    Blocks,
    /// All registers are taken.
    Registers,
    /// All shared memory is taken.
    Shared,
    /// A single block is too large: it cannot be launched.
    TooLarge,
}

impl Limit {
    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warps => "warps",
            Self::Blocks => "blocks",
            Self::Registers => "registers",
            Self::Shared => "shared memory",
            Self::TooLarge => "block too large",
        }
    }
}

/// Occupancy of one kernel on one architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occupancy {
    /// Blocks an SM holds.
    pub blocks: u32,
    /// Warps an SM holds.
    pub warps: u32,
    /// Of the most it could hold, 0 to 1.
    pub fraction: f64,
    /// What binds; of several the first in the order of [`Limit`].
    pub limit: Limit,
    /// Most blocks by warps, block slots, registers and shared memory alone.
    pub by: [u32; 4],
}

/// Occupancy of blocks of `threads` threads with `registers` registers a thread and `shared` bytes of
/// shared memory a block, static and dynamic together.
pub fn occupancy(limits: &Limits, threads: u32, registers: u32, shared: u32) -> Occupancy {
    let warps_a_block = threads.div_ceil(WARP).max(1);
    let registers_a_warp = (registers * WARP).next_multiple_of(REGISTER_UNIT);
    let warps_by_registers = match registers_a_warp {
        0 => u32::MAX,
        n => REGISTERS / PARTS / n * PARTS,
    };
    let shared_a_block = (shared + limits.shared_reserved).next_multiple_of(limits.shared_unit);
    let by = [
        limits.warps / warps_a_block,
        limits.blocks,
        warps_by_registers / warps_a_block,
        limits.shared.checked_div(shared_a_block).unwrap_or(u32::MAX),
    ];
    let fits = threads <= BLOCK && registers <= 255 && shared <= limits.shared_a_block;
    let blocks = if fits { by.into_iter().min().unwrap_or(0) } else { 0 };
    let limit = match by.iter().position(|&b| b == blocks) {
        Some(at) if blocks > 0 => [Limit::Warps, Limit::Blocks, Limit::Registers, Limit::Shared][at],
        _ => Limit::TooLarge,
    };
    let warps = blocks * warps_a_block;
    Occupancy { blocks, warps, fraction: f64::from(warps) / f64::from(limits.warps), limit, by }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks, percent, and what binds.
    fn figures(arch: u32, threads: u32, registers: u32, shared: u32) -> (u32, u32, Limit) {
        let o = occupancy(&limits_of(arch), threads, registers, shared);
        (o.blocks, (o.fraction * 100.0).round() as u32, o.limit)
    }

    #[test]
    fn figures_of_the_occupancy_calculator() {
        use Limit::*;
        // 256 threads, 32 registers, 4 KiB: the sheet the calculator opens with. 7.5 has half the warps.
        assert_eq!(figures(75, 256, 32, 4096), (4, 100, Warps));
        assert_eq!(figures(80, 256, 32, 4096), (8, 100, Warps));
        assert_eq!(figures(86, 256, 32, 4096), (6, 100, Warps));
        assert_eq!(figures(90, 256, 32, 4096), (8, 100, Warps));
        // 33 registers are 1056 a warp, given as 1280: 12 warps in each quarter of 16384.
        assert_eq!(figures(80, 256, 33, 0), (6, 75, Registers));
        assert_eq!(figures(80, 256, 40, 0), (6, 75, Registers));
        // 64 registers: 2048 a warp, 8 warps a quarter.
        assert_eq!(figures(80, 256, 64, 0), (4, 50, Registers));
        assert_eq!(figures(75, 256, 64, 0), (4, 100, Warps));
        assert_eq!(figures(89, 256, 64, 0), (4, 67, Registers));
        // 255 registers: 8192 a warp, 2 a quarter.
        assert_eq!(figures(80, 128, 255, 0), (2, 13, Registers));
        assert_eq!(figures(80, 512, 255, 0), (0, 0, TooLarge));
        // 168 registers x 384 threads, a persistent matrix kernel: 12 warps in all, one block.
        assert_eq!(figures(90, 384, 168, 0), (1, 19, Registers));
        // Small blocks run out of slots: 16, 24 or 32 of them.
        assert_eq!(figures(80, 32, 32, 0), (32, 50, Blocks));
        assert_eq!(figures(86, 32, 32, 0), (16, 33, Blocks));
        assert_eq!(figures(89, 32, 32, 0), (24, 50, Blocks));
        assert_eq!(figures(120, 32, 32, 0), (24, 50, Blocks));
        assert_eq!(figures(75, 64, 32, 0), (16, 100, Warps));
    }

    #[test]
    fn shared_memory_is_given_in_pieces_and_the_system_takes_a_kibibyte() {
        use Limit::*;
        // 48 KiB + 1 KiB: 164 / 49 = 3.3, 228 / 49 = 4.6, 100 / 49 = 2.04; 7.5 reserves nothing: 64 / 48.
        assert_eq!(figures(80, 256, 32, 48 << 10), (3, 38, Shared));
        assert_eq!(figures(90, 256, 32, 48 << 10), (4, 50, Shared));
        assert_eq!(figures(86, 256, 32, 48 << 10), (2, 33, Shared));
        assert_eq!(figures(75, 256, 32, 48 << 10), (1, 25, Shared));
        // Two blocks of 81 KiB fit 164 KiB with their kibibytes; one byte more and only one does.
        assert_eq!(figures(80, 128, 32, 81 << 10), (2, 13, Shared));
        assert_eq!(figures(80, 128, 32, (81 << 10) + 1), (1, 6, Shared));
        // The most a block may have.
        assert_eq!(figures(90, 128, 32, 227 << 10), (1, 6, Shared));
        assert_eq!(figures(90, 128, 32, (227 << 10) + 1), (0, 0, TooLarge));
        assert_eq!(figures(75, 128, 32, 64 << 10), (1, 13, Shared));
    }

    #[test]
    fn partial_warps_count_whole() {
        let o = occupancy(&limits_of(80), 100, 16, 0);
        assert_eq!((o.blocks, o.warps, o.limit), (16, 64, Limit::Warps));
        assert_eq!(o.by, [16, 32, 32, 164]);
        // 48 warps do not hold two blocks of 1024 threads.
        assert_eq!(figures(86, 1024, 32, 0), (1, 67, Limit::Warps));
    }
}
