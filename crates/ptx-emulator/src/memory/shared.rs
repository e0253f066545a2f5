//! Shared memory of a block.

use super::mbarrier::MBarriers;
use crate::check::Shadow;

/// Shared memory of the block that runs, with the shadow of its accesses and its mbarriers.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    pub shadow: Shadow,
    pub mbarriers: MBarriers,
    /// Counts what may end the wait of a warp that polls.
    pub progress: u64,
}

impl Shared {
    /// Readies it for a block: `granule` is the smallest access of the kernel.
    pub(crate) fn start(&mut self, bytes: u32, granule: u32, warps: u32) {
        self.bytes.resize(bytes as usize, 0);
        self.shadow.start(bytes, granule, warps);
        self.mbarriers.clear();
    }
}
