//! Vector clocks of the warps of a block.
#![allow(clippy::needless_range_loop)]

use std::collections::HashMap;

use crate::lanes::each;

/// A vector clock: a time of each warp.
pub(crate) type Clock = [u32; 32];

/// Later than every time of a warp.
const NEVER: u32 = i32::MAX as u32;

/// The order between the warps of a block, as FastTrack keeps it: barriers join the vector clocks of the warps that
/// wait there.
#[derive(Debug, Default)]
pub(crate) struct WarpClocks {
    now: u32,
    /// When the block began: older times belong to blocks before it.
    pub base: u32,
    /// The time of each warp's reads.
    pub time: Clock,
    /// The time of each warp's writes: that of its latest syncwarp. Reads share a time as long as they can, so that
    /// one record holds them all.
    pub step: Clock,
    /// The vector clock of each warp: what `v` did before `vector[w][v]` happened before what `w` does now.
    pub vector: Vec<Clock>,
    /// The visible horizon of each warp: what any other warp did before it happened before what this one does now.
    pub horizon: Clock,
    warps: u32,
    arrivals: HashMap<u32, Arrival>,
}

/// Warps that arrived at a barrier without waiting there.
#[derive(Debug, Default)]
struct Arrival {
    threads: u32,
    clock: Clock,
}

/// The later of two times, for each warp.
pub(crate) fn join(into: &mut Clock, from: &Clock) {
    for v in 0..32 {
        into[v] = into[v].max(from[v]);
    }
}

impl WarpClocks {
    /// Begins a block; true where times begin anew, so that all older records are void.
    pub(crate) fn start(&mut self, warps: u32) -> bool {
        let anew = self.now > NEVER - (1 << 24);
        if anew {
            self.now = 0;
        }
        self.now += 1;
        self.base = self.now;
        self.time = [self.now; 32];
        self.step = [self.now; 32];
        self.vector.clear();
        self.vector.resize(warps as usize, [self.now; 32]);
        self.horizon = [self.now; 32];
        self.arrivals.clear();
        self.warps = warps;
        for w in 0..warps {
            self.compute_horizon(w);
        }
        anew
    }

    fn compute_horizon(&mut self, warp: u32) {
        let vector = &self.vector[warp as usize];
        let others = (0..self.warps).filter(|v| *v != warp);
        self.horizon[warp as usize] = others.map(|v| vector[v as usize]).min().unwrap_or(NEVER);
    }

    /// A barrier of the warps of `members`: what each did comes before what each does next.
    pub(crate) fn barrier(&mut self, id: u32, members: u32, exited: u32) {
        self.now += 1;
        let mut joined = self.arrivals.remove(&id).map_or([0; 32], |a| a.clock);
        for w in each(members) {
            join(&mut joined, &self.vector[w as usize]);
        }
        for w in each(members | exited) {
            joined[w as usize] = self.now;
        }
        for w in each(members) {
            self.time[w as usize] = self.now;
            self.step[w as usize] = self.now;
            self.vector[w as usize] = joined;
            self.compute_horizon(w);
        }
    }

    /// A barrier of the lanes of a warp.
    pub(crate) fn syncwarp(&mut self, warp: u32) {
        self.now += 1;
        self.step[warp as usize] = self.now;
    }

    /// A warp begins its next time; the vector clock of what it did so far.
    pub(crate) fn release(&mut self, warp: u32) -> Clock {
        self.now += 1;
        self.time[warp as usize] = self.now;
        self.step[warp as usize] = self.now;
        let mut clock = self.vector[warp as usize];
        clock[warp as usize] = self.now;
        clock
    }

    /// What a released clock holds comes before what the warp does next.
    pub(crate) fn acquire(&mut self, warp: u32, clock: &Clock) {
        let vector = &mut self.vector[warp as usize];
        let own = vector[warp as usize];
        join(vector, clock);
        vector[warp as usize] = own;
        self.compute_horizon(warp);
    }

    /// A warp arrives at a barrier without waiting there.
    pub(crate) fn arrive(&mut self, warp: u32, id: u32, threads: u32) {
        let clock = self.release(warp);
        let arrival = self.arrivals.entry(id).or_default();
        arrival.threads += threads;
        join(&mut arrival.clock, &clock);
    }

    /// Threads that arrived at a barrier without waiting there.
    pub(crate) fn arrived(&self, id: u32) -> u32 {
        self.arrivals.get(&id).map_or(0, |a| a.threads)
    }
}
