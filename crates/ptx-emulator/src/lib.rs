//! Runs PTX, as NVRTC or nvcc produce it, on the CPU: checks every access and counts what a kernel executes
//! and moves.
//!
//! `decode` turns a kernel into compact instructions over register slots, `exec` runs a warp of them, `access`
//! does its loads and stores, `block` holds the warps and the shared memory of a block, `job` what one launch's
//! blocks share, `resident` runs blocks that wait for each other, `memory` the global memory.

mod access;
mod alu;
mod block;
mod code;
mod copies;
mod count;
mod decode;
mod error;
mod exec;
mod job;
mod launch;
mod matrix;
mod memory;
mod module;
mod options;
mod races;
mod resident;
mod shared;
mod small;
#[cfg(test)]
mod tests;

pub use count::{Class, Counters, Instruction, LaunchCounters, Line};
pub use error::{Error, Result};
pub use launch::{Arg, Buffer, Emulator, Launch};
pub use memory::Memory;
pub use module::{Kernel, Module};
pub use options::{Options, WarpOrder};
