//! Lets the warps of a block, and the blocks of a launch, go on.

mod block;
pub(crate) mod cooperative;

pub(crate) use block::Worker;
