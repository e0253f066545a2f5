//! Runs PTX, as NVRTC or nvcc produce it, on the CPU: no GPU, no driver, no CUDA toolkit. It checks every access of a
//! kernel and counts what the kernel executes and moves.
//!
//! ```
//! use ptx_emulator::{Buffer, Emulator, Launch, Memory, Module, Options};
//!
//! // x[i] *= 2, for one block.
//! let ptx = "
//! .version 8.0
//! .target sm_80
//! .address_size 64
//! .visible .entry twice(.param .u64 twice_param_0)
//! {
//!     .reg .f32 %f<3>;
//!     .reg .b32 %r<2>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [twice_param_0];
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     ld.global.f32 %f1, [%rd3];
//!     add.f32 %f2, %f1, %f1;
//!     st.global.f32 [%rd3], %f2;
//!     ret;
//! }";
//! let kernel = Module::from_ptx(ptx)?.kernel("twice")?;
//! let emulator = Emulator::new(Options { count: true, ..Options::default() });
//! let memory = Memory::of(&[1f32, 2.0, 3.0, 4.0])?;
//! let args = [Buffer::whole(&memory, "x").into()];
//!
//! let counters = emulator.launch(&kernel, &Launch::new([1, 1, 1], [4, 1, 1], &args))?;
//! assert_eq!(memory.read::<f32>(0, 4)?, [2.0, 4.0, 6.0, 8.0]);
//! assert_eq!(counters.expect("it was counted").total().global_read_bytes, 16);
//!
//! // A fifth thread has no element.
//! let error = emulator.launch(&kernel, &Launch::new([1, 1, 1], [5, 1, 1], &args)).unwrap_err();
//! assert_eq!(error.kind(), ptx_emulator::ErrorKind::OutOfBounds);
//! assert_eq!((error.thread(), error.variable()), (Some([4, 0, 0]), Some("x")));
//! # Ok::<(), ptx_emulator::Error>(())
//! ```
//!
//! The examples `saxpy` and `race` go further: counters by source line, and a kernel whose barrier is missing.
//!
//! # What is checked
//!
//! A launch ends at the first fault of the first block that has one. The [`Error`] names kernel, block, thread, source
//! line (from `.loc`), PTX line and variable.
//!
//! | checked | always | limits |
//! |---|---|---|
//! | bounds of buffers, module variables, shared and local memory | yes | a buffer is a range of a [`Memory`]; what lies next to it in the memory is out of bounds |
//! | alignment, null pointers, stores to constant memory | yes | |
//! | reads of memory that nothing has written | yes | global and local memory by the byte, shared memory by the shadow granule: the smallest access of the kernel, at most 4 bytes |
//! | reads of registers that nothing has written | yes | where it depends on the path that lanes take |
//! | races on shared memory, between warps and between lanes of a warp | yes | one order of the warps is run; [`WarpOrder::Reverse`] runs the other. The lanes of the 64 latest loads are remembered |
//! | lanes that store different values to one place in one instruction | yes | |
//! | asynchronous copies that are used before the thread waited for them | yes | |
//! | barriers, syncwarps, shuffles and mbarriers that not all reach | yes | |
//! | loops without end | yes | by the number of instructions, [`Options::max_instructions`] |
//! | non-coherent loads (`ld.global.nc`) of what the same launch writes | with [`Options::check_races`] | by the byte |
//! | two cooperative launches of one emulator at once, each of which may hold what the other's blocks wait for | yes | |
//! | races between blocks on global memory | with [`Options::check_races`] | blocks run one after the other, on one thread of the host; the threads of a block count as one; fences order nothing, only acquire and release of one place do |
//!
//! Not found: an overrun from one shared array into the next of the same block, races on *global* memory between the
//! threads of one block, and what a partial `bar.warp.sync` leaves unordered (it counts as one of the whole warp).
//!
//! Races are found by vector clocks, not by luck: an access is at fault as soon as no barrier orders it after the other
//! one, whatever order they ran in.
//!
//! # What is computed
//!
//! Arithmetic is that of the PTX ISA to the last bit where the ISA fixes it: IEEE-754 operations, fused multiply-add,
//! directed rounding, `.ftz`, `.sat`. Functions that the ISA only bounds (`ex2.approx`, `sin.approx` and the like) are
//! computed in f64 and rounded, so a GPU may differ in the last bits. Matrix multiply-adds sum along k in order, each
//! step fused; the order of a GPU is not documented. The table at the end lists the instructions; any other is an error
//! of [`Module::kernel`], never a wrong result. Parameters of a kernel are pointers, 32-bit integers and 32-bit floats.
//!
//! # How counters are defined
//!
//! [`Counters`] are exact, the same on every host and in every order of the blocks, and no time: nothing models caches,
//! occupancy or latency. An instruction counts once for each warp that issues it, and for each of its lanes that takes
//! part. Traffic of global memory is counted for each access of a warp: the bytes its lanes asked for, the distinct
//! 32-byte sectors and the distinct 128-byte lines they lie in. An access to shared memory takes as many wavefronts as
//! the most distinct words that fall on one bank of 32; of 8 or 16 bytes a lane, half or quarter warps go in turn.
//!
//! # Map of the source
//!
//! `decode` turns the statements of a kernel into the compact instructions of `isa`, with `select` for what
//! a lane computes. `schedule` schedules the warps of a block and the blocks of a launch, `exec` runs a warp, its
//! `exec::memory` the loads and stores. `memory` holds what they access, `check` finds races, `counters` says
//! what was executed and moved, `launch` is what the blocks of a launch share, and `report` puts a fault into words.
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
pub use error::{Error, ErrorKind, Result};
pub use instructions::instruction_table;
pub use isa::Class;
pub use launch::{Arg, Buffer, Launch};
pub use memory::{Element, Memory};
pub use module::{Kernel, Module};
pub use options::{Options, WarpOrder};
