//! A selected instruction.

use crate::isa::{Lane, Op, Ty};

/// How to run a lane-wise instruction.
pub(crate) struct Alu {
    pub fast: Option<Op>,
    pub lane: Lane,
    pub dst: Ty,
    pub src: Vec<Ty>,
}

pub(crate) fn alu(fast: Option<Op>, lane: Lane, dst: Ty, src: &[Ty]) -> Option<Alu> {
    Some(Alu { fast, lane, dst, src: src.to_vec() })
}
