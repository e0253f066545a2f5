//! How an emulator runs.

/// Order in which the warps of a block run, and the blocks of a cooperative launch. A kernel whose result
/// depends on it has a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarpOrder {
    /// Warp 0 and block 0 first.
    #[default]
    Forward,
    /// Warp 0 and block 0 last.
    Reverse,
}

/// How an [`Emulator`](crate::Emulator) runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads of the host; 0 for all cores.
    pub threads: usize,
    /// Order of the warps of a block.
    pub warp_order: WarpOrder,
    /// Most warp-instructions one warp may execute before it counts as a loop without end.
    pub max_instructions: u64,
    /// Check for races between blocks on global memory, and for non-coherent loads of what the launch writes; blocks then run
    /// one after the other, those of a cooperative launch in turns. There, release and acquire order what the blocks do.
    pub check_races: bool,
    /// Count instructions and traffic.
    pub count: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            warp_order: WarpOrder::Forward,
            max_instructions: 4_000_000_000,
            check_races: false,
            count: false,
        }
    }
}
