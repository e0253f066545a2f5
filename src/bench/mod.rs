//! Benchmarks: layers, networks and whole steps; on a GPU time, on the emulator counts, its own time and what is predicted.

pub mod adalin;
pub mod ceilings;
pub mod conv;
pub mod ladder;
pub mod network;
mod place;
pub mod record;
mod timing;
