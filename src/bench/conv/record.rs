//! What `bench conv` leaves.

use serde::{Deserialize, Serialize};

use crate::bench::ceilings::Ceilings;
use crate::bench::record::Origin;

/// One pass of one layer with one variant.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Record {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// `forward`, `dgrad`, `wgrad`.
    pub pass: String,
    /// Input, taps and output channels: `2x2x66x66x256 3x3 to 256`.
    pub layer: String,
    /// How often a training step has it.
    pub times: usize,
    /// `direct`, `implicit GEMM`, `tensor core`; of torch `cudnn`.
    pub variant: String,
    /// What is multiplied.
    pub precision: String,
    /// Floating-point operations.
    pub flops: u64,
    /// What a GPU's events measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// What the model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
}

/// Time on a GPU, with the operands in the same buffers each time.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Measured {
    /// The median by events.
    pub microseconds: f64,
    /// What this GPU can do, in the same run.
    pub ceilings: Ceilings,
}

/// Time on a GPU that may not be here, and the counts of the emulator that it follows from.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Predicted {
    /// Which GPU, as [`crate::model::machine::find`] takes it.
    pub gpu: String,
    /// Of all launches of the pass.
    pub microseconds: f64,
    /// The term that binds the longest of them.
    pub bound: String,
    /// Bytes between the L2 and the multiprocessors.
    pub l2_bytes: u64,
    /// Passes through shared memory beyond those of conflict-free accesses, of the sampled blocks.
    pub bank_conflicts: u64,
}
