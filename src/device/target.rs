//! What a plan depends on of the GPU that it is made for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The GPU that a program is planned for, as far as its launches depend on it: how long reductions are split, and how
/// cooperative launches share an image. The emulator runs a program as it was planned, so what it checks is what
/// that GPU runs. Two targets give results that differ by rounding, so a run keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Multiprocessors. A cooperative launch has at most one block on each.
    pub sms: u32,
    /// Bytes of shared memory that a block may have at most, its own and dynamic together.
    pub shared_bytes: u32,
}

impl Default for Target {
    /// An H100 SXM or H200.
    fn default() -> Self {
        Self { sms: 132, shared_bytes: 227 << 10 }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} multiprocessors with {} KiB of shared memory a block",
            self.sms,
            self.shared_bytes >> 10
        )
    }
}
