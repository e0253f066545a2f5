//! Predicted time: what a launch would take on a GPU that is not here, and what would bind it.
//!
//! A small analytic model in the manner of a roofline, with the terms that a roofline leaves out: waves and their
//! tail, the rate of each pipe of an SM, the dependent chain of a block, bytes in flight, the L2 and what it keeps
//! from launch to launch, the cost of a launch itself. [`Machine`] has the constants of a GPU, each with its source;
//! [`Work`] is what one launch asks of a GPU, counted on one block by the emulator or worked out by hand;
//! [`time`] is the formula. `tests/model/published.toml` holds published timings, and a test holds the formula to
//! them. What it cannot see: power limits beyond the two clocks, sets of the L2 that fill unevenly, misses of the
//! instruction cache, branches of a graph that run side by side.
//!
//! Every figure that comes out of here is predicted, and said to be.

mod cache;
mod chain;
mod counted;
pub mod machine;
pub mod occupancy;
mod predict;
mod time;
mod work;

pub use cache::Cache;
pub use machine::Machine;
pub use predict::{Counted, Counter, Prediction, Step, count, predict};
pub use time::{Term, Time, largest, range, terms_json, time};
pub use work::Work;
