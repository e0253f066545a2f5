//! Benchmarks of single layers: on a GPU time, on the emulator counts.

pub mod adalin;
