//! A warp: its registers, and the groups its lanes form where they diverge.

use crate::lanes::{Reg32, Reg64};
use crate::memory::Copies;

/// Lanes of a warp at one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub pc: u32,
    pub mask: u32,
    /// Waits for other lanes of the warp.
    pub blocked: bool,
}

/// Why a warp does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Ready,
    /// At the barrier of that number, for so many threads (0: all).
    Waiting {
        id: u32,
        count: u32,
    },
    /// It polled without success, or slept: the other warps run first.
    Polling,
    Done,
}

/// Local memory of a warp: word `w` of lane `l` at `w * 32 + l`, a mask of its written bytes beside it.
#[derive(Debug, Default)]
pub(crate) struct Local {
    pub words: Vec<u32>,
    pub written: Vec<u8>,
}

/// What an instruction may touch of a warp. The files are slices of their own, so that a loop that
/// writes one knows that the others stay where they are.
pub(crate) struct Lanes<'a> {
    pub r32: &'a mut [Reg32],
    pub r64: &'a mut [Reg64],
    pub preds: &'a mut [u32],
    pub local: &'a mut Local,
    pub copies: &'a mut Copies,
    pub index: u32,
    pub live: u32,
    /// Number of its block in the grid.
    pub block: u64,
}

/// A warp.
#[derive(Debug, Default)]
pub(crate) struct Warp {
    pub r32: Vec<Reg32>,
    pub r64: Vec<Reg64>,
    pub preds: Vec<u32>,
    pub local: Local,
    pub copies: Copies,
    pub groups: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    pub state: State,
    pub index: u32,
    pub executed: u64,
    pub block: u64,
    /// Predicate given to a reducing barrier.
    pub vote: u32,
    /// Instruction it waits at.
    pub wait_pc: u32,
}
