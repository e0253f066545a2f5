//! A Wengert list over value handles: recording computes nothing, `backward` appends the adjoint
//! operations to the same list, [`plan()`] turns it into a [`crate::device::Program`].

mod backward;
mod grid;
mod loaded;
mod lowering;
mod operation;
mod ops;
pub mod plan;
mod precision;
mod record;
mod rewrite;
mod value;
mod variant;

pub use backward::Seed;
pub use loaded::LoadedProgram;
pub use operation::Gradients;
pub use ops::activation::Activation;
pub use ops::adam::AdamHyper;
pub use ops::conv::{ConvLayer, ConvPass};
pub use ops::loss::LossKind;
pub use ops::norm::{self, Affine};
pub use ops::spectral::Spectral;
pub use plan::{Planned, plan, plan_with};
pub use precision::Precision;
pub use record::Tape;
pub use value::{BufferRole, Place, StateBuffer, StateLayout, StateView, Value, ValueInfo};
pub use variant::{About, ConvVariant, LowerOptions, NormVariant};
