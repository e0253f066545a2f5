//! The lane-wise instructions: which operands each has, and what it computes.
//!
//! Every one has a function of one lane ([`Lane`](crate::isa::Lane)); those that kernels spend their time in also name
//! an [`Op`](crate::isa::Op) that `exec` runs as a vector loop over the warp. `families` lists them by name; each of
//! `moves`, `integer`, `logic`, `float`, `half`, `compare` and `convert` holds the bodies of its families.

mod alu;
mod bits;
mod compare;
mod convert;
mod expand;
mod families;
mod float;
mod half;
mod integer;
mod logic;
mod moves;
mod relation;
mod rounding;
#[cfg(test)]
mod tests;

pub(crate) use alu::Alu;
pub(crate) use families::FAMILIES;
pub(crate) use relation::bool_op_number;
pub(crate) use rounding::{fma_down, max_f32, min_f32};

use crate::isa::Mods;

/// How to run an opcode, or None where it is not a lane-wise one that is known.
pub(crate) fn select(op: &[String]) -> Option<Alu> {
    let mut m = Mods::new(op);
    let name = op[0].as_str();
    let ty = *m.types.last()?;
    let family = FAMILIES.iter().find(|f| f.names.contains(&name) && f.take.answers(ty))?;
    let alu = (family.take.select)(name, ty, &mut m)?;
    m.rest.is_empty().then_some(alu)
}
