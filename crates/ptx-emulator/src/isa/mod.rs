//! The instruction set: decoded instructions, and what they are made of.

mod address;
mod class;
mod code;
mod family;
pub(crate) mod half;
mod types;

pub(crate) use address::{LOCAL_WINDOW, REGION, SHARED_WINDOW, VARIABLES, argument_base, variable_base};
pub use class::Class;
pub(crate) use class::classify;
pub(crate) use code::*;
pub(crate) use family::Family;
pub(crate) use types::{Lane, Mods, Round, Ty};
