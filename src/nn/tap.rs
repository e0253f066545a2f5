//! Intermediate results that a recording keeps.

use crate::tape::{Activation, Value};

/// An intermediate result under the official module's name, for comparison with recorded runs.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Module key, such as `DownBlock.1`.
    pub key: String,
    /// The value; see `act`.
    pub value: Value,
    /// An activation (or other fused step) the value already went through, the module's output did not.
    pub act: Activation,
}
