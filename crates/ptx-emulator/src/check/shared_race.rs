//! Races on shared memory, between the warps of a block and between the lanes of a warp.

use std::collections::HashMap;
use std::ops::Range;

use super::clock::{Clock, WarpClocks};
use crate::ErrorKind;
use crate::fault::{Fault, Step};
use crate::lanes::{Reg64, each};

/// Stands for a lane where several wrote the same value in one instruction.
const SEVERAL: u32 = 32;

/// Loads whose lanes are remembered.
const LOADS: usize = 64;

/// Bytes of shared memory that a lane accesses in one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneAccess {
    pub warp: u32,
    pub pc: u32,
    pub lane: u32,
    pub at: u32,
    pub bytes: u32,
}

impl LaneAccess {
    #[cold]
    fn fault(&self, kind: ErrorKind, what: String) -> Box<Fault> {
        Fault::lane(kind, self.lane, what).shared(self.at)
    }

    /// A race with an access of another warp.
    #[cold]
    fn race(&self, (does, did): (&str, &str), other: u32, pc: u32) -> Box<Fault> {
        let Self { at, bytes, .. } = self;
        let what = format!(
            "shared-memory race: {does} {bytes} bytes at byte {at}, which another warp {did} with no barrier between"
        );
        self.fault(ErrorKind::Race, what).against(other, pc)
    }

    /// A race with an access of another lane of the warp.
    #[cold]
    fn lane_race(&self, (does, did): (&str, &str), lane: u32, pc: u32) -> Box<Fault> {
        let Self { at, bytes, .. } = self;
        let what = format!(
            "shared-memory race: {does} {bytes} bytes at byte {at}, which lane {lane} of the same warp {did} with \
             no __syncwarp between"
        );
        self.fault(ErrorKind::Race, what).against(self.warp, pc)
    }
}

/// Bytes of shared memory that the lanes of a warp access in one instruction, all in bounds.
#[derive(Clone, Copy)]
pub(crate) struct WarpAccess<'a> {
    pub warp: u32,
    pub pc: u32,
    /// The lanes that take part, and the first byte of each.
    pub m: u32,
    pub at: &'a Reg64,
    /// Bytes of each lane.
    pub bytes: u32,
    /// All of the bytes, as ranges: first byte and length.
    pub ranges: &'a [(u32, u32)],
}

impl WarpAccess<'_> {
    /// The part of one lane.
    #[inline(always)]
    fn of(&self, lane: u32) -> LaneAccess {
        let at = self.at[lane as usize] as u32;
        LaneAccess { warp: self.warp, pc: self.pc, lane, at, bytes: self.bytes }
    }
}

/// The record of a write: time, instruction, lane, whether atomic, warp.
fn write_record(time: u32, access: &LaneAccess) -> u64 {
    u64::from(time) << 32
        | u64::from(access.pc & 0xf_ffff) << 12
        | u64::from(access.lane) << 6
        | u64::from(access.warp)
}

/// Marks the record of a write as atomic.
const ATOMIC: u64 = 1 << 5;

fn time_of(record: u64) -> u32 {
    (record >> 32) as u32
}

fn pc_of(record: u64) -> u32 {
    (record >> 12) as u32 & 0xf_ffff
}

fn lane_of(record: u64) -> u32 {
    (record >> 6) as u32 & 0x3f
}

fn warp_of(record: u64) -> u32 {
    (record & 31) as u32
}

/// Which lanes of a warp read what in one instruction.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    number: u32,
    warp: u32,
    mask: u32,
    bytes: u32,
    at: [u32; 32],
}

/// The shadow of shared memory: the latest accesses of each shadow granule, which is as large as the smallest access
/// of the kernel.
///
/// Accesses are ordered by vector clocks (as FastTrack does). Two accesses of different warps that no barrier
/// orders, one of them a write, are a race. So are two of different lanes of one warp with no syncwarp between: the
/// lanes of a warp need not run in step, and the compiler may reorder what they do.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    clocks: WarpClocks,
    shift: u32,
    writes: Vec<u64>,
    /// Time in the upper half, reading warps in the lower.
    reads: Vec<u64>,
    /// Latest load of each granule: its number in the upper half, its instruction in the lower.
    read_by: Vec<u64>,
    /// The latest loads, by number.
    loads: Vec<Load>,
    load: u32,
    /// The loads of a warp from this number on come after the latest barrier of its lanes.
    fresh: [u32; 32],
    /// Marks for one store: which granules it wrote.
    stamps: Vec<u32>,
    stamp: u32,
    /// Copies on their way to each granule: 1 + instruction and warp, as a write record has them.
    flights: Vec<u32>,
    in_flight: u32,
    /// Readers at other times than the record's, where they are not ordered.
    more_reads: HashMap<usize, Vec<(u32, u32)>>,
}

impl Shadow {
    /// Readies it for a block.
    pub(crate) fn start(&mut self, bytes: u32, granule: u32, warps: u32) {
        self.shift = granule.trailing_zeros();
        let granules = (bytes as usize).div_ceil(granule as usize);
        if self.clocks.start(warps) {
            self.writes.fill(0);
            self.reads.fill(0);
        }
        if self.load > i32::MAX as u32 {
            self.load = 0;
            self.read_by.fill(0);
        }
        self.loads.clear();
        self.loads.resize(LOADS, Load::default());
        self.load += 1;
        self.fresh = [self.load; 32];
        // What earlier blocks recorded is older than this block's first time, and so is as good as nothing.
        if self.writes.len() < granules {
            self.writes.resize(granules, 0);
            self.reads.resize(granules, 0);
            self.read_by.resize(granules, 0);
            self.stamps.resize(granules, 0);
            self.flights.resize(granules, 0);
        }
        self.more_reads.clear();
        if self.in_flight > 0 {
            self.in_flight = 0;
            self.flights.fill(0);
        }
    }

    /// A barrier of the warps of `members`: what each did comes before what each does next.
    pub(crate) fn barrier(&mut self, id: u32, members: u32, exited: u32) {
        self.clocks.barrier(id, members, exited);
        for w in each(members) {
            self.fresh[w as usize] = self.load + 1;
        }
    }

    /// A barrier of the lanes of a warp: what each did comes before what each does next.
    pub(crate) fn syncwarp(&mut self, warp: u32) {
        self.clocks.syncwarp(warp);
        self.fresh[warp as usize] = self.load + 1;
    }

    /// Threads that arrived at a barrier without waiting there.
    pub(crate) fn arrived(&self, id: u32) -> u32 {
        self.clocks.arrived(id)
    }

    /// A warp arrives at a barrier without waiting there.
    pub(crate) fn arrive(&mut self, warp: u32, id: u32, threads: u32) {
        self.clocks.arrive(warp, id, threads);
    }

    /// The vector clock of what a warp did so far.
    pub(crate) fn release(&mut self, warp: u32) -> Clock {
        self.clocks.release(warp)
    }

    /// What a released clock holds comes before what the warp does next.
    pub(crate) fn acquire(&mut self, warp: u32, clock: &Clock) {
        self.clocks.acquire(warp, clock);
    }

    #[inline(always)]
    fn granules(&self, at: u32, bytes: u32) -> Range<usize> {
        (at >> self.shift) as usize..((at + bytes - 1) >> self.shift) as usize + 1
    }

    /// Checks a read by a warp of a range of bytes and records it; false where it did neither, for the fault
    /// must then name a lane.
    ///
    /// A loop over all its granules finds out whether all is well; only if not, each is looked at.
    #[inline(always)]
    fn read_range(&mut self, warp: u32, pc: u32, at: u32, bytes: u32) -> bool {
        let range = self.granules(at, bytes);
        let clocks = &self.clocks;
        let mine = (i64::from(clocks.time[warp as usize]) << 32) | (1i64 << warp);
        let (base, horizon) = (i64::from(clocks.base) << 32, i64::from(clocks.horizon[warp as usize]) << 32);
        let (me, my_bit) = (i64::from(warp), 1u32 << warp);
        let step = i64::from(clocks.step[warp as usize]) << 32;
        let (writes, reads) = (&self.writes[range.clone()], &mut self.reads[range.clone()]);
        let mut bad = 0i64;
        for (w, r) in writes.iter().zip(reads.iter()) {
            let (w, r) = (*w as i64, *r as i64);
            let written = w >= base && w < if w & 31 == me { step } else { horizon };
            let same_time = (r ^ mine) >> 32 == 0;
            let alone = r < horizon || r as u32 == my_bit;
            bad |= i64::from(!(written && (same_time || alone)));
        }
        if bad != 0 {
            return false;
        }
        for r in reads.iter_mut() {
            let old = *r as i64;
            let same_time = (old ^ mine) >> 32 == 0;
            *r = (if same_time { old | mine } else { mine }) as u64;
        }
        self.read_by[range].fill(u64::from(self.load) << 32 | u64::from(pc));
        true
    }

    /// Checks a write by a warp of a range of bytes; false where each lane's must be looked at.
    #[inline(always)]
    fn may_write_range(&self, warp: u32, at: u32, bytes: u32) -> bool {
        let range = self.granules(at, bytes);
        let horizon = i64::from(self.clocks.horizon[warp as usize]) << 32;
        let (me, my_bit) = (i64::from(warp), 1u32 << warp);
        let step = i64::from(self.clocks.step[warp as usize]) << 32;
        let fresh = i64::from(self.fresh[warp as usize]) << 32;
        let landed = self.in_flight == 0 || self.flights[range.clone()].iter().all(|f| *f == 0);
        if !landed || !self.more_reads.is_empty() {
            return false;
        }
        let (writes, reads) = (&self.writes[range.clone()], &self.reads[range.clone()]);
        let mut bad = 0i64;
        for ((w, r), by) in writes.iter().zip(reads).zip(&self.read_by[range]) {
            let (w, r, by) = (*w as i64, *r as i64, *by as i64);
            let fine = w < if w & 31 == me { step } else { horizon }
                && (r < horizon || r as u32 == my_bit)
                && by < fresh;
            bad |= i64::from(!fine);
        }
        bad == 0
    }

    /// Checks a load and records it.
    #[inline(always)]
    pub(crate) fn load(&mut self, access: &WarpAccess) -> Step {
        let &WarpAccess { warp, pc, m, at, bytes, ranges } = access;
        self.load += 1;
        let load = &mut self.loads[self.load as usize % LOADS];
        (load.number, load.warp, load.mask, load.bytes) = (self.load, warp, m, bytes);
        for (to, from) in load.at.iter_mut().zip(at) {
            *to = *from as u32;
        }
        let mut fine = true;
        for &(at, bytes) in ranges {
            fine &= self.read_range(warp, pc, at, bytes);
        }
        if !fine {
            // Something is wrong, or too involved for the fast path.
            for l in each(m) {
                self.read(&access.of(l))?;
            }
        }
        Ok(())
    }

    /// Checks a store and records it; `overlap`: two lanes write to one place.
    #[inline(always)]
    pub(crate) fn store(&mut self, access: &WarpAccess, overlap: bool) -> Step {
        let &WarpAccess { warp, m, ranges, .. } = access;
        if !ranges.iter().all(|&(at, bytes)| self.may_write_range(warp, at, bytes)) {
            for l in each(m) {
                self.may_write(&access.of(l), false)?;
            }
        }
        let time = self.clocks.step[warp as usize];
        for l in each(m) {
            let lane = LaneAccess { lane: if overlap { SEVERAL } else { l }, ..access.of(l) };
            let range = self.granules(lane.at, lane.bytes);
            self.writes[range].fill(write_record(time, &lane));
        }
        Ok(())
    }

    /// Whether two of these lanes write to one granule.
    #[inline(always)]
    pub(crate) fn overlap(&mut self, at: &Reg64, m: u32) -> bool {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
        let mut overlap = false;
        for l in each(m) {
            let s = &mut self.stamps[(at[l as usize] >> self.shift) as usize];
            overlap |= *s == self.stamp;
            *s = self.stamp;
        }
        overlap
    }

    /// Checks a read by a lane and records it.
    #[inline(always)]
    pub(crate) fn read(&mut self, access: &LaneAccess) -> Step {
        let &LaneAccess { warp, pc, lane, at, bytes } = access;
        let (horizon, time) = (self.clocks.horizon[warp as usize], self.clocks.time[warp as usize]);
        let mine = u64::from(time) << 32 | 1 << warp;
        for g in self.granules(at, bytes) {
            let w = self.writes[g];
            let t = time_of(w);
            let own = warp_of(w) == warp;
            if own && t >= self.clocks.step[warp as usize] && ![lane, SEVERAL].contains(&lane_of(w)) {
                return Err(access.lane_race(("reads", "wrote"), lane_of(w), pc_of(w)));
            }
            if t < self.clocks.base {
                self.landed(g, access, "reads")?;
                let what =
                    format!("reads {bytes} bytes of shared memory that nothing has written, at byte {at}");
                return Err(access.fault(ErrorKind::Uninitialized, what));
            }
            if t >= horizon && !own && t >= self.clocks.vector[warp as usize][warp_of(w) as usize] {
                return Err(access.race(("reads", "wrote"), warp_of(w), pc_of(w)));
            }
            let r = self.reads[g];
            if time_of(r) == time {
                self.reads[g] = r | mine;
            } else if time_of(r) < horizon || (r as u32) == 1 << warp {
                self.reads[g] = mine;
            } else {
                self.keep_readers(warp, g, mine);
            }
            self.read_by[g] = u64::from(self.load) << 32 | u64::from(pc);
        }
        Ok(())
    }

    #[cold]
    fn keep_readers(&mut self, warp: u32, g: usize, mine: u64) {
        let r = self.reads[g];
        let vector = self.clocks.vector[warp as usize];
        let more = self.more_reads.entry(g).or_default();
        more.retain(|&(v, t)| v != warp && t >= vector[v as usize]);
        for v in each(r as u32) {
            if v != warp && time_of(r) >= vector[v as usize] {
                more.push((v, time_of(r)));
            }
        }
        if more.is_empty() {
            self.more_reads.remove(&g);
        }
        self.reads[g] = mine;
    }

    /// Checks that an atomic finds a value.
    pub(crate) fn has_value(&self, access: &LaneAccess) -> Step {
        let LaneAccess { at, bytes, .. } = access;
        if self.writes[self.granules(*at, *bytes)].iter().any(|w| time_of(*w) < self.clocks.base) {
            let what =
                format!("updates {bytes} bytes of shared memory that nothing has written, at byte {at}");
            return Err(access.fault(ErrorKind::Uninitialized, what));
        }
        Ok(())
    }

    /// Fails where a copy is on its way to a granule.
    fn landed(&self, g: usize, access: &LaneAccess, does: &str) -> Step {
        let flight = self.flights[g];
        if flight == 0 {
            return Ok(());
        }
        let LaneAccess { at, bytes, .. } = access;
        let what = format!(
            "{does} {bytes} bytes of shared memory at byte {at}, to which an asynchronous copy is on its way: \
             the thread that copies has not waited for it"
        );
        Err(access.fault(ErrorKind::Race, what).against((flight - 1) & 31, (flight - 1) >> 5))
    }

    /// A copy starts: its place may be neither read nor written until it lands.
    pub(crate) fn begin_copy(&mut self, access: &LaneAccess) -> Step {
        if !self.may_write_range(access.warp, access.at, access.bytes) {
            self.may_write(access, false)?;
        }
        let range = self.granules(access.at, access.bytes);
        self.in_flight += range.len() as u32;
        self.writes[range.clone()].fill(0);
        self.flights[range].fill(1 + (access.pc << 5 | access.warp));
        Ok(())
    }

    /// A copy lands, as a write of the warp that waited.
    pub(crate) fn end_copy(&mut self, access: &LaneAccess) {
        let range = self.granules(access.at, access.bytes);
        self.in_flight -= range.len() as u32;
        self.writes[range.clone()].fill(write_record(self.clocks.step[access.warp as usize], access));
        self.flights[range].fill(0);
    }

    /// Checks a write by a lane and records it.
    pub(crate) fn write(&mut self, access: &LaneAccess, atomic: bool) -> Step {
        self.may_write(access, atomic)?;
        let plain = write_record(self.clocks.step[access.warp as usize], access);
        for g in self.granules(access.at, access.bytes) {
            let w = self.writes[g];
            // An atomic after a plain write of the same lane, both not ordered before other accesses, must not hide
            // that write.
            let hides = atomic && w >> 32 == plain >> 32 && w & 63 == plain & 63;
            self.writes[g] = if atomic && !hides { plain | ATOMIC } else { plain };
        }
        Ok(())
    }

    /// Checks a write by a lane.
    fn may_write(&self, access: &LaneAccess, atomic: bool) -> Step {
        let &LaneAccess { warp, lane, at, bytes, .. } = access;
        let horizon = self.clocks.horizon[warp as usize];
        for g in self.granules(at, bytes) {
            if self.in_flight > 0 {
                self.landed(g, access, "writes")?;
            }
            let (w, r) = (self.writes[g], self.reads[g]);
            let own = warp_of(w) == warp;
            let both_atomic = atomic && w & ATOMIC != 0;
            if own
                && time_of(w) >= self.clocks.step[warp as usize]
                && ![lane, SEVERAL].contains(&lane_of(w))
                && !both_atomic
            {
                return Err(access.lane_race(("writes", "wrote"), lane_of(w), pc_of(w)));
            }
            self.read_before(g, access)?;
            let written_by_other = time_of(w) >= horizon && !own;
            let read_by_other = time_of(r) >= horizon && r as u32 & !(1 << warp) != 0;
            if written_by_other || read_by_other || !self.more_reads.is_empty() {
                self.write_race(g, access, both_atomic)?;
            }
        }
        Ok(())
    }

    /// Fails where another lane of the warp read a granule since the latest barrier of its lanes.
    fn read_before(&self, g: usize, access: &LaneAccess) -> Step {
        let by = self.read_by[g];
        let number = (by >> 32) as u32;
        let load = &self.loads[number as usize % LOADS];
        // A load of long ago is forgotten.
        if number < self.fresh[access.warp as usize] || load.number != number || load.warp != access.warp {
            return Ok(());
        }
        let reads = |l: &u32| self.granules(load.at[*l as usize], load.bytes).contains(&g);
        match each(load.mask & !(1 << access.lane)).find(reads) {
            Some(other) => Err(access.lane_race(("writes", "read"), other, by as u32)),
            None => Ok(()),
        }
    }

    /// Fails where an access of another warp is not ordered before a write.
    #[cold]
    fn write_race(&self, g: usize, access: &LaneAccess, both_atomic: bool) -> Step {
        let vector = &self.clocks.vector[access.warp as usize];
        let unordered = |warp: u32, time: u32| {
            warp != access.warp && time >= self.clocks.base && time >= vector[warp as usize]
        };
        let (w, r) = (self.writes[g], self.reads[g]);
        if unordered(warp_of(w), time_of(w)) && !both_atomic {
            return Err(access.race(("writes", "wrote"), warp_of(w), pc_of(w)));
        }
        let reads = each(r as u32).map(|v| (v, time_of(r)));
        let mut reads = reads.chain(self.more_reads.get(&g).into_iter().flatten().copied());
        match reads.find(|&(v, t)| unordered(v, t)) {
            Some((v, _)) => Err(access.race(("writes", "read"), v, self.read_by[g] as u32)),
            None => Ok(()),
        }
    }
}
