//! Tests of the emulator: small kernels in PTX, what they compute, and the errors that they end in.

mod arithmetic;
mod barriers;
mod blocks;
mod case;
mod control;
mod counting;
mod errors;
mod matrix;
mod memory;
mod sanitizer;
mod warp;
