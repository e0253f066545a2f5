//! A block while it runs: its warps, and the barriers at which they wait for each other.
#![allow(clippy::needless_range_loop)]

use crate::ErrorKind;
use crate::counters::Counters;
use crate::counters::tally::Tally;
use crate::exec::run_warp;
use crate::fault::Fault;
use crate::isa::{BarKind, Code, Init, LaneMask, Op, Slot};
use crate::lanes::each;
use crate::launch::LaunchContext;
use crate::memory::Shared;
use crate::warp::{Group, State, Warp};

/// How a round of a block's warps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// All of them ended.
    Done,
    /// Some made progress.
    Moved,
    /// None did, but some poll: what they wait for may come from elsewhere.
    Polling,
    /// None did, and none can.
    Stuck,
}

/// Rounds without progress, until warps that poll count as waiting for ever: more than any bounded number
/// of attempts that a kernel makes.
pub(crate) const PATIENCE: u32 = 2000;

/// A thread of the host with the state of the block it runs.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub warps: Vec<Warp>,
    pub shared: Shared,
    pub tally: Tally,
    order: Vec<usize>,
}

impl Worker {
    /// Makes room for blocks of a launch and fills the registers that all its blocks share.
    pub(crate) fn begin(&mut self, launch: &LaunchContext) {
        let code = launch.code;
        let count = launch.threads().div_ceil(32) as usize;
        if self.warps.len() < count {
            self.warps.resize_with(count, Warp::default);
        }
        self.warps.truncate(count);
        for (w, warp) in self.warps.iter_mut().enumerate() {
            warp.index = w as u32;
            warp.r32.resize(code.rows32, [0; 32]);
            warp.r64.resize(code.rows64, [0; 32]);
            warp.preds.resize(code.preds, 0);
            warp.local.words.resize(code.local_bytes as usize / 4 * 32, 0);
            warp.local.written.resize(code.local_bytes as usize / 4 * 32, 0);
            fill(launch, code, warp);
        }
        self.order.clear();
        self.order.extend(0..count);
        if launch.reverse {
            self.order.reverse();
        }
        self.tally.by_inst.clear();
        if launch.count {
            self.tally.by_inst.resize(code.insts.len(), Counters::default());
        }
    }

    /// Runs a block to its end.
    pub(crate) fn run_block(&mut self, launch: &LaunchContext, block: u64) -> Result<(), Box<Fault>> {
        self.start_block(launch, block);
        let mut idle = 0;
        loop {
            match self.round(launch)? {
                Round::Done => return Ok(()),
                Round::Moved => idle = 0,
                Round::Polling if idle < PATIENCE => idle += 1,
                Round::Polling | Round::Stuck => {
                    return Err(self.deadlock(launch, "the block can never go on"));
                }
            }
        }
    }

    /// Readies registers and shared memory for a block.
    pub(crate) fn start_block(&mut self, launch: &LaunchContext, block: u64) {
        let at = launch.block_at(block);
        let threads = launch.threads();
        let code = launch.code;
        self.shared.start(launch.shared_bytes, code.shared_granule, self.warps.len() as u32);
        for warp in &mut self.warps {
            for (k, init) in code.init32.iter().enumerate() {
                if let Init::Ctaid(axis) = init {
                    warp.r32[k] = [at[*axis as usize]; 32];
                }
            }
            let left = threads - warp.index * 32;
            warp.live = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
            warp.groups.clear();
            warp.groups.push(Group { pc: 0, mask: warp.live, blocked: false });
            warp.preds.fill(0);
            warp.preds[1] = u32::MAX;
            warp.state = State::Ready;
            warp.executed = 0;
            warp.block = block;
            warp.local.written.fill(0);
            warp.copies.clear();
        }
    }

    /// Runs every warp that is ready until it waits or ends.
    pub(crate) fn round(&mut self, launch: &LaunchContext) -> Result<Round, Box<Fault>> {
        let mut moved = false;
        let progress = self.shared.progress;
        for k in 0..self.order.len() {
            let w = self.order[k];
            let polling = self.warps[w].state == State::Polling;
            if polling {
                self.warps[w].state = State::Ready;
            }
            while self.warps[w].state == State::Ready {
                let warp = &mut self.warps[w];
                run_warp(launch, warp, &mut self.shared, &mut self.tally).map_err(|mut f| {
                    f.warp = w as u32;
                    f
                })?;
                moved |= !polling || warp.state != State::Polling;
            }
        }
        if self.warps.iter().all(|w| w.state == State::Done) {
            return Ok(Round::Done);
        }
        if self.release(launch)? || moved || self.shared.progress != progress {
            return Ok(Round::Moved);
        }
        let polling = self.warps.iter().any(|w| w.state == State::Polling);
        Ok(if polling { Round::Polling } else { Round::Stuck })
    }

    /// Releases the warps whose barrier is complete; false where there is none.
    fn release(&mut self, launch: &LaunchContext) -> Result<bool, Box<Fault>> {
        let mut any = false;
        for id in 0..16 {
            let mut members = 0u32;
            let mut threads = 0;
            let mut wanted = None;
            for w in &self.warps {
                if let State::Waiting { id: at, count } = w.state
                    && at == id
                {
                    members |= 1 << w.index;
                    threads += w.live.count_ones();
                    let of = |n: u32| if n == 0 { self.warps.len() as u32 * 32 } else { n };
                    if wanted.is_some_and(|n| of(n) != of(count)) {
                        let what = "warps wait at one barrier for different numbers of threads";
                        return Err(self.deadlock(launch, what));
                    }
                    wanted = Some(count);
                }
            }
            let Some(wanted) = wanted else { continue };
            let arrived = self.shared.shadow.arrived(id);
            let live: u32 = self.warps.iter().map(|w| w.live.count_ones()).sum();
            let complete = if wanted == 0 { threads == live } else { threads + arrived >= wanted };
            if !complete {
                continue;
            }
            if wanted != 0 && threads + arrived > wanted {
                // Which of them pass it together would be luck.
                return Err(self.deadlock(launch, "more threads come to a barrier than it is for"));
            }
            any = true;
            let exited = self.warps.iter().filter(|w| w.live == 0).fold(0, |m, w| m | 1 << w.index);
            self.shared.shadow.barrier(id, members, exited);
            // The result of a reducing barrier.
            let yes: u32 = each(members).map(|w| self.warps[w as usize].vote.count_ones()).sum();
            for w in each(members) {
                let warp = &mut self.warps[w as usize];
                warp.state = State::Ready;
                finish_barrier(launch.code, warp, yes, threads);
            }
        }
        Ok(any)
    }

    /// A fault that shows where all warps wait.
    #[cold]
    pub(crate) fn deadlock(&self, launch: &LaunchContext, what: &str) -> Box<Fault> {
        let mut lines = Vec::new();
        let mut first = None;
        for w in &self.warps {
            if w.state == State::Polling {
                first = first.or(Some(w));
                let on_barrier = launch.code.insts[w.wait_pc as usize].op == Op::MBar;
                let polls = if on_barrier { "polls an mbarrier" } else { "sleeps and asks again" };
                lines.push(format!("warp {} {polls} ({})", w.index, launch.place(w.wait_pc)));
            }
            if let State::Waiting { id, count } = w.state {
                first = first.or(Some(w));
                let count = if count == 0 { String::new() } else { format!(" for {count} threads") };
                lines.push(format!(
                    "warp {} waits at barrier {id}{count} ({})",
                    w.index,
                    launch.place(w.wait_pc)
                ));
            }
        }
        lines.dedup();
        let shown = lines.len().min(6);
        let mut text = lines[..shown].join("; ");
        if lines.len() > shown {
            text.push_str(&format!("; and {} more", lines.len() - shown));
        }
        let mut f = Fault::warp(ErrorKind::Barrier, format!("{what}: {text}"));
        if let Some(w) = first {
            f.warp = w.index;
            f.pc = w.wait_pc;
        }
        f
    }
}

/// Gives the result of a reducing barrier to a warp that waited.
fn finish_barrier(code: &Code, warp: &mut Warp, yes: u32, threads: u32) {
    let inst = code.insts[warp.wait_pc as usize];
    let bar = code.bars[inst.ext as usize];
    let live = warp.live;
    match (bar.kind, bar.dst) {
        (BarKind::Popc, Slot::R32(d)) => {
            for l in each(live) {
                warp.r32[d as usize][l as usize] = yes;
            }
        }
        (BarKind::And, Slot::P(d)) => {
            let v = if yes == threads { live } else { 0 };
            warp.preds[d as usize] = warp.preds[d as usize] & !live | v;
        }
        (BarKind::Or, Slot::P(d)) => {
            let v = if yes > 0 { live } else { 0 };
            warp.preds[d as usize] = warp.preds[d as usize] & !live | v;
        }
        _ => {}
    }
}

/// Fills the registers that hold constants, indices and arguments.
fn fill(launch: &LaunchContext, code: &Code, warp: &mut Warp) {
    let value = |init: Init, lane: u32| -> u64 {
        let thread = launch.thread(warp.index, lane);
        match init {
            Init::Imm(v) => v,
            Init::Tid(a) => u64::from(thread[a as usize]),
            Init::Ctaid(_) => 0,
            Init::Ntid(a) => u64::from(launch.block[a as usize]),
            Init::Nctaid(a) => u64::from(launch.grid[a as usize]),
            Init::Lane => u64::from(lane),
            Init::Warp => u64::from(warp.index),
            Init::Warps => u64::from(launch.threads().div_ceil(32)),
            Init::LaneMask(m) => {
                let bit = 1u32 << lane;
                u64::from(match m {
                    LaneMask::Eq => bit,
                    LaneMask::Lt => bit - 1,
                    LaneMask::Le => (bit - 1) | bit,
                    LaneMask::Gt => !((bit - 1) | bit),
                    LaneMask::Ge => !(bit - 1),
                })
            }
            Init::Param(n, at) => launch.args.get(n as usize).map_or(0, |v| v >> (8 * u32::from(at))),
            Init::DynamicShared => u64::from(launch.dynamic_shared),
            Init::TotalShared => u64::from(launch.shared_bytes),
        }
    };
    let differs = |init: &Init| matches!(init, Init::Tid(_) | Init::Lane | Init::LaneMask(_));
    for (k, init) in code.init32.iter().enumerate() {
        warp.r32[k] = if differs(init) {
            std::array::from_fn(|l| value(*init, l as u32) as u32)
        } else {
            [value(*init, 0) as u32; 32]
        };
    }
    for (k, init) in code.init64.iter().enumerate() {
        warp.r64[k] = if differs(init) {
            std::array::from_fn(|l| value(*init, l as u32))
        } else {
            [value(*init, 0); 32]
        };
    }
}
