//! A selected instruction.

use crate::isa::{Lane, Op, Ty};

/// How to run a lane-wise instruction.
pub(crate) struct Alu {
    /// The vector loop that runs it, where there is one.
    pub fast: Option<Op>,
    pub lane: Lane,
    pub dst: Ty,
    pub src: Vec<Ty>,
}

pub(crate) fn alu(fast: Option<Op>, lane: Lane, dst: Ty, src: &[Ty]) -> Option<Alu> {
    Some(Alu { fast, lane, dst, src: src.to_vec() })
}

/// The vector loop for a type of 32 or of 64 bits.
pub(crate) fn sized(ty: Ty, op32: Op, op64: Op) -> Option<Op> {
    match ty.bytes() {
        4 => Some(op32),
        8 => Some(op64),
        _ => None,
    }
}
