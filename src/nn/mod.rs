//! The networks of U-GAT-IT, recorded on a tape: each written once for both directions.

mod config;
mod discriminator;
mod generator;
pub mod params;
mod tap;

pub use config::{Config, ConfigError};
pub use discriminator::{DiscriminatorOutput, discriminator};
pub use generator::{GeneratorOutput, generator};
pub use params::{Bound, Net, NetSpec, ParamSpec, Role};
pub use tap::Tap;
