//! The networks of U-GAT-IT, recorded on a tape: each written once for both directions.

mod config;
mod discriminator;
mod generator;
pub mod params;

pub use config::Config;
pub use discriminator::{DiscriminatorOutput, discriminator};
pub use generator::{GeneratorOutput, generator};
pub use params::{Bound, Net, NetSpec, ParamSpec, Role};

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
