//! `mbarrier` objects in shared memory.

use std::collections::HashMap;

use crate::ErrorKind;
use crate::check::{Clock, Shadow, join};
use crate::fault::{Fault, Step};

/// The mbarriers of a block, by their byte in shared memory.
#[derive(Debug, Default)]
pub(crate) struct MBarriers {
    all: HashMap<u32, MBarrier>,
}

/// An `mbarrier`.
#[derive(Debug, Default)]
struct MBarrier {
    expected: u32,
    pending: u32,
    phase: u64,
    /// The joined vector clocks of those who arrived in this phase, and in the one before.
    arriving: Clock,
    arrived: Clock,
}

impl MBarriers {
    pub(crate) fn clear(&mut self) {
        self.all.clear();
    }

    /// `mbarrier.init`.
    pub(crate) fn init(&mut self, lane: u32, at: u32, count: u32) -> Step {
        if count == 0 {
            return Err(Fault::lane(ErrorKind::Invalid, lane, "an mbarrier for no arrivals"));
        }
        self.all.insert(at, MBarrier { expected: count, pending: count, ..MBarrier::default() });
        Ok(())
    }

    /// `mbarrier.inval`.
    pub(crate) fn invalidate(&mut self, at: u32) {
        self.all.remove(&at);
    }

    fn get(&mut self, lane: u32, at: u32) -> Step<&mut MBarrier> {
        self.all.get_mut(&at).ok_or_else(|| {
            let what = format!("no mbarrier was initialised at byte {at} of shared memory");
            Fault::lane(ErrorKind::Barrier, lane, what)
        })
    }

    /// `count` arrivals of a lane, `extra` ones where none was expected; the state before them.
    pub(crate) fn arrive(
        &mut self,
        shadow: &mut Shadow,
        (warp, lane): (u32, u32),
        at: u32,
        count: u32,
        extra: bool,
    ) -> Step<u64> {
        let clock = shadow.release(warp);
        let bar = self.get(lane, at)?;
        let state = bar.phase;
        join(&mut bar.arriving, &clock);
        if extra {
            bar.pending += count;
        }
        if count > bar.pending {
            let what = format!("more arrivals at the mbarrier than the {} it expects", bar.expected);
            return Err(Fault::lane(ErrorKind::Barrier, lane, what));
        }
        bar.pending -= count;
        if bar.pending == 0 {
            bar.phase += 1;
            bar.pending = bar.expected;
            bar.arrived = bar.arriving;
            bar.arriving = [0; 32];
        }
        Ok(state)
    }

    /// Whether the phase of a state, or of a parity, is over; if so its arrivals come before what follows.
    pub(crate) fn test(
        &mut self,
        shadow: &mut Shadow,
        (warp, lane): (u32, u32),
        at: u32,
        value: u64,
        parity: bool,
    ) -> Step<bool> {
        let bar = self.get(lane, at)?;
        let over = if parity { bar.phase & 1 != value & 1 } else { bar.phase != value };
        if over {
            shadow.acquire(warp, &bar.arrived);
        }
        Ok(over)
    }
}
