//! Studying the kernels without a GPU: what they take of an SM, what a training step makes them do
//! instruction by instruction, and pages that show it beside the source.

pub mod atlas;
pub mod collect;
pub mod compile;
pub mod counts;
pub mod ladder;
pub mod listing;
pub mod page;
pub mod pages;
pub mod profile;
pub mod run;
pub mod sass;
pub mod suggest;
pub mod table;
pub mod text;
pub mod user_kernel;
