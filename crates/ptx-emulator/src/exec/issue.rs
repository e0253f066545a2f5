//! An instruction that a warp issues, and what it may touch.

use crate::counters::tally::Tally;
use crate::launch::LaunchContext;
use crate::memory::Shared;
use crate::warp::Lanes;

/// An instruction that a warp issues, and what it may touch.
pub(crate) struct Issue<'a, 'l> {
    pub launch: &'a LaunchContext<'l>,
    pub warp: Lanes<'a>,
    pub shared: &'a mut Shared,
    pub tally: &'a mut Tally,
    /// The lanes that take part.
    pub m: u32,
    pub pc: u32,
}
