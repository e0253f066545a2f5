//! Counts of a launch while it runs.

use std::collections::HashSet;

use super::Counters;
use crate::lanes::{Reg64, each};

/// What an access to global memory does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Read,
    Write,
    /// Reads and writes, as an atomic.
    Update,
}

/// Counts of a launch while it runs, by instruction.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub by_inst: Vec<Counters>,
    /// Where wanted, the sectors of global memory that were read.
    pub footprint: Option<HashSet<u64>>,
}

impl Tally {
    /// An instruction that a warp issues for the lanes of `m`.
    #[inline(always)]
    pub(crate) fn issue(&mut self, pc: usize, m: u32) {
        let c = &mut self.by_inst[pc];
        c.warp_instructions += 1;
        c.thread_instructions += u64::from(m.count_ones());
    }

    /// Takes an issue back: the instruction waits, and will be issued again.
    pub(crate) fn unissue(&mut self, pc: usize, m: u32) {
        let c = &mut self.by_inst[pc];
        c.warp_instructions -= 1;
        c.thread_instructions -= u64::from(m.count_ones());
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.by_inst.is_empty() {
            self.by_inst.clone_from(&other.by_inst);
        } else {
            for (a, b) in self.by_inst.iter_mut().zip(&other.by_inst) {
                *a += *b;
            }
        }
    }

    /// An access to global memory.
    #[inline(never)]
    pub(crate) fn global(&mut self, pc: u32, addr: &Reg64, m: u32, bytes: u32, traffic: Traffic) {
        let mut sectors = [0; 32];
        let mut n = 0;
        for l in each(m) {
            sectors[n] = addr[l as usize] >> 5;
            n += 1;
        }
        let sectors = &mut sectors[..n];
        sectors.sort_unstable();
        let different = sectors.chunk_by(|a, b| a == b).count() as u64;
        if traffic != Traffic::Write
            && let Some(footprint) = &mut self.footprint
        {
            footprint.extend(sectors.iter());
        }
        let c = &mut self.by_inst[pc as usize];
        // A line is four sectors.
        c.global_lines += sectors.chunk_by(|a, b| a >> 2 == b >> 2).count() as u64;
        let bytes = u64::from(m.count_ones()) * u64::from(bytes);
        if traffic != Traffic::Write {
            c.global_read_bytes += bytes;
            c.read_sectors += different;
        }
        if traffic != Traffic::Read {
            c.global_written_bytes += bytes;
            c.written_sectors += different;
        }
    }

    /// An access to shared memory: 8 bytes a lane go by half warps, 16 by quarters.
    #[inline(never)]
    pub(crate) fn shared(&mut self, pc: u32, addr: &Reg64, m: u32, bytes: u32) {
        let phases = (bytes / 4).max(1);
        let width = 32 / phases;
        let c = &mut self.by_inst[pc as usize];
        for phase in 0..phases {
            let lanes = m >> (phase * width) << (phase * width);
            let lanes = if width == 32 { m } else { lanes & (((1u32 << width) - 1) << (phase * width)) };
            if lanes == 0 {
                continue;
            }
            let mut words = [u64::MAX; 32];
            let mut n = 0;
            for l in each(lanes) {
                for k in 0..phases {
                    words[n] = addr[l as usize] / 4 + u64::from(k);
                    n += 1;
                }
            }
            let words = &mut words[..n];
            words.sort_unstable();
            let mut banks = [0u64; 32];
            for same in words.chunk_by(|a, b| a == b) {
                banks[(same[0] % 32) as usize] += 1;
            }
            let wavefronts = banks.into_iter().max().unwrap_or(1);
            c.wavefronts += wavefronts;
            c.bank_conflicts += wavefronts - 1;
        }
    }
}
