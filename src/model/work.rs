//! What one launch asks of a GPU.

/// What a launch asks of a GPU. Of a block, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Blocks of the launch.
    pub blocks: u64,
    /// Blocks that an SM holds at once.
    pub resident: u32,
    /// Warps.
    pub warps: u32,
    /// Instructions that its warps issue.
    pub issue: f64,
    /// Lanes of fp32 arithmetic: 32 for a warp's multiply-add.
    pub fp32: f64,
    /// Lanes of roots, exponentials, reciprocals.
    pub special: f64,
    /// FLOP of `mma.sync`, those in tf32 twice.
    pub mma: f64,
    /// FLOP of `wgmma`.
    pub wgmma: f64,
    /// Wavefronts of shared memory, and shuffles.
    pub wavefronts: f64,
    /// Lines of 128 bytes that its accesses to global memory look up.
    pub lines: f64,
    /// Bytes between it and the L2.
    pub l2_bytes: f64,
    /// Bytes that the launch moves at all: each input once, each output once.
    pub stream_bytes: f64,
    /// Of these, the bytes between the L2 and device memory.
    pub dram_bytes: f64,
    /// Bytes of independent loads that a thread has in flight.
    pub flight: f64,
    /// Clocks in which it waits for results and issues nothing, were it alone.
    pub chain: f64,
    /// Barriers that its warps wait at: where there are any, loads and arithmetic take turns.
    pub barriers: u32,
    /// Barriers of the whole grid.
    pub grid_barriers: u32,
}
