//! Runs what a kernel was decoded to, a warp at a time.

mod flow;
mod issue;
mod matrix;
mod memory;
mod vector;
mod warp_ops;

pub(crate) use vector::run_warp;
