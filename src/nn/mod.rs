//! The networks of U-GAT-IT, recorded on a tape: each written once for both directions.

mod config;
mod discriminator;
mod generator;
pub mod params;
mod tap;

pub use config::{Config, ConfigError};
pub use discriminator::{DiscriminatorOutput, DiscriminatorParams, discriminator};
pub use generator::{GeneratorOutput, GeneratorParams, generator};
pub use params::{Net, ParamClass, ParamId, ParamLayout, ParamList, ParamSpec, ParamValues, Role};
pub use tap::Tap;
