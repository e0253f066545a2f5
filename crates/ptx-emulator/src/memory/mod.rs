//! Memory: global, and that of a block.

mod async_copy;
mod element;
mod global;
mod mbarrier;
mod region;
mod shared;

pub(crate) use async_copy::Copies;
pub use element::Element;
pub use global::Memory;
pub(crate) use region::Region;
pub(crate) use shared::Shared;
