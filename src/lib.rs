//! `ugatit` trains U-GAT-IT (unsupervised image-to-image translation with CAM attention and
//! AdaLIN, arXiv 1907.10830) with hand-written CUDA kernels, on an NVIDIA GPU or on an emulator
//! that interprets the very PTX the GPU runs.
//!
//! Dependencies point downwards: [`train`] → [`nn`] → [`tape`] → [`device`]; see ARCHITECTURE.md.

pub mod bench;
pub mod data;
pub mod device;
pub mod doctor;
pub mod error;
pub mod format;
pub mod kernels;
pub mod model;
pub mod nn;
mod publish;
pub mod report;
pub mod stats;
pub mod study;
pub mod tape;
pub mod tensor;
pub mod train;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
