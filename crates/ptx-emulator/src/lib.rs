//! Runs PTX, as NVRTC or nvcc produce it, on the CPU: checks every access and counts what a kernel executes
//! and moves.
//!
//! The way of a kernel: `decode` turns its statements into the compact instructions of `isa`, with `select` for what
//! a lane computes. `schedule` lets the warps of a block and the blocks of a launch go on, `exec` runs a warp, its
//! `exec::memory` the loads and stores. `memory` holds what they touch, `check` who may see whose writes, `counters`
//! what was executed and moved, `launch` what the blocks of a launch share, and `report` puts a fault into words.
//!
#![doc = include_str!("../INSTRUCTIONS.md")]

mod check;
mod counters;
mod decode;
mod emulator;
mod error;
mod exec;
mod fault;
mod instructions;
mod isa;
mod lanes;
mod launch;
mod memory;
mod module;
mod options;
mod report;
mod schedule;
mod select;
#[cfg(test)]
mod tests;
mod warp;

pub use counters::{Counters, Instruction, LaunchCounters, Line, Sample};
pub use emulator::Emulator;
pub use error::{Error, Result};
pub use instructions::instruction_table;
pub use isa::Class;
pub use launch::{Arg, Buffer, Launch};
pub use memory::Memory;
pub use module::{Kernel, Module};
pub use options::{Options, WarpOrder};
