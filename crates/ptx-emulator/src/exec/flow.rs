//! What ends a run of instructions of one group.

use crate::ErrorKind;
use crate::fault::{Fault, Step};
use crate::launch::LaunchContext;

/// What ends a run of instructions of one group.
pub(crate) enum Flow {
    /// The group is now at this instruction.
    At(u32),
    /// The group splits: taken lanes and their instruction; the others go to the second one.
    Split(u32, u32, u32),
    /// Lanes to several places.
    Scatter(Vec<(u32, u32)>),
    /// These lanes ended; the others are at the instruction.
    Exit(u32, u32),
    /// The group waits at the instruction for other lanes of the warp.
    Blocked(u32),
    /// The whole warp waits at a block barrier, which is this instruction.
    Barrier { pc: u32, id: u32, count: u32, vote: u32 },
    /// The warp polled without success with the instruction before this one.
    Poll(u32),
}

/// Fails when a warp has executed more than it may.
pub(crate) fn over_budget(launch: &LaunchContext, executed: u64) -> Step {
    if executed <= launch.max_instructions {
        return Ok(());
    }
    Err(Fault::warp(
        ErrorKind::EndlessLoop,
        format!("more than {} instructions in one warp: a loop without end?", launch.max_instructions),
    ))
}
