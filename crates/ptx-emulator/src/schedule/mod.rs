//! Schedules the warps of a block, and the blocks of a launch.

mod block;
pub(crate) mod cooperative;

pub(crate) use block::Worker;
