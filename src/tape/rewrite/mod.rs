//! Rewrites of the operations between the backward pass and lowering: one file a fusion, each of them optional.

pub(super) mod pad_fusion;
pub(super) mod ring;
