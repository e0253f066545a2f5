//! From the emulator's counters to [`Counts`], by line of the PTX.

use std::collections::BTreeMap;

use super::counts::Counts;
use crate::device::emulator::{Class, Instruction, LaunchCounters};

/// What one launch did.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// In all.
    pub total: Counts,
    /// By line of its module's PTX.
    pub lines: BTreeMap<u32, Counts>,
    /// Warp instructions by class.
    pub classes: BTreeMap<&'static str, u64>,
}

/// The counts of every launch of a program's latest run.
pub fn of(counters: &[LaunchCounters]) -> Vec<Counted> {
    let mut out = Vec::with_capacity(counters.len());
    for counters in counters {
        let mut counted = Counted::default();
        for instruction in &counters.instructions {
            let counts = counts_of(instruction);
            counted.total += counts;
            if counts != Counts::default() {
                *counted.lines.entry(instruction.kernel_line).or_default() += counts;
                *counted.classes.entry(instruction.class.name()).or_default() += counts.instructions;
            }
        }
        out.push(counted);
    }
    out
}

fn counts_of(instruction: &Instruction) -> Counts {
    let c = &instruction.counters;
    let sectors = c.read_sectors + c.written_sectors;
    Counts {
        instructions: c.warp_instructions,
        lanes: c.thread_instructions,
        read_bytes: c.global_read_bytes,
        write_bytes: c.global_written_bytes,
        read_sectors: c.read_sectors,
        write_sectors: c.written_sectors,
        // Where lanes read the same bytes, fewer sectors than their sum were enough.
        ideal_sectors: sectors.min((c.global_read_bytes + c.global_written_bytes).div_ceil(32)),
        shared_accesses: c.wavefronts - c.bank_conflicts,
        conflicts: c.bank_conflicts,
        flops: c.flops,
        matrix: c.matrix_instructions,
        barriers: c.barriers,
        branches: if instruction.class == Class::Branch { c.warp_instructions } else { 0 },
        divergent: c.divergent_branches,
    }
}
