//! Shared memory of a block, and who may see whose writes to it.
#![allow(clippy::needless_range_loop)]

use std::collections::HashMap;

use crate::fault::Fault;
use crate::lanes::each;

/// Stands for a lane where several wrote the same value in one instruction.
const SEVERAL: u32 = 32;

/// Writes of one granule of shared memory: time, instruction, lane, atomic, warp.
fn write_record(time: u32, pc: u32, atomic: bool, warp: u32, lane: u32) -> u64 {
    u64::from(time) << 32
        | u64::from(pc & 0xf_ffff) << 12
        | u64::from(lane) << 6
        | u64::from(atomic) << 5
        | u64::from(warp)
}

fn pc_of(record: u64) -> u32 {
    (record >> 12) as u32 & 0xf_ffff
}

fn lane_of(record: u64) -> u32 {
    (record >> 6) as u32 & 0x3f
}

/// Loads whose lanes are remembered.
const LOADS: usize = 64;

/// Which lanes of a warp read what in one instruction.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    number: u32,
    warp: u32,
    mask: u32,
    bytes: u32,
    at: [u32; 32],
}

/// Shared memory of the block that runs, and the record of its accesses.
///
/// Accesses are ordered by vector clocks (as FastTrack does): barriers join the clocks of the warps
/// that meet there. Two accesses of different warps that no barrier orders, one of them a write,
/// are a race. So are two of different lanes of one warp with no barrier of the warp between: the
/// lanes of a warp need not run in step, and the compiler may reorder what they do.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    shift: u32,
    writes: Vec<u64>,
    /// Time in the upper half, reading warps in the lower.
    reads: Vec<u64>,
    /// Latest load of each granule: its number in the upper half, its instruction in the lower.
    read_by: Vec<u64>,
    /// The latest loads, by number.
    loads: Vec<Load>,
    load: u32,
    /// Marks for one store: which granules it wrote.
    stamps: Vec<u32>,
    stamp: u32,
    /// Copies on their way to each granule: 1 + instruction and warp, as a write record has them.
    flights: Vec<u32>,
    in_flight: u32,
    /// Counts what lets somebody who polls go on.
    pub progress: u64,
    mbars: HashMap<u32, MBar>,
    /// Readers at other times than the record's, where they are not ordered.
    more_reads: HashMap<usize, Vec<(u32, u32)>>,
    now: u32,
    base: u32,
    /// Own time of each warp.
    time: [u32; 32],
    /// `seen[w][v]`: what `v` did before this time happened before what `w` does now.
    seen: Vec<[u32; 32]>,
    safe: [u32; 32],
    /// Own time of each warp since its lanes last met. Only its writes have it: readers share a time as
    /// long as they can, so that one record holds them all.
    step: [u32; 32],
    /// The loads of a warp from this number on are since its lanes last met.
    fresh: [u32; 32],
    warps: u32,
    arrivals: HashMap<u32, Arrival>,
}

/// An `mbarrier`.
#[derive(Debug, Default)]
struct MBar {
    expected: u32,
    pending: u32,
    phase: u64,
    /// What was seen by those who arrived in this phase, and in the one before.
    arriving: [u32; 32],
    arrived: [u32; 32],
}

/// Warps that arrived at a barrier without waiting there.
#[derive(Debug, Default)]
struct Arrival {
    threads: u32,
    seen: [u32; 32],
}

impl Shared {
    /// Readies it for a block.
    pub(crate) fn start(&mut self, bytes: u32, granule: u32, warps: u32) {
        self.shift = granule.trailing_zeros();
        let granules = (bytes as usize).div_ceil(granule as usize);
        self.bytes.resize(bytes as usize, 0);
        if self.now > i32::MAX as u32 - (1 << 24) {
            self.now = 0;
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
        // What earlier blocks recorded is older than `base`, and so is as good as nothing.
        if self.writes.len() < granules {
            self.writes.resize(granules, 0);
            self.reads.resize(granules, 0);
            self.read_by.resize(granules, 0);
            self.stamps.resize(granules, 0);
            self.flights.resize(granules, 0);
        }
        self.more_reads.clear();
        self.arrivals.clear();
        self.mbars.clear();
        if self.in_flight > 0 {
            self.in_flight = 0;
            self.flights.fill(0);
        }
        self.now += 1;
        self.base = self.now;
        self.time = [self.now; 32];
        self.step = [self.now; 32];
        self.seen.clear();
        self.seen.resize(warps as usize, [self.now; 32]);
        self.safe = [self.now; 32];
        self.warps = warps;
        for w in 0..warps {
            self.settle(w);
        }
    }

    fn settle(&mut self, warp: u32) {
        let seen = &self.seen[warp as usize];
        self.safe[warp as usize] =
            (0..self.warps).filter(|v| *v != warp).map(|v| seen[v as usize]).min().unwrap_or(i32::MAX as u32);
    }

    /// All warps of `members` met: what each did is before what each does next.
    pub(crate) fn meet(&mut self, id: u32, members: u32, exited: u32) {
        self.now += 1;
        let arrival = self.arrivals.remove(&id);
        let mut joined = arrival.map_or([0; 32], |a| a.seen);
        for w in each(members) {
            for v in 0..32 {
                joined[v] = joined[v].max(self.seen[w as usize][v]);
            }
        }
        for w in each(members | exited) {
            joined[w as usize] = self.now;
        }
        for w in each(members) {
            self.time[w as usize] = self.now;
            self.step[w as usize] = self.now;
            self.fresh[w as usize] = self.load + 1;
            self.seen[w as usize] = joined;
            self.settle(w);
        }
    }

    /// The lanes of a warp met: what each did is before what each does next.
    pub(crate) fn meet_lanes(&mut self, warp: u32) {
        self.now += 1;
        self.step[warp as usize] = self.now;
        self.fresh[warp as usize] = self.load + 1;
    }

    /// Threads that arrived at a barrier without waiting there.
    pub(crate) fn arrived(&self, id: u32) -> u32 {
        self.arrivals.get(&id).map_or(0, |a| a.threads)
    }

    /// A warp arrives at a barrier without waiting there.
    pub(crate) fn arrive(&mut self, warp: u32, id: u32, threads: u32) {
        self.now += 1;
        let own = self.seen[warp as usize];
        self.time[warp as usize] = self.now;
        self.step[warp as usize] = self.now;
        let a = self.arrivals.entry(id).or_default();
        a.threads += threads;
        for v in 0..32 {
            a.seen[v] = a.seen[v].max(own[v]);
        }
        a.seen[warp as usize] = self.now;
    }

    /// Checks a read by a warp of a range of bytes and records it; false where it did neither, for a lane
    /// must then be told which of its bytes are wrong.
    ///
    /// A loop over all its granules finds out whether all is well; only if not, each is looked at.
    #[inline(always)]
    fn read_range(&mut self, warp: u32, pc: u32, at: u32, bytes: u32) -> bool {
        let range = (at >> self.shift) as usize..((at + bytes - 1) >> self.shift) as usize + 1;
        let mine = (i64::from(self.time[warp as usize]) << 32) | (1i64 << warp);
        let (base, safe) = (i64::from(self.base) << 32, i64::from(self.safe[warp as usize]) << 32);
        let (me, my_bit) = (i64::from(warp), 1u32 << warp);
        let met = i64::from(self.step[warp as usize]) << 32;
        let (writes, reads) = (&self.writes[range.clone()], &mut self.reads[range.clone()]);
        let mut bad = 0i64;
        for (w, r) in writes.iter().zip(reads.iter()) {
            let (w, r) = (*w as i64, *r as i64);
            let written = w >= base && w < if w & 31 == me { met } else { safe };
            let same_time = (r ^ mine) >> 32 == 0;
            let alone = r < safe || r as u32 == my_bit;
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
        let range = (at >> self.shift) as usize..((at + bytes - 1) >> self.shift) as usize + 1;
        let safe = i64::from(self.safe[warp as usize]) << 32;
        let (me, my_bit) = (i64::from(warp), 1u32 << warp);
        let (met, fresh) =
            (i64::from(self.step[warp as usize]) << 32, i64::from(self.fresh[warp as usize]) << 32);
        let landed = self.in_flight == 0 || self.flights[range.clone()].iter().all(|f| *f == 0);
        if !landed || !self.more_reads.is_empty() {
            return false;
        }
        let (writes, reads) = (&self.writes[range.clone()], &self.reads[range.clone()]);
        let mut bad = 0i64;
        for ((w, r), by) in writes.iter().zip(reads).zip(&self.read_by[range]) {
            let (w, r, by) = (*w as i64, *r as i64, *by as i64);
            let fine =
                w < if w & 31 == me { met } else { safe } && (r < safe || r as u32 == my_bit) && by < fresh;
            bad |= i64::from(!fine);
        }
        bad == 0
    }

    /// Checks a load by the lanes of `m`, all in bounds, and records it.
    #[inline(always)]
    pub(crate) fn load(
        &mut self,
        warp: u32,
        pc: u32,
        at: &[u64; 32],
        m: u32,
        bytes: u32,
        ranges: &[(u32, u32)],
    ) -> Result<(), Box<Fault>> {
        self.load += 1;
        let load = &mut self.loads[self.load as usize % LOADS];
        (load.number, load.warp, load.mask, load.bytes) = (self.load, warp, m, bytes);
        for l in 0..32 {
            load.at[l] = at[l] as u32;
        }
        let mut fine = true;
        for &(at, bytes) in ranges {
            fine &= self.read_range(warp, pc, at, bytes);
        }
        if !fine {
            // Something is wrong, or too involved for the short way.
            for l in each(m) {
                self.read(warp, pc, l, at[l as usize] as u32, bytes)?;
            }
        }
        Ok(())
    }

    /// Checks a store by the lanes of `m`, all in bounds, and records it; `meet` where two of them write to
    /// one place.
    #[inline(always)]
    pub(crate) fn store(
        &mut self,
        warp: u32,
        pc: u32,
        at: &[u64; 32],
        m: u32,
        bytes: u32,
        ranges: &[(u32, u32)],
        meet: bool,
    ) -> Result<(), Box<Fault>> {
        if !ranges.iter().all(|&(at, bytes)| self.may_write_range(warp, at, bytes)) {
            for l in each(m) {
                self.may_write(warp, l, at[l as usize] as u32, bytes, false)?;
            }
        }
        let time = self.step[warp as usize];
        for l in each(m) {
            let record = write_record(time, pc, false, warp, if meet { SEVERAL } else { l });
            let range = self.granules(at[l as usize] as u32, bytes);
            self.writes[range].fill(record);
        }
        Ok(())
    }

    #[inline(always)]
    fn granules(&self, at: u32, bytes: u32) -> std::ops::Range<usize> {
        (at >> self.shift) as usize..((at + bytes - 1) >> self.shift) as usize + 1
    }

    /// Whether two of these lanes write to one granule.
    #[inline(always)]
    pub(crate) fn meets(&mut self, at: &[u64; 32], m: u32) -> bool {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
        let mut meets = false;
        for l in each(m) {
            let s = &mut self.stamps[(at[l as usize] >> self.shift) as usize];
            meets |= *s == self.stamp;
            *s = self.stamp;
        }
        meets
    }

    /// Checks a read of a range by a warp and records it.
    #[inline(always)]
    pub(crate) fn read(
        &mut self,
        warp: u32,
        pc: u32,
        lane: u32,
        at: u32,
        bytes: u32,
    ) -> Result<(), Box<Fault>> {
        let safe = self.safe[warp as usize];
        let mine = u64::from(self.time[warp as usize]) << 32 | 1 << warp;
        let (first, last) = (at >> self.shift, (at + bytes - 1) >> self.shift);
        for g in first as usize..=last as usize {
            let w = self.writes[g];
            let t = (w >> 32) as u32;
            let own = (w & 31) as u32 == warp;
            if own && t >= self.step[warp as usize] && ![lane, SEVERAL].contains(&lane_of(w)) {
                return Err(self.lanes_race(("reads", "wrote"), warp, lane, lane_of(w), pc_of(w), at, bytes));
            }
            if t < self.base {
                self.landed(g, lane, "reads", at, bytes)?;
                return Err(Fault::lane(
                    lane,
                    format!("reads {bytes} bytes of shared memory that nothing has written, at byte {at}"),
                )
                .shared(at));
            }
            if t >= safe && !own {
                self.read_race(warp, lane, g, at, bytes)?;
            }
            let r = self.reads[g];
            let rt = (r >> 32) as u32;
            if rt == self.time[warp as usize] {
                self.reads[g] = r | mine;
            } else if rt < safe || (r as u32) == 1 << warp {
                self.reads[g] = mine;
            } else {
                self.keep_readers(warp, g, mine);
            }
            self.read_by[g] = u64::from(self.load) << 32 | u64::from(pc);
        }
        Ok(())
    }

    /// Checks that an atomic finds a value.
    pub(crate) fn read_atomic(&self, lane: u32, at: u32, bytes: u32) -> Result<(), Box<Fault>> {
        let (first, last) = (at >> self.shift, (at + bytes - 1) >> self.shift);
        if self.writes[first as usize..=last as usize].iter().any(|w| ((w >> 32) as u32) < self.base) {
            return Err(Fault::lane(
                lane,
                format!("updates {bytes} bytes of shared memory that nothing has written, at byte {at}"),
            )
            .shared(at));
        }
        Ok(())
    }

    /// Fails where a copy is on its way to a granule.
    fn landed(&self, g: usize, lane: u32, what: &str, at: u32, bytes: u32) -> Result<(), Box<Fault>> {
        let flight = self.flights[g];
        if flight == 0 {
            return Ok(());
        }
        let mut f = Fault::lane(
            lane,
            format!(
                "{what} {bytes} bytes of shared memory at byte {at}, to which an asynchronous copy is on its way: \
                 the thread that copies has not waited for it"
            ),
        );
        f.other = Some(((flight - 1) & 31, (flight - 1) >> 5));
        Err(f.shared(at))
    }

    /// A copy starts: its place may be neither read nor written until it lands.
    pub(crate) fn begin_copy(
        &mut self,
        warp: u32,
        pc: u32,
        lane: u32,
        at: u32,
        bytes: u32,
    ) -> Result<(), Box<Fault>> {
        if !self.may_write_range(warp, at, bytes) {
            self.may_write(warp, lane, at, bytes, false)?;
        }
        let range = (at >> self.shift) as usize..((at + bytes - 1) >> self.shift) as usize + 1;
        self.in_flight += range.len() as u32;
        self.writes[range.clone()].fill(0);
        self.flights[range].fill(1 + (pc << 5 | warp));
        Ok(())
    }

    /// A copy lands, as a write of the warp that waited.
    pub(crate) fn end_copy(&mut self, warp: u32, pc: u32, lane: u32, at: u32, data: &[u8]) {
        let bytes = data.len() as u32;
        let range = (at >> self.shift) as usize..((at + bytes - 1) >> self.shift) as usize + 1;
        self.in_flight -= range.len() as u32;
        self.writes[range.clone()].fill(write_record(self.step[warp as usize], pc, false, warp, lane));
        self.flights[range].fill(0);
        self.bytes[at as usize..(at + bytes) as usize].copy_from_slice(data);
    }

    /// `mbarrier.init`.
    pub(crate) fn mbar_init(&mut self, lane: u32, at: u32, count: u32) -> Result<(), Box<Fault>> {
        if count == 0 {
            return Err(Fault::lane(lane, "an mbarrier for no arrivals"));
        }
        self.mbars.insert(at, MBar { expected: count, pending: count, ..MBar::default() });
        Ok(())
    }

    /// `mbarrier.inval`.
    pub(crate) fn mbar_inval(&mut self, at: u32) {
        self.mbars.remove(&at);
    }

    fn mbar(&mut self, lane: u32, at: u32) -> Result<&mut MBar, Box<Fault>> {
        self.mbars.get_mut(&at).ok_or_else(|| {
            Fault::lane(lane, format!("no mbarrier was initialised at byte {at} of shared memory"))
        })
    }

    /// `count` arrivals of a lane; the state before them.
    pub(crate) fn mbar_arrive(
        &mut self,
        warp: u32,
        lane: u32,
        at: u32,
        count: u32,
        extra: bool,
    ) -> Result<u64, Box<Fault>> {
        self.now += 1;
        let (now, own) = (self.now, self.seen[warp as usize]);
        self.time[warp as usize] = now;
        self.step[warp as usize] = now;
        self.progress += 1;
        let bar = self.mbar(lane, at)?;
        let state = bar.phase;
        for v in 0..32 {
            bar.arriving[v] = bar.arriving[v].max(own[v]);
        }
        bar.arriving[warp as usize] = now;
        if extra {
            bar.pending += count;
        }
        if count > bar.pending {
            return Err(Fault::lane(
                lane,
                format!("more arrivals at the mbarrier than the {} it expects", bar.expected),
            ));
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

    /// Whether the phase of a state, or of a parity, is over; if so its arrivals are before what follows.
    pub(crate) fn mbar_test(
        &mut self,
        warp: u32,
        lane: u32,
        at: u32,
        value: u64,
        parity: bool,
    ) -> Result<bool, Box<Fault>> {
        let bar = self.mbar(lane, at)?;
        let over = if parity { bar.phase & 1 != value & 1 } else { bar.phase != value };
        if !over {
            return Ok(false);
        }
        let arrived = bar.arrived;
        let seen = &mut self.seen[warp as usize];
        for v in 0..32 {
            if v != warp as usize {
                seen[v] = seen[v].max(arrived[v]);
            }
        }
        self.progress += 1;
        self.settle(warp);
        Ok(true)
    }

    #[cold]
    fn read_race(&self, warp: u32, lane: u32, g: usize, at: u32, bytes: u32) -> Result<(), Box<Fault>> {
        let w = self.writes[g];
        let (t, other) = ((w >> 32) as u32, (w & 31) as u32);
        if t < self.seen[warp as usize][other as usize] {
            return Ok(());
        }
        let mut f = Fault::lane(
            lane,
            format!(
                "shared-memory race: reads {bytes} bytes at byte {at}, which another warp wrote with no barrier between"
            ),
        );
        f.other = Some((other, pc_of(w)));
        Err(f.shared(at))
    }

    /// Two lanes of one warp, not ordered.
    #[cold]
    fn lanes_race(
        &self,
        (does, did): (&str, &str),
        warp: u32,
        lane: u32,
        other: u32,
        pc: u32,
        at: u32,
        bytes: u32,
    ) -> Box<Fault> {
        let mut f = Fault::lane(
            lane,
            format!(
                "shared-memory race: {does} {bytes} bytes at byte {at}, which lane {other} of the same warp {did} with \
                 no __syncwarp between"
            ),
        );
        f.other = Some((warp, pc));
        f.shared(at)
    }

    #[cold]
    fn keep_readers(&mut self, warp: u32, g: usize, mine: u64) {
        let r = self.reads[g];
        let t = (r >> 32) as u32;
        let seen = self.seen[warp as usize];
        let more = self.more_reads.entry(g).or_default();
        more.retain(|&(v, t)| v != warp && t >= seen[v as usize]);
        for v in each(r as u32) {
            if v != warp && t >= seen[v as usize] {
                more.push((v, t));
            }
        }
        if more.is_empty() {
            self.more_reads.remove(&g);
        }
        self.reads[g] = mine;
    }

    /// Checks a write of a range by a lane and records it.
    pub(crate) fn write(
        &mut self,
        warp: u32,
        pc: u32,
        lane: u32,
        at: u32,
        bytes: u32,
        atomic: bool,
    ) -> Result<(), Box<Fault>> {
        self.may_write(warp, lane, at, bytes, atomic)?;
        let plain = write_record(self.step[warp as usize], pc, false, warp, lane);
        for g in self.granules(at, bytes) {
            let w = self.writes[g];
            // An atomic after a plain write of its own, both unseen by others, must not hide that.
            let hides = atomic && w >> 32 == plain >> 32 && w & 63 == plain & 63;
            self.writes[g] = if hides { plain } else { plain | u64::from(atomic) << 5 };
        }
        Ok(())
    }

    /// Checks a write of a range by a lane.
    fn may_write(&self, warp: u32, lane: u32, at: u32, bytes: u32, atomic: bool) -> Result<(), Box<Fault>> {
        let safe = self.safe[warp as usize];
        for g in self.granules(at, bytes) {
            if self.in_flight > 0 {
                self.landed(g, lane, "writes", at, bytes)?;
            }
            let (w, r) = (self.writes[g], self.reads[g]);
            let own = (w & 31) as u32 == warp;
            let both_atomic = atomic && w >> 5 & 1 == 1;
            if own
                && (w >> 32) as u32 >= self.step[warp as usize]
                && ![lane, SEVERAL].contains(&lane_of(w))
                && !both_atomic
            {
                return Err(self.lanes_race(
                    ("writes", "wrote"),
                    warp,
                    lane,
                    lane_of(w),
                    pc_of(w),
                    at,
                    bytes,
                ));
            }
            self.read_before(g, warp, lane, at, bytes)?;
            let written_by_other = (w >> 32) as u32 >= safe && !own;
            let read_by_other = (r >> 32) as u32 >= safe && r as u32 & !(1 << warp) != 0;
            if written_by_other || read_by_other || !self.more_reads.is_empty() {
                self.write_race(warp, lane, g, at, bytes, atomic)?;
            }
        }
        Ok(())
    }

    /// Fails where another lane of the warp read a granule since its lanes last met.
    fn read_before(&self, g: usize, warp: u32, lane: u32, at: u32, bytes: u32) -> Result<(), Box<Fault>> {
        let by = self.read_by[g];
        let number = (by >> 32) as u32;
        let load = &self.loads[number as usize % LOADS];
        // A load of long ago is forgotten.
        if number < self.fresh[warp as usize] || load.number != number || load.warp != warp {
            return Ok(());
        }
        let reads = |l: &u32| self.granules(load.at[*l as usize], load.bytes).contains(&g);
        match each(load.mask & !(1 << lane)).find(reads) {
            Some(other) => Err(self.lanes_race(("writes", "read"), warp, lane, other, by as u32, at, bytes)),
            None => Ok(()),
        }
    }

    #[cold]
    fn write_race(
        &self,
        warp: u32,
        lane: u32,
        g: usize,
        at: u32,
        bytes: u32,
        atomic: bool,
    ) -> Result<(), Box<Fault>> {
        let seen = &self.seen[warp as usize];
        let (w, r) = (self.writes[g], self.reads[g]);
        let (t, other) = ((w >> 32) as u32, (w & 31) as u32);
        let fail = |how: &str, other: u32, pc: u32| {
            let mut f = Fault::lane(
                lane,
                format!(
                    "shared-memory race: writes {bytes} bytes at byte {at}, which another warp {how} with no barrier between"
                ),
            );
            f.other = Some((other, pc));
            Err(f.shared(at))
        };
        let both_atomic = atomic && w >> 5 & 1 == 1;
        if t >= self.base && other != warp && t >= seen[other as usize] && !both_atomic {
            return fail("wrote", other, pc_of(w));
        }
        let rt = (r >> 32) as u32;
        if rt >= self.base {
            for v in each(r as u32) {
                if v != warp && rt >= seen[v as usize] {
                    return fail("read", v, self.read_by[g] as u32);
                }
            }
        }
        for &(v, t) in self.more_reads.get(&g).into_iter().flatten() {
            if v != warp && t >= seen[v as usize] {
                return fail("read", v, self.read_by[g] as u32);
            }
        }
        Ok(())
    }
}
